//! The file as plain structs.
