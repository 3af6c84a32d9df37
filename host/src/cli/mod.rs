//! One command a file: arguments, then a call into the library.
