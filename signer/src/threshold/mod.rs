//! Threshold signing: no machine holds the key, any of them can fail, and none has to lead.
//!
//! The key is shared among `n` cosigners, any `t` of which sign together by FROST (RFC 9591). A signature is an
//! ordinary Ed25519 signature under the key's unchanged public key.
//!
//! # Why it is safe
//!
//! Each cosigner has a guard and a record of its own, the same as a single signer's: it gives shares for one message at each height,
//! round and step, and for none below, and its record is durable before a share leaves. Two messages of one place would
//! need two sets of `t` cosigners, which share at least `2t - n` members. So as long as fewer than that are cloned, rolled back
//! or malicious, there is no second signature: `2t > n + f`. Crashes with an intact disk do not count, and neither leaders nor clocks
//! nor the network appear in the argument. [`group::Shape`] refuses what does not hold it for `f = 0`.
//!
//! | t of n | 2 of 3 | 3 of 4 | 3 of 5 | 4 of 5 | 5 of 7 |
//! |---|---|---|---|---|---|
//! | may be down | 1 | 1 | 2 | 1 | 2 |
//! | may be cloned, rolled back, malicious | **0** | 1 | **0** | 2 | 2 |
//!
//! A message is the same if it differs in its timestamp alone: the validators of one key do not agree on timestamps, and CometBFT takes
//! two such signatures for no double signature (`types/evidence.go`). The signature that was made first is passed on and preferred.
//!
//! # Where it is
//!
//! [`asked`] is what is signed, [`rounds`] FROST, [`cosigner`] the decisions without sockets, disks and clocks, [`keeper`] what
//! touches disk and share. [`deal`] splits a key into [`share`]s of a [`group`]; by [`ceremony`] the hosts make them themselves.

pub mod asked;
mod budget;
mod bytes;
pub mod ceremony;
pub mod commitments;
pub mod connection;
pub mod cosigner;
pub mod deal;
pub mod frost;
pub mod group;
mod inbox;
pub mod incarnation;
pub mod keeper;
mod mesh;
pub mod message;
pub mod nonces;
pub mod open;
pub mod rounds;
pub mod run;
pub mod share;
mod strangers;
pub mod tls;
pub mod transport;
pub mod verified;

#[cfg(test)]
mod tests;
