//! The production form, thread and proxy and all, against the mock on loopback. Most of these fail without their cure; the mock's own
//! tests show that the defects are there.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use mock_yubihsm::faults::{Fault, Lasting, Once};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device as Mock};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};
use yubihsm::asymmetric::Algorithm;
use yubihsm::{Capability, Domain};

use super::*;
use crate::backend::device::{Device, DeviceError, DeviceKey, Driver, OwnThread, Reply, Request};
use crate::pubkey::PublicKey;

const KEY: u16 = 5;
const SEED: [u8; 32] = [7; 32];

fn mock() -> Connector {
    let mut count = 0_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mock = Mock::new(b"password", Box::new(entropy));
    let connector = Connector::serve(([127, 0, 0, 1], 0), mock, Latency::None).unwrap();
    let session = YubihsmDriver::open(settings(&connector)).unwrap();
    let (label, domain) = ("val".into(), Domain::DOM1);
    let may = Capability::SIGN_EDDSA;
    session.client.put_asymmetric_key(KEY, label, domain, may, Algorithm::Ed25519, SEED.to_vec()).unwrap();
    connector
}

fn settings(connector: &Connector) -> Arc<Settings> {
    let address = connector.address();
    let adapter = Adapter::Http { host: address.ip().to_string(), port: address.port() };
    let password = "password".into();
    Arc::new(Settings { adapter, timeout: Duration::from_millis(300), serial: None, auth_key: 1, password })
}

fn reference() -> SigningKey {
    SigningKey::from_bytes(&SEED)
}

fn public_key() -> PublicKey {
    PublicKey::from_bytes(reference().verifying_key().to_bytes())
}

fn device(settings: &Arc<Settings>) -> Device {
    let (name, limits) = (settings.name(), settings.limits());
    let settings = Arc::clone(settings);
    let thread = OwnThread::new("test", move || Box::new(YubihsmDriver::new(Arc::clone(&settings))));
    Device::new(&name, Rc::new(thread), limits, Rc::default())
}

fn run(test: impl AsyncFnOnce()) {
    crate::deadline::for_this_test();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

/// A mock, and its key once it is ready.
async fn ready() -> (Connector, DeviceKey) {
    let connector = mock();
    let key = device(&settings(&connector)).key(KEY, public_key());
    becomes_ready(&key).await;
    (connector, key)
}

async fn becomes_ready(key: &DeviceKey) {
    timeout(Duration::from_secs(20), key.until_ready()).await.expect("ready within seconds");
}

async fn signs(key: &DeviceKey) {
    let signature = key.sign(b"vote").await.unwrap();
    assert_eq!(signature, reference().sign(b"vote").to_bytes());
}

#[test]
fn signs_as_the_key_does() {
    run(async || {
        let (_connector, key) = ready().await;
        for n in 0..50_u8 {
            let message = vec![n; 120];
            assert_eq!(key.sign(&message).await, Ok(reference().sign(&message).to_bytes()));
        }
    });
}

#[test]
fn d1_a_hanging_connector_is_given_up_long_before_the_crate_would() {
    run(async || {
        let (connector, key) = ready().await;
        connector.set(Fault::Lasting(Lasting::Hang, true));
        let asked = Instant::now();
        let failure = key.sign(b"vote").await.unwrap_err().to_string();
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(
            failure.contains("the connector at 127.0.0.1:")
                && failure.contains("gave no answer within 300ms"),
            "{failure}"
        );
        connector.set(Fault::Lasting(Lasting::Hang, false));
        becomes_ready(&key).await;
        signs(&key).await;
    });
}

#[test]
fn d1_the_thread_itself_is_free_again_before_the_crate_would_be() {
    let connector = mock();
    let mut driver = YubihsmDriver::new(settings(&connector));
    driver.perform(&Request::PublicKey(KEY)).unwrap();
    connector.set(Fault::Lasting(Lasting::Hang, true));
    let (done, result) = std::sync::mpsc::channel();
    let call = std::thread::Builder::new()
        .spawn(move || done.send(driver.perform(&Request::Sign { key: KEY, message: b"x".to_vec() })))
        .unwrap();
    let result = result.recv_timeout(Duration::from_secs(10)).expect("the crate alone waits for 20 s");
    assert!(matches!(result, Err(DeviceError::Lost { session_spent: true, .. })), "{result:?}");
    connector.set(Fault::Lasting(Lasting::Hang, false));
    call.join().unwrap().unwrap();
}

#[test]
fn d2_a_power_cycle_behind_the_connector_costs_no_signature() {
    run(async || {
        let (connector, key) = ready().await;
        for _ in 0..3 {
            connector.set(Fault::Once(Once::PowerCycle));
            signs(&key).await;
        }
    });
}

#[test]
fn d3_an_answer_in_two_segments_is_read_whole() {
    run(async || {
        let (connector, key) = ready().await;
        connector.set(Fault::Lasting(Lasting::Split, true));
        signs(&key).await;
        assert_eq!(connector.device().signatures(), 1, "at the first attempt");
    });
}

#[test]
fn d4_a_truncated_answer_costs_no_signature() {
    run(async || {
        let (connector, key) = ready().await;
        connector.set(Fault::Once(Once::Truncate));
        signs(&key).await;
        signs(&key).await;
    });
}

#[test]
fn a_lost_answer_is_asked_for_again_and_is_the_same() {
    run(async || {
        let (connector, key) = ready().await;
        connector.set(Fault::Once(Once::LoseAnswer));
        signs(&key).await;
        assert_eq!(connector.device().signatures(), 2);
    });
}

#[test]
fn an_idle_connection_that_the_connector_has_closed_costs_no_request_and_no_session() {
    run(async || {
        let (connector, key) = ready().await;
        signs(&key).await;
        let sessions = connector.device().open_sessions();
        for n in 2..6 {
            connector.set(Fault::CloseIdle);
            signs(&key).await;
            assert_eq!(connector.device().signatures(), n, "at the first attempt");
        }
        assert_eq!(connector.device().open_sessions(), sessions);
    });
}

#[test]
fn d10_a_restart_storm_that_uses_up_the_sessions_is_waited_out() {
    let connector = mock();
    // Sessions of processes that are gone. One was spent on the import.
    let sessions: Vec<_> = (0..15).map(|_| YubihsmDriver::open(settings(&connector)).unwrap()).collect();
    run(async || {
        let key = device(&settings(&connector)).key(KEY, public_key());
        timeout(Duration::from_secs(1), key.until_ready()).await.expect_err("there is no session left");
        let waits_for = key.ready().unwrap_err().to_string();
        assert!(waits_for.contains("sessions are in use"), "{waits_for}");
        // As time would: the device forgets them all.
        connector.device().power_cycle();
        becomes_ready(&key).await;
        signs(&key).await;
    });
    drop(sessions);
}

#[test]
fn a_message_that_would_panic_the_crate_is_refused_and_the_longest_allowed_is_signed() {
    run(async || {
        let (_connector, key) = ready().await;
        key.sign(&vec![0; MAX_MESSAGE + 1]).await.unwrap_err();
        assert_eq!(key.sign(&[1; MAX_MESSAGE]).await, Ok(reference().sign(&[1; MAX_MESSAGE]).to_bytes()));
    });
    let connector = mock();
    let mut driver = YubihsmDriver::new(settings(&connector));
    let long = Request::Sign { key: KEY, message: vec![0; 12_000] };
    assert_eq!(driver.perform(&long), Err(DeviceError::TooLong { len: 12_000, max: MAX_MESSAGE }));
    assert!(matches!(driver.perform(&Request::PublicKey(KEY)), Ok(Reply::PublicKey(_))));
}

#[test]
fn a_device_pulled_and_plugged_in_again_signs_within_seconds() {
    run(async || {
        let (connector, key) = ready().await;
        connector.set(Fault::Lasting(Lasting::Unplug, true));
        key.sign(b"vote").await.unwrap_err();
        assert!(key.ready().is_err());
        connector.set(Fault::Lasting(Lasting::Unplug, false));
        let back = Instant::now();
        becomes_ready(&key).await;
        assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
        signs(&key).await;
    });
}

#[test]
fn a_connector_that_was_down_at_start_is_found_when_it_comes() {
    run(async || {
        let connector = mock();
        let address = connector.address();
        let settings = settings(&connector);
        drop(connector);
        let key = device(&settings).key(KEY, public_key());
        timeout(Duration::from_millis(300), key.until_ready()).await.expect_err("nobody listens");
        let mock = Mock::new(b"password", Box::new(|bytes| bytes.fill(9)));
        let _connector = Connector::serve(address, mock, Latency::None).unwrap();
        let session = YubihsmDriver::open(Arc::clone(&settings)).unwrap();
        let (label, may) = ("val".into(), Capability::SIGN_EDDSA);
        let seed = SEED.to_vec();
        session.client.put_asymmetric_key(KEY, label, Domain::DOM1, may, Algorithm::Ed25519, seed).unwrap();
        becomes_ready(&key).await;
        signs(&key).await;
    });
}

#[test]
fn a_wrong_password_opens_one_session_and_no_other() {
    run(async || {
        let connector = mock();
        let settings = Settings { password: "nope".into(), ..Settings::clone(&settings(&connector)) };
        let key = device(&Arc::new(settings)).key(KEY, public_key());
        timeout(Duration::from_secs(1), key.until_ready()).await.expect_err("never");
        assert!(key.ready().unwrap_err().to_string().contains("refuses the password"));
        assert_eq!(connector.device().open_sessions(), 2, "that of the import, and one attempt");
    });
}

#[test]
fn a_device_of_another_serial_number_is_not_signed_with() {
    run(async || {
        let connector = mock();
        let serial = Some("0000000042".into());
        let settings = Settings { serial, ..Settings::clone(&settings(&connector)) };
        let key = device(&Arc::new(settings)).key(KEY, public_key());
        timeout(Duration::from_millis(300), key.until_ready()).await.expect_err("another device");
        let waits_for = key.ready().unwrap_err().to_string();
        assert!(waits_for.contains("`0012345678`"), "{waits_for}");
    });
}

#[test]
fn settings_show_no_password() {
    let connector = mock();
    let shown = format!("{:?}", settings(&connector));
    assert!(!shown.contains("password\"") && shown.contains("auth_key"), "{shown}");
}
