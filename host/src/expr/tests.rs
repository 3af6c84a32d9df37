//! Tables of expression, rows and result; pictures of mistakes; and the properties of halving.
