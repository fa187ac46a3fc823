//! The documents whose API we serve, row by row.

mod rows;
