//! The command line.

pub mod softsign;
