//! The three kinds of patch. Each gives the whole new object, which is then decoded anew.

pub mod json;
pub mod merge;
pub mod strategic;
