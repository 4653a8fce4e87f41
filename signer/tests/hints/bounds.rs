//! Heights that people type.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use super::*;

/// A node's RPC that answers as many questions as it is asked, as long as the test runs.
fn node(chain: &'static str, height: i64, catching_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    std::thread::Builder::new()
        .spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let asked = BufReader::new(stream.try_clone().expect("it twice")).lines();
                let asked: Vec<_> = asked.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                assert!(asked[0].starts_with("GET /status "), "{asked:?}");
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":-1,"result":{{"node_info":{{"network":"{chain}"}},"sync_info":{{"latest_block_height":"{height}","catching_up":{catching_up}}}}}}}"#
                );
                let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
            }
        })
        .expect("a thread");
    url
}

fn desk() -> Desk {
    let desk = Desk { home: Home::new(), config: "monosign.toml", cwd: "." };
    desk.home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    desk
}

/// A floor that cannot be meant is not made unasked, by whatever command.
#[test]
fn a_floor_beyond_reach_is_made_only_if_it_is_said_twice() {
    let desk = desk();
    for height in ["99999999999", "9223372036854775807"] {
        desk.monosign(&["state", "init", "--height", height])
            .must_fail(3, &["--yes", "never comes down", "years"]);
        assert!(!desk.home.record(CHAIN).exists());
    }
    let state = desk.home.write("far.json", tmkms_state(99_999_999_999).as_bytes());
    let state = state.to_string_lossy();
    desk.monosign(&["state", "import", &state]).must_fail(3, &["--yes"]);

    desk.monosign(&["state", "init", "--height", "1000"]).must_succeed();
    for (height, text) in
        [("99999999999", "No chain is that high"), ("101001", "The record is at height 1000")]
    {
        desk.monosign(&["state", "raise", "--to-height", height]).must_fail(3, &["--yes", text]);
        assert_eq!(desk.watermark(), (1000, 0, 0));
    }
    desk.monosign(&["state", "allow-jump", "--to-height", "99999999999"]).must_fail(3, &["--yes"]);
    assert!(!desk.home.path(format!("{CHAIN}.record.allow-jump")).exists());
    desk.monosign(&["state", "import", &state]).must_fail(3, &["--yes"]);
    assert_eq!(desk.watermark(), (1000, 0, 0));

    let raised = desk.monosign(&["state", "raise", "--to-height", "101000"]).must_succeed();
    assert!(
        raised.stdout.contains("nothing below height 101000 is signed, ever: 100000 heights are 6 days"),
        "{}",
        raised.stdout
    );
    desk.monosign(&["state", "raise", "--to-height", "5000000", "--yes"]).must_succeed();
    assert_eq!(desk.watermark(), (5_000_000, 0, 0));
}

#[test]
fn heights_are_compared_with_the_chain_if_a_node_is_named() {
    let rpc = node(CHAIN, 2_000_000, false);
    let desk = desk();
    // Below what may have been signed, and far above it.
    for (height, text) in
        [("50", "from 2000002 on"), ("2000001", "from 2000002 on"), ("2001002", "The chain is at 2000000")]
    {
        desk.monosign(&["state", "init", "--height", height, "--rpc", &rpc]).must_fail(3, &[text, "--yes"]);
    }
    let far = desk.home.write("far.json", tmkms_state(2_500_000).as_bytes());
    desk.monosign(&["state", "import", &far.to_string_lossy(), "--rpc", &rpc])
        .must_fail(3, &["The chain is at"]);
    desk.monosign(&["state", "init", "--height", "2000002", "--rpc", &rpc]).must_succeed();
    // Within the limit above the record, and not within the chain's reach.
    desk.monosign(&["state", "raise", "--to-height", "2050000", "--rpc", &rpc])
        .must_fail(3, &["The chain is at"]);
    desk.monosign(&["state", "allow-jump", "--to-height", "2200000", "--rpc", &rpc])
        .must_fail(3, &["The chain is at"]);
    desk.monosign(&["state", "raise", "--to-height", "2000500", "--rpc", &rpc]).must_succeed();
}

#[test]
fn a_new_record_begins_at_the_chains_height_if_a_node_is_named() {
    let desk = desk();
    desk.monosign(&["state", "init", "--rpc", &node(CHAIN, 2_000_000, false)]).must_succeed();
    assert_eq!(desk.watermark(), (2_000_000, 0, 0));
}

#[test]
fn a_node_that_does_not_know_the_height_is_not_believed() {
    let desk = desk();
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("its address"))
    };
    let nodes = [
        (node("other-1", 5, false), 3, "is a node of chain `other-1`"),
        (node(CHAIN, 5, true), 1, "catching up"),
        (gone, 1, "cannot connect"),
        ("ftp://localhost".to_owned(), 1, "it is not http://HOST:PORT"),
    ];
    for (url, code, text) in nodes {
        desk.monosign(&["state", "init", "--rpc", &url]).must_fail(code, &[text, "nothing was done"]);
        assert!(!desk.home.record(CHAIN).exists());
    }
}

#[test]
fn a_raise_lowers_neither_round_nor_step_at_the_same_height() {
    let desk = desk();
    desk.monosign(&["state", "init"]).must_succeed();
    let raise = |round: &str, step: &str| {
        desk.monosign(&["state", "raise", "--to-height", "30", "--round", round, "--step", step])
    };
    raise("2", "prevote").must_succeed();
    // A lower round with a higher step, and a lower step.
    for (round, step) in [("1", "precommit"), ("0", "precommit"), ("2", "proposal"), ("2", "prevote")] {
        raise(round, step).must_fail(3, &["only ever raised"]);
        assert_eq!(desk.watermark(), (30, 2, 2));
    }
    desk.monosign(&["state", "raise", "--to-height", "30", "--round", "2"])
        .must_fail(3, &["only ever raised"]);
    raise("2", "precommit").must_succeed();
    raise("3", "proposal").must_succeed();
    assert_eq!(desk.watermark(), (30, 3, 1));
}
