//! The pipeline file as users get it wrong.
