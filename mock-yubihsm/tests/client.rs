//! The unmodified `yubihsm` crate against the mock: what the device does.

mod rig;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use mock_yubihsm::device::Firmware;
use rig::{KEY, Rig, SEED, put_key};
use yubihsm::asymmetric::Algorithm;
use yubihsm::device::ErrorKind;
use yubihsm::object::Type;
use yubihsm::{Capability, Client, Credentials, Domain, authentication, opaque, wrap};

fn refused<T: std::fmt::Debug>(result: Result<T, yubihsm::client::Error>) -> ErrorKind {
    let error = result.expect_err("must be refused");
    error.device_error().unwrap_or_else(|| panic!("an error of the device, not: {error}"))
}

#[test]
fn signs_as_ed25519_dalek_does() {
    let (rig, client) = Rig::with_key();
    let reference = SigningKey::from_bytes(&SEED);
    for n in 0..100_u8 {
        let message = vec![n; 110 + usize::from(n)];
        let signature = client.sign_ed25519(KEY, message.clone()).expect("signed");
        assert_eq!(signature.to_bytes(), reference.sign(&message).to_bytes());
    }
    assert_eq!(rig.connector.device().signatures(), 100);
}

#[test]
fn tells_who_it_is_and_what_it_holds() {
    let (_rig, client) = Rig::with_key();
    let info = client.device_info().expect("info");
    assert_eq!((info.serial_number.to_string().as_str(), info.log_store_capacity), ("0012345678", 62));
    assert_eq!(client.echo(b"hello".as_slice()).expect("echo"), b"hello");
    assert_eq!(client.get_pseudo_random(32).expect("random").len(), 32);
    assert!(client.get_storage_info().expect("storage").free_records > 200);
    let keys = client.list_objects(&[yubihsm::object::Filter::Type(Type::AsymmetricKey)]).expect("list");
    assert_eq!(keys.iter().map(|key| key.object_id).collect::<Vec<_>>(), [KEY]);
    let info = client.get_object_info(KEY, Type::AsymmetricKey).expect("info");
    assert_eq!((info.label.to_string().as_str(), info.domains), ("val", Domain::DOM1));
    assert_eq!(info.capabilities, Capability::SIGN_EDDSA);
    let public = client.get_public_key(KEY).expect("public key").ed25519().expect("ed25519");
    assert_eq!(public.as_bytes(), &SigningKey::from_bytes(&SEED).verifying_key().to_bytes());
}

#[test]
fn without_a_session_it_says_who_it_is_and_echoes_and_does_nothing_else() {
    let rig = Rig::new();
    assert_eq!(rig.raw(&[0x06, 0, 0])[..10], [0x86, 0, 14, 2, 4, 0, 0, 0xbc, 0x61, 0x4e]);
    assert_eq!(rig.raw(&[0x06, 0, 1, 1]), *b"\x86\x00\x04MOCK");
    assert_eq!(rig.raw(&[0x01, 0, 2, 7, 8]), [0x81, 0, 2, 7, 8]);
    assert_eq!(rig.raw(&[0x48, 0, 0]), [0x7f, 0, 1, 1]);
    rig.connector.device().set_firmware(Firmware::Old);
    assert_eq!(rig.raw(&[0x06, 0, 0])[3..6], [2, 2, 0]);
    assert_eq!(rig.raw(&[0x06, 0, 1, 1])[0], 0x7f, "it has one page");
}

#[test]
fn the_longest_frame_depends_on_the_firmware() {
    for (firmware, max) in [(Firmware::Old, 2048), (Firmware::New, 3136)] {
        let rig = Rig::new();
        rig.connector.device().set_firmware(firmware);
        let echo = |len: usize| {
            let data = len - 3;
            let head = [0x01, (data >> 8) as u8, data as u8];
            rig.raw(&[&head[..], &vec![7; data]].concat())[0]
        };
        assert_eq!((echo(max), echo(max + 1)), (0x81, 0x7f));
    }
}

#[test]
fn a_key_does_only_what_its_session_may() {
    let (rig, admin) = Rig::with_key();
    let put = |id, domains, capabilities| {
        let key = authentication::Key::derive_from_password(b"x");
        let none = Capability::empty();
        let kind = authentication::Algorithm::YubicoAes;
        admin.put_authentication_key(id, "role".into(), domains, capabilities, none, kind, key).expect("put");
        rig.client_as(Credentials::from_password(id, b"x")).expect("a session")
    };
    let auditor = put(2, Domain::DOM1, Capability::GET_LOG_ENTRIES);
    let elsewhere = put(3, Domain::DOM2, Capability::SIGN_EDDSA);
    let validator = put(4, Domain::DOM1, Capability::SIGN_EDDSA);
    assert_eq!(refused(auditor.sign_ed25519(KEY, b"x".as_slice())), ErrorKind::InsufficientPermissions);
    assert_eq!(refused(elsewhere.sign_ed25519(KEY, b"x".as_slice())), ErrorKind::ObjectNotFound);
    assert_eq!(refused(validator.get_log_entries()), ErrorKind::InsufficientPermissions);
    assert_eq!(
        refused(validator.delete_object(KEY, Type::AsymmetricKey)),
        ErrorKind::InsufficientPermissions
    );
    validator.sign_ed25519(KEY, b"x".as_slice()).expect("signed");
}

#[test]
fn nobody_gives_an_object_more_than_was_delegated_to_him() {
    let (rig, admin) = Rig::with_key();
    let key = authentication::Key::derive_from_password(b"x");
    let kind = authentication::Algorithm::YubicoAes;
    let (may, delegated) = (Capability::GENERATE_ASYMMETRIC_KEY, Capability::SIGN_EDDSA);
    admin.put_authentication_key(2, "op".into(), Domain::DOM1, may, delegated, kind, key).expect("put");
    let operator = rig.client_as(Credentials::from_password(2, b"x")).expect("a session");
    let generate = |id, domains, capabilities| {
        operator.generate_asymmetric_key(id, "k".into(), domains, capabilities, Algorithm::Ed25519)
    };
    let more = Capability::SIGN_EDDSA | Capability::EXPORTABLE_UNDER_WRAP;
    assert_eq!(refused(generate(7, Domain::DOM1, more)), ErrorKind::InsufficientPermissions);
    assert_eq!(refused(generate(7, Domain::DOM2, delegated)), ErrorKind::InsufficientPermissions);
    assert_eq!(generate(7, Domain::DOM1, delegated).expect("generated"), 7);
}

#[test]
fn wrong_passwords_and_unknown_keys_open_nothing() {
    let (rig, _client) = Rig::with_key();
    for credentials in [Credentials::from_password(1, b"nope"), Credentials::from_password(9, b"password")] {
        let error = rig.client_as(credentials).err().expect("refused");
        assert_eq!(*error.kind(), yubihsm::client::ErrorKind::AuthenticationError, "{error}");
    }
}

#[test]
fn a_wrapped_key_carries_its_secret_to_another_device() {
    let (_rig, client) = Rig::with_key();
    let exportable = Capability::SIGN_EDDSA | Capability::EXPORTABLE_UNDER_WRAP;
    put_key(&client, 6, exportable);
    let put_wrap_key = |client: &Client| {
        let may = Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED;
        let algorithm = wrap::Algorithm::Aes256Ccm;
        client
            .put_wrap_key(1, "w".into(), Domain::DOM1, may, exportable, algorithm, vec![9; 32])
            .expect("put");
    };
    put_wrap_key(&client);
    let not = client.export_wrapped(1, Type::AsymmetricKey, KEY);
    assert_eq!(refused(not), ErrorKind::InsufficientPermissions);
    let wrapped = client.export_wrapped(1, Type::AsymmetricKey, 6).expect("exported");

    let (_other, spare) = Rig::with_key();
    put_wrap_key(&spare);
    spare.import_wrapped(1, wrapped.clone()).expect("imported");
    let public = spare.get_public_key(6).expect("public key").ed25519().expect("ed25519");
    let key = VerifyingKey::from_bytes(public.as_bytes()).expect("a point");
    let signature = spare.sign_ed25519(6, b"vote".as_slice()).expect("signed");
    assert_eq!(signature.to_bytes(), SigningKey::from_bytes(&SEED).sign(b"vote").to_bytes());
    assert!(key.verify_strict(b"vote", &signature.to_bytes().into()).is_ok());
    assert_eq!(refused(spare.import_wrapped(1, wrapped)), ErrorKind::ObjectExists);
    let origin = spare.get_object_info(6, Type::AsymmetricKey).expect("info").origin;
    assert_eq!(origin, yubihsm::object::Origin::WrappedImported);
}

#[test]
fn an_opaque_object_is_made_once_and_counts_how_often() {
    let (_rig, client) = Rig::with_key();
    let put = |value: u8| {
        let (label, none) = ("epoch".into(), Capability::empty());
        client.put_opaque(0x100, label, Domain::DOM1, none, opaque::Algorithm::Data, vec![value])
    };
    put(1).expect("made");
    assert_eq!(refused(put(2)), ErrorKind::ObjectExists);
    assert_eq!(client.get_opaque(0x100).expect("read"), [1]);
    for value in 2..5 {
        client.delete_object(0x100, Type::Opaque).expect("deleted");
        put(value).expect("made");
    }
    assert_eq!(client.get_object_info(0x100, Type::Opaque).expect("info").sequence, 3);
}

#[test]
fn the_seventeenth_session_is_refused_until_the_others_were_idle_for_30_seconds() {
    let rig = Rig::new();
    let sessions: Vec<_> = (0..16).map(|_| rig.client()).collect();
    let error = rig.client_as(Credentials::default()).err().expect("refused");
    assert_eq!(error.device_error(), Some(ErrorKind::SessionsFull));
    drop(sessions);
    let now = mock_yubihsm::device::IDLE + std::time::Duration::from_secs(1);
    let mut device = rig.connector.device();
    device.handle(now, &[]);
    assert_eq!(device.open_sessions(), 0);
}

#[test]
fn a_reset_leaves_the_default_key_and_nothing_else() {
    let (rig, client) = Rig::with_key();
    client.reset_device().expect("reset");
    let client = rig.client();
    assert_eq!(refused(client.get_public_key(KEY)), ErrorKind::ObjectNotFound);
    assert_eq!(client.list_objects(&[]).expect("list").len(), 1);
}

#[test]
fn no_input_outside_of_a_session_does_anything_or_panics() {
    let rig = Rig::new();
    for len in 0..40_usize {
        for code in 0..=255_u8 {
            let mut frame = vec![code, 0, len as u8];
            frame.resize(3 + len, code);
            let answer = rig.raw(&frame);
            let does_no_harm = code == 0x01 || (code == 0x06 && len < 2) || (code == 0x03 && len == 10);
            assert!(answer[0] == 0x7f || does_no_harm, "{frame:?} gave {answer:?}");
        }
    }
    assert_eq!(rig.connector.device().unread_log_entries(), 2, "the reset and the boot");
}
