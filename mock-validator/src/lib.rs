//! A CometBFT validator as a remote signer meets it.
//!
//! It asks for signatures and checks every answer as a CometBFT node would, so a signer can be run, shown and tested
//! without a chain. There are two of it:
//!
//! - [`node::Node`], the only validator of a chain, which asks for one height after the other, over
//!   [`endpoint::RetryClient`], a node's patience with its signer on any transport; [`show()`] puts both on a real socket,
//!   which is what the binary does. [`link::NodeLink`] is one connection alone, with ways past every layer.
//! - [`consensus::Engine`], the consensus of a node among others, which follows CometBFT's step rules, and
//!   [`network::Network`], which runs many of them in simulated time.
//!
//! ```
//! use mock_validator::node::{Node, Settings};
//! use monosign_protocol::{Dialect, Height, message::{Message, Timestamp}};
//!
//! let mut node = Node::new(Settings {
//!     chain_id: "test-chain".parse()?,
//!     dialect: Dialect::V0_38,
//!     first_height: Height(1),
//!     extension_bytes: None,
//!     expected_key: None,
//!     seed: [7; 32],
//! });
//! let now = Timestamp { seconds: 1_700_000_000, nanos: 0 };
//! assert!(matches!(node.poll_request(now), Message::PubKeyRequest(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod conform;
pub mod consensus;
pub mod endpoint;
pub mod link;
pub mod network;
pub mod node;
pub mod show;

pub use show::show;
