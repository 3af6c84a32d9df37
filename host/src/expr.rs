//! SQL expressions over columns, through DataFusion's expression crates. The only file that names them.

/// A compiled `where`.
#[derive(Debug, Clone)]
pub struct Predicate;

/// A compiled `select`.
#[derive(Debug, Clone)]
pub struct Projection;
