//! A mock on loopback, and clients of the real `yubihsm` crate.
#![allow(dead_code)]

use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use yubihsm::asymmetric::Algorithm;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig};

/// Where the tests keep their signing key.
pub(crate) const KEY: u16 = 5;
/// The seed of that key.
pub(crate) const SEED: [u8; 32] = [7; 32];

/// A mock with predictable entropy.
pub(crate) struct Rig {
    pub(crate) connector: Connector,
}

impl Rig {
    /// As from the factory.
    pub(crate) fn new() -> Self {
        let mut count = 0_u8;
        let entropy = move |bytes: &mut [u8]| {
            for byte in bytes {
                count = count.wrapping_mul(5).wrapping_add(113);
                *byte = count;
            }
        };
        let device = Device::new(b"password", Box::new(entropy));
        let connector = Connector::serve(([127, 0, 0, 1], 0), device, Latency::None);
        Self { connector: connector.expect("a free port") }
    }

    /// With the test key in it.
    pub(crate) fn with_key() -> (Self, Client) {
        let rig = Self::new();
        let client = rig.client();
        put_key(&client, KEY, Capability::SIGN_EDDSA);
        (rig, client)
    }

    /// A session as administrator.
    pub(crate) fn client(&self) -> Client {
        self.client_as(Credentials::default()).expect("a session")
    }

    pub(crate) fn client_as(&self, credentials: Credentials) -> Result<Client, yubihsm::client::Error> {
        let address = self.connector.address();
        let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
        Client::open(yubihsm::Connector::http(&config), credentials, true)
    }

    /// Whether a frame of a session is needed to do what `bytes` ask.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        self.connector.device().handle(std::time::Duration::ZERO, bytes)
    }
}

/// Imports the test key.
pub(crate) fn put_key(client: &Client, id: u16, capabilities: Capability) {
    client
        .put_asymmetric_key(id, "val".into(), Domain::DOM1, capabilities, Algorithm::Ed25519, SEED.to_vec())
        .expect("imported");
}
