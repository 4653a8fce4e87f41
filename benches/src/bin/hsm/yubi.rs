//! YubiHSM doubles, bare and behind our layers.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device as Mock};
use monosign::backend::device::{Device, DeviceKey, OwnThread};
use monosign::backend::yubihsm::witness::Watched;
use monosign::backend::yubihsm::{Adapter, Audit, Settings, Witnessed, YubihsmDriver, read_log};
use monosign::pubkey::PublicKey;
use monosign::seams::StdDisk;
use yubihsm::asymmetric::Algorithm;
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig};

const KEY: u16 = 1;
const SEED: [u8; 32] = [7; 32];

/// The crate's client, straight to the mock.
pub(crate) struct Bare(Client);

impl Bare {
    pub(crate) fn sign(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.0.sign_ed25519(KEY, message)?;
        Ok(())
    }
}

/// One mock without latency, bare; and another one behind our layers, whose log may be watched.
pub(crate) struct Rig {
    pub(crate) bare: Bare,
    pub(crate) key: DeviceKey,
    _connectors: [Connector; 2],
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new(watched: bool) -> anyhow::Result<Self> {
        let connector = mock(Latency::None)?;
        let bare = Bare(client(&connector)?);
        put_key(&bare.0, KEY)?;

        let ours = mock(Latency::None)?;
        let admin = client(&ours)?;
        put_key(&admin, KEY)?;
        std::fs::create_dir_all("target/bench")?;
        let dir = tempfile::tempdir_in("target/bench")?;
        let watch = match watched {
            true => {
                admin.set_command_audit_option(Code::SignEddsa, AuditOption::On)?;
                Some((&dir, read_log(&admin)?))
            }
            false => None,
        };
        let key = own(&ours, watch).await?.key(KEY, public_key());
        Ok(Self { bare, key, _connectors: [connector, ours], _dir: dir })
    }
}

/// One slow mock with a key for each of twenty chains.
pub(crate) struct Slow {
    pub(crate) device: Device,
    pub(crate) keys: Vec<Rc<DeviceKey>>,
    _connector: Connector,
}

impl Slow {
    pub(crate) async fn new(latency: Duration) -> anyhow::Result<Self> {
        let connector = mock(Latency::Fixed(latency))?;
        let admin = client(&connector)?;
        let numbers = 1..=super::CHAINS as u16;
        numbers.clone().try_for_each(|number| put_key(&admin, number))?;
        let device = own(&connector, None).await?;
        let keys = numbers.map(|number| Rc::new(device.key(number, public_key()))).collect();
        Ok(Self { device, keys, _connector: connector })
    }
}

fn mock(latency: Latency) -> anyhow::Result<Connector> {
    let mut count = 0_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mock = Mock::new(b"password", Box::new(entropy));
    Ok(Connector::serve(([127, 0, 0, 1], 0), mock, latency)?)
}

fn client(connector: &Connector) -> anyhow::Result<Client> {
    let address = connector.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
    Ok(Client::open(yubihsm::Connector::http(&config), Credentials::default(), true)?)
}

fn put_key(client: &Client, number: u16) -> anyhow::Result<()> {
    let (label, may) = ("val".into(), Capability::SIGN_EDDSA);
    client.put_asymmetric_key(number, label, Domain::DOM1, may, Algorithm::Ed25519, SEED.to_vec())?;
    Ok(())
}

fn public_key() -> PublicKey {
    PublicKey::from_bytes(SigningKey::from_bytes(&SEED).verifying_key().to_bytes())
}

type Watch<'a> = (&'a tempfile::TempDir, monosign::backend::yubihsm::witness::AuditLog);

async fn own(connector: &Connector, watch: Option<Watch<'_>>) -> anyhow::Result<Device> {
    let address = connector.address();
    let adapter = Adapter::Http { host: address.ip().to_string(), port: address.port() };
    let timeout = Duration::from_millis(1500);
    let settings = Settings { adapter, timeout, serial: None, auth_key: 1, password: "password".into() };
    let (settings, limits) = (Arc::new(settings.clone()), settings.limits());
    let make = move || Box::new(YubihsmDriver::new(Arc::clone(&settings))) as _;
    let thread = Rc::new(OwnThread::new("yubihsm", make));
    let Some((dir, log)) = watch else { return Ok(Device::new("bench", thread, limits, Rc::default())) };
    let (disk, path) = (Rc::new(StdDisk::default()), dir.path().join("audit"));
    Witnessed::init(&*disk, &path, &log).await?;
    let watched = Watched { auth_key: 1, keys: BTreeSet::from([KEY]) };
    let witnessed = Witnessed::new(thread, Audit::Detect, watched, disk, path);
    Ok(Device::new("bench", Rc::new(witnessed), limits, Rc::default()))
}
