//! A CometBFT validator as a remote signer meets it.
//!
//! It asks for signatures at rising heights and checks every answer as a CometBFT node would, so a signer can be run,
//! shown and tested without a chain. It is no validator: it has no peers, keeps no blocks and decides nothing.
//!
//! Start at [`node::Node`], the engine without sockets, and [`link::NodeLink`], the node's end of a connection;
//! [`show()`] puts both together on a real socket, which is what the binary does.
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

mod carrier;
pub mod link;
pub mod node;
pub mod show;

pub use show::show;
