//! The signer with its key on a YubiHSM, as an operator runs it, against the mock behind a connector's HTTP.

mod rig;

use ed25519_dalek::SigningKey;
use mock_yubihsm::faults::{Fault, Lasting, Once};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use monosign_protocol::{Round, Step};
use rig::{CHAIN, Home, NodeSide, signing_key, validator_table};
use yubihsm::asymmetric::Algorithm;
use yubihsm::object::Type;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig};

const KEY: u16 = 1;

/// A device with this key.
fn device_with(key: &SigningKey) -> Connector {
    let mut count = 0_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let device = Device::new(b"password", Box::new(entropy));
    let connector = Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port");
    put(&administrator(&connector), key);
    connector
}

fn administrator(device: &Connector) -> Client {
    let address = device.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
    let http = yubihsm::Connector::http(&config);
    Client::open(http, Credentials::default(), false).expect("a session")
}

fn put(client: &Client, key: &SigningKey) {
    let (label, may, seed) = ("val".into(), Capability::SIGN_EDDSA, key.to_bytes().to_vec());
    client.put_asymmetric_key(KEY, label, Domain::DOM1, may, Algorithm::Ed25519, seed).expect("imported");
}

/// The test chain's key on these devices, and its configuration.
fn home(addr: &str, devices: &[&Connector]) -> Home {
    let home = Home::new();
    home.write("password", b"password\n");
    let mut text = format!(
        "[[chain]]\nid = \"{CHAIN}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"{CHAIN}.record\"\n\n"
    );
    for device in devices {
        text += &format!(
            "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://{}\", timeout_ms = 300 }}\n\
             auth = {{ key = 1, password_file = \"password\" }}\n\
             keys = [{{ chain_ids = [\"{CHAIN}\"], key = {KEY} }}]\n\n",
            device.address()
        );
    }
    text += &validator_table(CHAIN, addr, "");
    home.write("monosign.toml", text.as_bytes());
    home
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn signs_for_a_node_and_refuses_a_double_sign() {
    run(async {
        let (device, node) = (device_with(&signing_key(CHAIN)), NodeSide::tcp().await);
        let home = home(&node.addr(), &[&device]);
        home.make_record(CHAIN);
        let check = home.monosign(&["check", "--offline"]).must_succeed().stdout;
        let public_key = data_encoding::HEXLOWER.encode(home.public_key(CHAIN).as_bytes());
        assert!(check.contains(&format!("key {public_key}")), "{check}");
        assert!(home.monosign(&["pubkey", "--format", "hex"]).must_succeed().stdout.contains(&public_key));
        let signer = home.start();
        signer.logs("key 0x0001 is there").await;
        assert_eq!(signer.log().matches("its log is not watched").count(), 1, "told once");
        let mut conversation = node.converse(CHAIN).await;
        assert_eq!(conversation.shows_key().await, home.public_key(CHAIN));
        for height in 1..20 {
            for step in [Step::Proposal, Step::Prevote, Step::Precommit] {
                let request = conversation.request(height, 0, step);
                conversation.signs(&request).await;
            }
        }
        let signatures = device.device().signatures();
        let mut other = conversation.block(19);
        other.hash[0] ^= 1;
        let hrs = monosign_protocol::Hrs {
            height: monosign_protocol::Height(19),
            round: Round(0),
            step: Step::Precommit,
        };
        let request = conversation.requests.sign(hrs, other, rig::NOW);
        let error = conversation.refuses(&request).await;
        assert!(error.description.to_string().contains("double sign"), "{error:?}");
        assert_eq!(device.device().signatures(), signatures, "the device was not asked");
    });
}

#[test]
fn survives_a_power_cycle_a_lost_answer_and_a_pulled_plug() {
    run(async {
        let (device, node) = (device_with(&signing_key(CHAIN)), NodeSide::tcp().await);
        let home = home(&node.addr(), &[&device]);
        home.make_record(CHAIN);
        let signer = home.start();
        let mut conversation = node.converse_once(CHAIN, &signer, "key 0x0001 is there").await;
        device.set(Fault::Once(Once::PowerCycle));
        conversation.signs_prevote(2).await;
        device.set(Fault::Once(Once::LoseAnswer));
        conversation.signs_prevote(3).await;
        device.set(Fault::Lasting(Lasting::Unplug, true));
        let request = conversation.request(4, 0, Step::Prevote);
        conversation.refuses(&request).await;
        // The device is known to be gone now, and what is asked burns no height.
        let watermark = home.watermark(CHAIN);
        let later = conversation.request(5, 0, Step::Prevote);
        conversation.refuses(&later).await;
        assert_eq!(home.watermark(CHAIN), watermark);
        device.set(Fault::Lasting(Lasting::Unplug, false));
        signer.logs_again(": ready").await;
        conversation.signs(&request).await;
    });
}

#[test]
fn a_deleted_key_is_waited_for_and_nothing_is_recorded_for_it_any_more() {
    run(async {
        let (device, node) = (device_with(&signing_key(CHAIN)), NodeSide::tcp().await);
        let home = home(&node.addr(), &[&device]);
        home.make_record(CHAIN);
        let signer = home.start();
        let mut conversation = node.converse_once(CHAIN, &signer, "key 0x0001 is there").await;
        administrator(&device).delete_object(KEY, Type::AsymmetricKey).expect("deleted");
        let first = conversation.request(2, 0, Step::Prevote);
        conversation.refuses(&first).await;
        signer.logs("key 0x0001: it has no key 0x0001").await;
        assert_eq!(home.watermark(CHAIN), (2, 0, 2));
        conversation.records_nothing(&home, CHAIN, "key 0x0001: it has no key 0x0001").await;
        put(&administrator(&device), &signing_key(CHAIN));
        signer.logs_again("key 0x0001 is there").await;
        conversation.signs(&first).await;
    });
}

#[test]
fn starts_without_its_device_and_signs_when_it_comes() {
    run(async {
        let (device, node) = (device_with(&signing_key(CHAIN)), NodeSide::tcp().await);
        let home = home(&node.addr(), &[&device]);
        home.make_record(CHAIN);
        device.set(Fault::Lasting(Lasting::Unplug, true));
        let signer = home.start();
        signer.logs("nothing is signed yet").await;
        let mut conversation = node.converse(CHAIN).await;
        assert_eq!(conversation.shows_key().await, home.public_key(CHAIN), "from the record");
        let request = conversation.request(1, 0, Step::Prevote);
        conversation.refuses(&request).await;
        assert_eq!(home.watermark(CHAIN), (0, 0, 0));
        device.set(Fault::Lasting(Lasting::Unplug, false));
        signer.logs("key 0x0001 is there").await;
        signer.logs(": ready").await;
        conversation.signs(&request).await;
    });
}

#[test]
fn a_device_that_signs_wrongly_is_latched_out_and_the_other_takes_over() {
    run(async {
        let key = signing_key(CHAIN);
        let devices = [device_with(&key), device_with(&key)];
        let node = NodeSide::tcp().await;
        let home = home(&node.addr(), &[&devices[0], &devices[1]]);
        home.make_record(CHAIN);
        let signer = home.start();
        for device in &devices {
            signer.logs(&format!("yubihsm at {}: ready", device.address())).await;
        }
        let mut conversation = node.converse(CHAIN).await;
        conversation.signs_prevote(1).await;
        assert_eq!(devices[1].device().signatures(), 0, "the first is well");
        devices[0].set(Fault::Lasting(Lasting::SignWrongly, true));
        let request = conversation.request(2, 0, Step::Prevote);
        let error = conversation.refuses(&request).await.description.to_string();
        assert!(error.contains("does not verify"), "{error}");
        devices[0].set(Fault::Lasting(Lasting::SignWrongly, false));
        let signatures = devices[0].device().signatures();
        conversation.signs(&request).await;
        assert_eq!(devices[0].device().signatures(), signatures, "it is never asked again");
        assert!(devices[1].device().signatures() > 0);
        signer.logs("does not verify: it is asked nothing more").await;
    });
}

#[test]
fn the_record_of_another_key_is_not_signed_on() {
    run(async {
        let node = NodeSide::tcp().await;
        let right = device_with(&signing_key(CHAIN));
        let wrong = device_with(&SigningKey::from_bytes(&[9; 32]));
        let home = home(&node.addr(), &[&right]);
        home.make_record(CHAIN);
        home.edit_config(&right.address().to_string(), &wrong.address().to_string());
        let signer = home.start();
        signer.logs("and the record is that of").await;
        let mut conversation = node.converse(CHAIN).await;
        let request = conversation.request(1, 0, Step::Prevote);
        conversation.refuses(&request).await;
        assert_eq!((wrong.device().signatures(), home.watermark(CHAIN)), (0, (0, 0, 0)));
    });
}

#[test]
fn signs_for_validators_of_every_release() {
    run(async {
        let (device, node) = (device_with(&signing_key(CHAIN)), NodeSide::tcp().await);
        let home = home(&node.addr(), &[&device]);
        home.make_record(CHAIN);
        let signer = home.start();
        signer.logs("key 0x0001 is there").await;
        node.is_served_in_every_dialect(CHAIN).await;
    });
}
