//! Where a validator listens: the `addr` of a `[[validator]]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use monosign_protocol::{noise, secret_connection};

/// What is dialed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// A host name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket by path.
    Unix(PathBuf),
    /// A Linux abstract unix socket by name.
    UnixAbstract(String),
}

/// An `addr`: what is dialed, and who must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addr {
    /// What is dialed.
    pub endpoint: Endpoint,
    /// Who must be there.
    pub peer: PinnedPeer,
}

/// The peer that an address pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinnedPeer {
    /// Nobody: nodes make a new key for `tcp://` at each start.
    Anyone,
    /// This node, on `tcp://`.
    Secret(secret_connection::PeerId),
    /// This node, on `noise://`.
    Noise(noise::PeerId),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no address: {why}; forms are tcp://[PEER_ID@]HOST:PORT, unix:///PATH, unix://@NAME, noise://PEER_ID@HOST:PORT"
)]
pub struct InvalidAddr {
    text: String,
    why: String,
}

impl Endpoint {
    /// Whether this is a unix socket, which the file system protects.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_) | Self::UnixAbstract(_))
    }
}

impl FromStr for Addr {
    type Err = InvalidAddr;

    fn from_str(text: &str) -> Result<Self, InvalidAddr> {
        parse(text).map_err(|why| InvalidAddr { text: text.into(), why })
    }
}

fn parse(text: &str) -> Result<Addr, String> {
    match text.split_once("://") {
        Some(("tcp", rest)) => tcp(rest),
        None => tcp(text),
        Some(("unix", rest)) => unix(rest),
        Some(("noise", rest)) => noise_addr(rest),
        Some((scheme, _)) => Err(format!("`{scheme}` is no known scheme")),
    }
}

fn tcp(rest: &str) -> Result<Addr, String> {
    let (peer, host) = match rest.rsplit_once('@') {
        Some((id, host)) => (PinnedPeer::Secret(id.parse().map_err(|e| format!("peer id: {e}"))?), host),
        None => (PinnedPeer::Anyone, rest),
    };
    Ok(Addr { endpoint: host_port(host)?, peer })
}

fn unix(rest: &str) -> Result<Addr, String> {
    let endpoint = match rest.strip_prefix('@') {
        Some(name) if !name.is_empty() && !name.contains('\0') => Endpoint::UnixAbstract(name.into()),
        None if !rest.is_empty() => Endpoint::Unix(rest.into()),
        _ => return Err("the socket has no name".into()),
    };
    Ok(Addr { endpoint, peer: PinnedPeer::Anyone })
}

fn noise_addr(rest: &str) -> Result<Addr, String> {
    let (id, host) = rest.rsplit_once('@').ok_or("noise:// needs the node's peer id")?;
    let peer = PinnedPeer::Noise(id.parse().map_err(|e| format!("peer id: {e}"))?);
    Ok(Addr { endpoint: host_port(host)?, peer })
}

fn host_port(text: &str) -> Result<Endpoint, String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    Ok(Endpoint::Tcp { host: host.into(), port })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix://@{name}"),
        }
    }
}

/// As it is logged: with the scheme as configured and without the peer id.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.to_string();
        match self.peer {
            PinnedPeer::Noise(_) => write!(f, "{}", endpoint.replacen("tcp://", "noise://", 1)),
            _ => f.write_str(&endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_names_what_is_wrong() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.into(), port };
        for (text, endpoint) in [
            ("tcp://10.0.0.1:26658", tcp("10.0.0.1", 26658)),
            ("node.example:1", tcp("node.example", 1)),
            ("tcp://[::1]:26658", tcp("::1", 26658)),
            ("unix:///run/x.sock", Endpoint::Unix("/run/x.sock".into())),
            ("unix://@name", Endpoint::UnixAbstract("name".into())),
        ] {
            let addr: Addr = text.parse().expect(text);
            assert_eq!((addr.endpoint, addr.peer), (endpoint, PinnedPeer::Anyone), "{text}");
        }
        let pinned: Addr = format!("tcp://{id}@h:1").parse().expect("a pinned address");
        assert!(matches!(pinned.peer, PinnedPeer::Secret(_)));
        for text in [
            "tcp://h",
            "tcp://:1",
            "tcp://x@h:1",
            "unix://",
            "unix://@",
            "noise://h:1",
            "http://h:1",
            "tcp://h:x",
        ] {
            assert!(text.parse::<Addr>().is_err(), "{text}");
        }
    }
}
