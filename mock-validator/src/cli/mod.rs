//! One file for each command.

pub(crate) mod compare;
pub(crate) mod conform;
mod identity;
mod key_file;
pub(crate) mod run;
mod table;
mod unread;
mod values;
