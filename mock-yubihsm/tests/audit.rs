//! The audit log, read by the unmodified `yubihsm` crate.

mod rig;

use mock_yubihsm::device::Firmware;
use rig::{KEY, Rig};
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::device::ErrorKind;
use yubihsm::{Client, Credentials};

fn audited() -> (Rig, Client) {
    let (rig, client) = Rig::with_key();
    client.set_command_audit_option(Code::SignEddsa, AuditOption::Fix).expect("set");
    client.set_force_audit_option(AuditOption::On).expect("set");
    (rig, client)
}

fn sign(client: &Client) -> Result<(), Option<ErrorKind>> {
    client.sign_ed25519(KEY, b"x".as_slice()).map(drop).map_err(|error| error.device_error())
}

#[test]
fn nothing_is_audited_until_it_is_asked_for() {
    let (_rig, client) = Rig::with_key();
    sign(&client).expect("signed");
    let log = client.get_log_entries().expect("log");
    assert_eq!(log.entries.iter().map(|entry| entry.item).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((log.entries[0].cmd, log.entries[1].cmd), (Code::HsmInitialization, Code::Unknown));
}

#[test]
fn firmware_before_2_3_1_audits_sessions_public_keys_and_the_reading_of_its_log() {
    let rig = Rig::new();
    rig.connector.device().set_firmware(Firmware::Old);
    let client = rig.client();
    let commands = |client: &Client| {
        let log = client.get_log_entries().expect("log");
        log.entries.iter().map(|entry| entry.cmd.to_u8()).collect::<Vec<_>>()
    };
    // As python-yubihsm's tests saw it on hardware: the reset, the boot, and the session.
    assert_eq!(commands(&client), [0xff, 0x00, 0x03, 0x04]);
    client.set_log_index(3).expect("marked as read");
    client.get_public_key(KEY).expect_err("no key");
    assert_eq!(commands(&client), [0x04, 0x67, 0x54]);
    let options = client.get_commands_audit_options().expect("options");
    let audited = options.iter().filter(|option| option.audit_option() == AuditOption::On).count();
    assert_eq!((options.len(), audited), (53, 46));
}

#[test]
fn a_signature_is_logged_with_who_made_it_and_of_how_much() {
    let (_rig, client) = audited();
    client.sign_ed25519(KEY, vec![1; 120]).expect("signed");
    let log = client.get_log_entries().expect("log");
    let entry = log.entries.last().expect("an entry");
    assert_eq!((entry.cmd, entry.session_key, entry.target_key), (Code::SignEddsa, 1, KEY));
    // Two bytes of key number before the message.
    assert_eq!(entry.length, 122);
    assert!(entry.result.is_success());
}

#[test]
fn the_digests_form_a_chain_as_yubico_describes_it() {
    use data_encoding::HEXLOWER;
    use sha2::{Digest as _, Sha256};
    let (_rig, client) = audited();
    (0..5).for_each(|_| sign(&client).expect("signed"));
    let log = client.get_log_entries().expect("log");
    for pair in log.entries.windows(2) {
        let [before, entry] = pair else { continue };
        let mut bytes = entry.item.to_be_bytes().to_vec();
        bytes.push(entry.cmd.to_u8());
        for field in [entry.length, entry.session_key, entry.target_key, entry.second_key] {
            bytes.extend(field.to_be_bytes());
        }
        // The crate folds 0, a boot, with the errors.
        bytes.push(if entry.cmd == Code::Unknown { 0 } else { entry.result.to_u8() });
        bytes.extend(entry.tick.to_be_bytes());
        let digest = Sha256::new().chain_update(&bytes).chain_update(before.digest.as_ref()).finalize();
        assert_eq!(HEXLOWER.encode(&digest[..16]), HEXLOWER.encode(entry.digest.as_ref()));
    }
}

#[test]
fn a_full_log_stops_signatures_until_it_is_read() {
    let (_rig, client) = audited();
    (0..60).for_each(|_| sign(&client).expect("signed"));
    assert_eq!(sign(&client), Err(Some(ErrorKind::LogFull)));
    let log = client.get_log_entries().expect("still readable");
    assert_eq!((log.num_entries, log.entries.len()), (62, 62));
    client.set_log_index(log.entries[0].item).expect("one is read");
    sign(&client).expect("signed");
    assert_eq!(sign(&client), Err(Some(ErrorKind::LogFull)));
}

#[test]
fn a_boot_while_the_log_is_full_is_counted_only() {
    let (rig, client) = audited();
    (0..60).for_each(|_| sign(&client).expect("signed"));
    rig.connector.device().power_cycle();
    let client = rig.client_as(Credentials::default()).expect("a session");
    let log = client.get_log_entries().expect("log");
    assert_eq!((log.unlogged_boot_events, log.num_entries), (1, 62));
}

#[test]
fn an_unknown_command_in_the_log_hides_what_follows_it_from_the_crate() {
    let (rig, client) = audited();
    rig.connector.device().log_unknown_command(0x75, 9);
    sign(&client).expect("signed");
    let log = client.get_log_entries().expect("log");
    assert_eq!((log.num_entries, log.entries.len()), (4, 2), "defect D5 of yubihsm 0.42.1");
}

#[test]
fn what_is_fixed_cannot_be_switched_off() {
    let (_rig, client) = audited();
    let off = client.set_command_audit_option(Code::SignEddsa, AuditOption::Off);
    assert_eq!(off.expect_err("fixed").device_error(), Some(ErrorKind::InvalidData));
    assert_eq!(client.get_command_audit_option(Code::SignEddsa).expect("read"), AuditOption::Fix);
    assert_eq!(client.get_force_audit_option().expect("read"), AuditOption::On);
}
