//! The documents whose API we serve, row by row.

mod replay;
mod rows;
mod shape;
