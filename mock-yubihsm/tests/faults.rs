//! Faults, and what the unmodified `yubihsm` crate makes of them: the defects that a wrapper has to cure.

mod rig;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use mock_yubihsm::faults::{Fault, Lasting, Once};
use rig::{KEY, Rig};
use yubihsm::Client;

fn signs(client: &Client) -> bool {
    client.sign_ed25519(KEY, b"x".as_slice()).is_ok()
}

fn signatures(rig: &Rig) -> u64 {
    rig.connector.device().signatures()
}

#[test]
fn a_lost_request_is_not_done_and_a_lost_answer_is() {
    let (rig, client) = Rig::with_key();
    rig.connector.set(Fault::Once(Once::LoseRequest));
    assert!(!signs(&client));
    assert_eq!(signatures(&rig), 0);
    // A session again: otherwise the next fault would meet its opening.
    let client = rig.client();
    rig.connector.set(Fault::Once(Once::LoseAnswer));
    assert!(!signs(&client));
    assert_eq!(signatures(&rig), 1);
    assert!(signs(&client));
}

#[test]
fn a_power_cycle_behind_the_connector_leaves_the_crate_with_a_dead_session() {
    let (rig, client) = Rig::with_key();
    rig.connector.set(Fault::Once(Once::PowerCycle));
    for _ in 0..3 {
        assert!(!signs(&client), "defect D2 of yubihsm 0.42.1");
    }
    assert!(signs(&rig.client()));
}

#[test]
fn an_answer_in_two_segments_is_garbled_by_the_crate() {
    let (rig, client) = Rig::with_key();
    rig.connector.set(Fault::Lasting(Lasting::Split, true));
    assert!(!signs(&client), "defect D3 of yubihsm 0.42.1");
    rig.connector.set(Fault::Lasting(Lasting::Split, false));
    assert!(signs(&rig.client()));
}

#[test]
fn a_truncated_answer_leaves_the_counters_out_of_step() {
    let (rig, client) = Rig::with_key();
    rig.connector.set(Fault::Once(Once::Truncate));
    assert!(!signs(&client));
    assert!(!signs(&client), "defect D4 of yubihsm 0.42.1");
}

#[test]
fn an_unplugged_device_forgets_its_sessions_and_keeps_its_keys() {
    let (rig, client) = Rig::with_key();
    rig.connector.set(Fault::Lasting(Lasting::Unplug, true));
    assert!(!signs(&client));
    rig.connector.set(Fault::Lasting(Lasting::Unplug, false));
    assert!(signs(&rig.client()));
}

#[test]
fn an_idle_connection_is_closed_and_what_is_written_into_it_is_lost() {
    let (rig, client) = Rig::with_key();
    assert!(signs(&client));
    rig.connector.set(Fault::CloseIdle);
    assert!(!signs(&client), "the crate does not look whether its connection was closed");
    assert_eq!(signatures(&rig), 1);
    // By itself, after a while.
    rig.connector.set(Fault::IdleClose(Some(Duration::from_millis(1))));
    let mut idle = TcpStream::connect(rig.connector.address()).expect("connected");
    idle.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    assert_eq!(idle.read(&mut [0]).expect("it is closed within 20 s"), 0);
}

#[test]
fn faults_come_over_http_too() {
    let (rig, client) = Rig::with_key();
    let post = |path: &str| {
        let mut stream = TcpStream::connect(rig.connector.address()).expect("connected");
        write!(stream, "POST {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    assert!(post("/mock/lose-request").starts_with("HTTP/1.1 200"));
    assert!(!signs(&client));
    let refused = post("/mock/explode");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("hint:"), "{refused}");
}

#[test]
fn it_answers_over_http_what_the_connector_of_yubico_answers() {
    let rig = Rig::new();
    let ask = |head: &str, body: &[u8]| {
        let mut stream = TcpStream::connect(rig.connector.address()).expect("connected");
        write!(stream, "{head} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).expect("sent");
        stream.write_all(body).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let api = |body: &[u8]| ask("POST /connector/api", body);
    assert!(api(&[6, 0, 0]).starts_with("HTTP/1.1 200 OK"));
    for wrong in [&[6, 0][..], &[0; 3140]] {
        assert!(api(wrong).starts_with("HTTP/1.1 400 Bad Request"));
    }
    assert!(ask("GET /connector/api", &[]).starts_with("HTTP/1.1 405 Method Not Allowed"));
    assert!(ask("GET /connector/status", &[]).contains("\r\n\r\nstatus=OK\nserial=*\n"));
    rig.connector.set(Fault::Lasting(Lasting::Unplug, true));
    let refused = api(&[6, 0, 0]);
    assert!(refused.starts_with("HTTP/1.1 500 Internal Server Error"), "{refused}");
    assert!(refused.ends_with("\r\n\r\nInternal Server Error\n"), "{refused}");
    assert!(ask("GET /connector/status", &[]).contains("status=NO_DEVICE\n"));
    rig.connector.set(Fault::Lasting(Lasting::Unplug, false));
    rig.connector.set(Fault::Lasting(Lasting::ListHosts, true));
    assert!(api(&[6, 0, 0]).starts_with("HTTP/1.1 403 Forbidden"));
}
