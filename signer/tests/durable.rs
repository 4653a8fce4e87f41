//! What only the kernel sees of production's disk: that a sync is one, in which order it comes, which mode a file gets, and on whose
//! thread the work is done. Told by strace, since no test of the process itself could tell.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use rig::{CHAIN, Finished, Home, NodeSide, Signer, signing_key, skip_without_strace};
use rustix::process::{Pid, Signal, kill_process};

/// What is traced.
const CALLS: &str = "trace=openat,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

/// One call: who made it, its name, and the rest of the line.
struct Call {
    thread: u32,
    name: String,
    rest: String,
}

/// Runs a command to its good end, and gives its calls. Descriptors are shown with their paths.
fn traced(home: &Home, args: &[&str]) -> Vec<Call> {
    let trace = home.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", CALLS, "-o"]).arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_monosign")).args(args);
    Finished::of(strace.current_dir(home.path(".")).stdin(Stdio::null())).must_succeed();
    parse(&fs::read_to_string(trace).expect("a trace"))
}

/// The calls of a trace, each where it ended. strace splits a call in two where another thread's comes between: `write(5 <unfinished ...>`
/// and `<... write resumed>, 8) = 8`.
fn parse(trace: &str) -> Vec<Call> {
    const CUT: &str = "<unfinished ...>";
    const REST: &str = " resumed>";
    let mut begun = BTreeMap::<u32, String>::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.trim().split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let text = text.trim_start();
        if let Some(head) = text.strip_suffix(CUT) {
            begun.insert(thread, head.to_owned());
            continue;
        }
        let whole = match text.strip_prefix("<... ").and_then(|rest| rest.split_once(REST)) {
            Some((_, tail)) => begun.remove(&thread).expect("a call that began") + tail,
            None => text.to_owned(),
        };
        if let Some((name, rest)) = whole.split_once('(') {
            calls.push(Call { thread, name: name.into(), rest: rest.into() });
        }
    }
    calls
}

#[test]
fn a_call_that_strace_split_is_one_call_where_it_ended() {
    let trace = "7 openat(AT_FDCWD</d>, \"a\", O_RDWR|O_CREAT, 0600 <unfinished ...>\n8 fsync(4</d>) = 0\n7 <... openat resumed>) = 5</d/a>\n";
    let calls: Vec<_> = parse(trace).into_iter().map(|call| (call.thread, call.name, call.rest)).collect();
    let whole = "AT_FDCWD</d>, \"a\", O_RDWR|O_CREAT, 0600 ) = 5</d/a>";
    assert_eq!(calls, [(8, "fsync".into(), "4</d>) = 0".into()), (7, "openat".into(), whole.into())]);
}

/// The path of a descriptor, `5</path>`, at the beginning of a call.
fn descriptor(rest: &str) -> Option<&str> {
    Some(rest.split_once('<')?.1.split_once('>')?.0)
}

/// The texts in quotes.
fn quoted(rest: &str) -> Vec<&str> {
    rest.split('"').skip(1).step_by(2).collect()
}

/// A file as the calls leave it.
#[derive(Debug, Default)]
struct Seen {
    dirty: bool,
    /// Its name is not durable.
    unnamed: bool,
}

/// That each file which was made in `home` has mode 0600, was synced after its last write and before it got its name, and that the
/// directory was synced after that. Gives the names, for whoever wants to know that they were seen at all.
fn check(home: &Home, calls: &[Call]) -> BTreeSet<String> {
    let root = fs::canonicalize(home.path(".")).expect("a directory").display().to_string();
    let absolute = |path: &str| match path.strip_prefix("./").unwrap_or(path) {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{root}/{path}"),
    };
    let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut files = BTreeMap::<String, Seen>::new();
    for Call { name, rest, .. } in calls {
        match name.as_str() {
            "openat" if rest.contains("O_CREAT") && !rest.contains("= -1") => {
                let path = absolute(quoted(rest)[0]);
                if path.starts_with(&root) {
                    assert!(rest.contains("O_EXCL") && rest.contains(", 0600"), "{name}({rest}");
                    files.insert(path, Seen { unnamed: true, ..Seen::default() });
                }
            }
            "write" | "pwrite64" | "ftruncate" => {
                if let Some(seen) = descriptor(rest).and_then(|path| files.get_mut(path)) {
                    seen.dirty = true;
                }
            }
            "fsync" | "fdatasync" => {
                let Some(path) = descriptor(rest) else { continue };
                if let Some(seen) = files.get_mut(path) {
                    seen.dirty = false;
                }
                for (file, seen) in &mut files {
                    seen.unnamed &= file.rsplit_once('/').is_none_or(|(dir, _)| dir != path);
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" if !rest.contains("= -1") => {
                let names = quoted(rest);
                let (from, to) = (absolute(names[0]), absolute(names[1]));
                if let Some(seen) = files.remove(&from) {
                    assert!(!seen.dirty, "{} was named before it was synced", name_of(&to));
                    files.insert(to, Seen { unnamed: true, ..seen });
                }
            }
            "unlink" | "unlinkat" => {
                for path in quoted(rest) {
                    files.remove(&absolute(path));
                }
            }
            _ => {}
        }
    }
    for (path, seen) in &files {
        assert!(!seen.dirty, "{} was not synced", name_of(path));
        assert!(!seen.unnamed, "the directory of {} was not synced", name_of(path));
    }
    files.keys().map(|path| name_of(path)).collect()
}

#[test]
fn each_file_that_a_command_makes_is_synced_then_named_then_its_name_is_synced() {
    if skip_without_strace() {
        return;
    }
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    home.write("plain.key", BASE64.encode(signing_key(CHAIN).as_bytes()).as_bytes());
    home.write("state.json", br#"{"height":"7","round":0,"step":3}"#);
    let config = ["-c", "monosign.toml"];
    let record = format!("{CHAIN}.record");
    let jump = format!("{record}.allow-jump");
    let commands: [(&[&str], &[&str]); 8] = [
        (&["state", "init"], &[&record]),
        (&["state", "allow-jump", "--to-height", "500"], &[&jump]),
        (&["state", "import", "state.json"], &[]),
        (&["state", "export", "--output", "exported.json"], &["exported.json"]),
        (&["softsign", "import", "plain.key", "--plaintext", "-o", "imported.key"], &["imported.key"]),
        (&["softsign", "import", "plain.key", "-o", "sealed.key"], &["sealed.key", "sealed.key.identity"]),
        (&["softsign", "keygen", "-o", "made.key"], &["made.key", "made.key.identity"]),
        (&["threshold", "recipient", "-o", "share.identity"], &["share.identity"]),
    ];
    for (command, made) in commands {
        let takes_config = command[0] == "state";
        let args = [command, if takes_config { &config[..] } else { &[] }].concat();
        let seen = check(&home, &traced(&home, &args));
        for name in made {
            assert!(seen.contains(*name), "{args:?}: {name} is not among {seen:?}");
        }
    }
}

#[test]
fn a_record_is_raised_in_place_by_one_write_and_one_flush() {
    if skip_without_strace() {
        return;
    }
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let calls = traced(&home, &["state", "raise", "-c", "monosign.toml", "--to-height", "9"]);
    let of_record = |name: &str| {
        let is = |call: &&Call| {
            call.name == name && descriptor(&call.rest).is_some_and(|path| path.ends_with(".record"))
        };
        calls.iter().filter(is).count()
    };
    // One of each brings what was read to stable storage.
    assert_eq!((of_record("pwrite64"), of_record("fdatasync")), (2, 2));
    let moved = ["rename", "renameat", "renameat2", "unlink", "ftruncate"];
    assert!(!calls.iter().any(|call| moved.contains(&call.name.as_str())));
}

/// A signer's calls from its start to its stop, and the number of its first thread.
async fn life(home: &Home, node: &NodeSide, prevotes: i64) -> (Vec<Call>, u32) {
    let trace = home.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", CALLS, "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_monosign"));
    command.args(["start", "-c", "monosign.toml", "--log-level", "error"]).current_dir(home.path("."));
    let mut strace = Signer::start(command, home.path("log"));
    let mut talk = node.converse(CHAIN).await;
    for height in 1..=prevotes {
        talk.signs_prevote(height).await;
    }
    let children = format!("/proc/{0}/task/{0}/children", strace.id());
    let traced = fs::read_to_string(children).expect("a list of children");
    let traced: u32 = traced.trim().parse().expect("one child");
    let pid = Pid::from_raw(traced.cast_signed()).expect("a process");
    kill_process(pid, Signal::TERM).expect("signalled");
    assert_eq!(strace.ended().await.code(), Some(0));
    (parse(&fs::read_to_string(trace).expect("a trace")), traced)
}

#[tokio::test]
async fn a_start_and_a_stop_cost_one_flush_of_the_record_and_one_of_its_name() {
    if skip_without_strace() {
        return;
    }
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let (calls, _) = life(&home, &node, 3).await;
    let count = |name: &str| calls.iter().filter(|call| call.name == name).count();
    assert_eq!(
        (count("pwrite64"), count("fdatasync"), count("fsync")),
        (4, 4, 1),
        "3 signatures and a start"
    );
    // The socket that `check` asks on is taken away.
    let of_files = |name: &str| {
        calls.iter().filter(|call| call.name == name && !call.rest.contains("monosign.sock.status")).count()
    };
    for name in ["rename", "renameat", "renameat2", "unlink", "unlinkat", "ftruncate", "link", "linkat"] {
        assert_eq!(of_files(name), 0, "{name}");
    }
    assert!(check(&home, &calls).is_empty(), "no file is made");
}

#[tokio::test]
async fn disk_work_leaves_the_first_thread_alone_where_others_wait_and_only_there() {
    if skip_without_strace() {
        return;
    }
    for several in [false, true] {
        let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
        let home = Home::new();
        let (one, two) = (node.addr(), other.addr());
        let all = [(CHAIN, one.as_str()), ("other-1", two.as_str())];
        let chains = if several { &all[..] } else { &all[..1] };
        home.configure(chains);
        chains.iter().for_each(|(chain, _)| home.make_record(chain));
        let (calls, first) = life(&home, &node, 5).await;
        let flushes: Vec<_> = calls.iter().filter(|call| call.name == "fdatasync").collect();
        let inline = flushes.iter().filter(|call| call.thread == first).count();
        // What a start does is done before anybody waits.
        let at_start = chains.len();
        assert_eq!(flushes.len(), at_start + 5);
        assert_eq!(inline, if several { at_start } else { at_start + 5 }, "several chains: {several}");
    }
}
