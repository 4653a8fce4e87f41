//! x
pub mod noise;
pub mod secret_connection;
