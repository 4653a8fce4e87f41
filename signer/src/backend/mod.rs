//! What holds a consensus key and signs with it.

pub mod softsign;
