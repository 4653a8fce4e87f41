use monosign_protocol::noise;

use super::Address;

/// Which handshake a signer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// None: nothing is encrypted, as on `unix://`.
    Plain,
    /// SecretConnection, as on `tcp://`.
    SecretConnection,
    /// libp2p Noise, as on v0.40's `noise://`.
    Noise {
        /// The only signer that is let in.
        signer: noise::PeerId,
    },
}

impl From<&Address> for Transport {
    fn from(address: &Address) -> Self {
        match address {
            Address::Tcp(_) => Self::SecretConnection,
            Address::Unix(_) | Address::Abstract(_) => Self::Plain,
            Address::Noise { signer, .. } => Self::Noise { signer: *signer },
        }
    }
}
