use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use ed25519_dalek::SigningKey;
use monosign_protocol::noise;

/// Where a node waits for its signer: CometBFT's `priv_validator_laddr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `tcp://ip:port`: SecretConnection. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:///path`: not encrypted.
    Unix(PathBuf),
    /// `unix://@name`: an abstract socket of Linux, without a file. Not encrypted.
    Abstract(String),
    /// `noise://<signer's peer id>@ip:port`: libp2p Noise, v0.40 only.
    Noise {
        /// The only signer that is let in.
        signer: noise::PeerId,
        /// Where to listen; port 0 lets the system choose.
        addr: SocketAddr,
    },
}

/// A text that is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no address to listen on: use tcp://IP:PORT, unix:///PATH, unix://@NAME or noise://SIGNER_PEER_ID@IP:PORT"
)]
pub struct InvalidAddress {
    text: String,
}

impl Address {
    /// What a signer is told to dial, where the node that listens here is `node`: at `noise://` each end names the other.
    pub fn as_dialed(&self, node: &SigningKey) -> String {
        match self {
            Self::Noise { addr, .. } => {
                format!("noise://{}@{addr}", noise::PeerId::from(&node.verifying_key()))
            }
            other => other.to_string(),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).ok_or_else(|| InvalidAddress { text: text.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix://@{name}"),
            Self::Noise { signer, addr } => write!(f, "noise://{signer}@{addr}"),
        }
    }
}

fn parse(text: &str) -> Option<Address> {
    // CometBFT takes a bare `ip:port` for tcp (`libs/net`, `ProtocolAndAddress`).
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "tcp" => rest.parse().ok().map(Address::Tcp),
        "unix" if rest.is_empty() || rest == "@" => None,
        "unix" => Some(match rest.strip_prefix('@') {
            Some(name) => Address::Abstract(name.to_owned()),
            None => Address::Unix(rest.into()),
        }),
        "noise" => {
            let (signer, addr) = rest.split_once('@')?;
            Some(Address::Noise { signer: signer.parse().ok()?, addr: addr.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_shows() {
        let id = noise::PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key());
        let noise = format!("noise://{id}@127.0.0.1:26659");
        for text in ["tcp://127.0.0.1:26658", "tcp://[::1]:0", "unix:///run/x.sock", "unix://@x", &noise] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        assert_eq!("127.0.0.1:1".parse::<Address>(), "tcp://127.0.0.1:1".parse());
    }

    #[test]
    fn refuses_what_a_node_cannot_listen_on() {
        for text in [
            "",
            "tcp://",
            "tcp://localhost",
            "unix://",
            "unix://@",
            "http://127.0.0.1:1",
            "noise://127.0.0.1:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
