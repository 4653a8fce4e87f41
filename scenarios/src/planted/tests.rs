use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::detect::Stage;
use super::tree::{Tree, try_patch};
use super::{Ended, Finding, Options, Patch, conclude, patch, repository};

fn planted() -> Vec<Patch> {
    patch::load(&repository().unwrap().join("scenarios/planted")).unwrap()
}

#[test]
fn every_mistake_can_be_planted_in_this_tree() {
    let root = repository().unwrap();
    let broken: Vec<_> = planted().iter().filter_map(|patch| try_patch(&root, patch).err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn mistakes_are_numbered_and_tried_six_at_a_time_until_all_were() {
    let all = planted();
    for (n, patch) in (1..).zip(&all) {
        assert!(patch.name.starts_with(&format!("{n:02}-")), "{} is number {n}", patch.name);
    }
    let turn = |n| Options { turn: Some(n), ..Options::default() }.choose(planted()).unwrap();
    let turns = all.len().div_ceil(6);
    assert!((0..turns).all(|n| (1..=6).contains(&turn(n).len())));
    let names: BTreeSet<_> = (7..7 + turns).flat_map(turn).map(|patch| patch.name).collect();
    assert_eq!(names.len(), all.len());
    assert_eq!(turn(turns + 1), turn(1));
}

#[test]
fn mistakes_are_named_with_or_without_their_number() {
    let choose = |name: &str| Options { only: vec![name.into()], ..Options::default() }.choose(planted());
    let first = &planted()[0];
    let (_, words) = first.name.split_once('-').unwrap();
    for name in [&first.name, words] {
        assert_eq!(choose(name).unwrap(), std::slice::from_ref(first));
    }
    assert!(choose("no-such-mistake").is_err());
}

/// A repository with one file and a patch for it.
struct Rig {
    dir: tempfile::TempDir,
}

const DIFF: &str = "diff --git a/code.rs b/code.rs\n--- a/code.rs\n+++ b/code.rs\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n";
const HEADER: &str = "# what: Counts in German.\n# runs: 7\n# seen-by: some-scenario, explore, vectors\n";

impl Rig {
    fn new() -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        rig.write("repository/code.rs", "one\ntwo\nthree\n");
        rig.write("repository/.gitignore", "target\n");
        rig.write("repository/target/big", "not copied");
        rig.write("planted/01-german.patch", &format!("{HEADER}{DIFF}"));
        let git = Command::new("git").args(["init", "--quiet"]).current_dir(rig.path("repository")).status();
        assert!(git.unwrap().success());
        rig
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn copy(&self) -> Tree {
        Tree::copy(&self.path("repository"), &self.path("copy")).unwrap()
    }

    fn patch(&self) -> Patch {
        patch::load(&self.path("planted")).unwrap().remove(0)
    }
}

#[test]
fn a_mistake_goes_in_and_out_again() {
    let rig = Rig::new();
    let tree = rig.copy();
    let applied = tree.apply(&rig.patch()).unwrap();
    assert_eq!(rig.read("copy/code.rs"), "one\nzwei\nthree\n");
    applied.revert().unwrap();
    assert_eq!(rig.read("copy/code.rs"), "one\ntwo\nthree\n");
    assert_eq!(rig.read("repository/code.rs"), "one\ntwo\nthree\n");
}

#[test]
fn a_mistake_that_no_longer_applies_is_named_and_leaves_the_copy_as_it_was() {
    let rig = Rig::new();
    rig.write("repository/code.rs", "un\ndeux\ntrois\n");
    let error = rig.copy().apply(&rig.patch()).err().unwrap().to_string();
    assert!(error.contains("`01-german` no longer applies"), "{error}");
    assert_eq!(rig.read("copy/code.rs"), "un\ndeux\ntrois\n");
}

#[test]
fn a_second_copy_writes_what_has_changed_and_nothing_else() {
    let rig = Rig::new();
    rig.copy().apply(&rig.patch()).unwrap();
    let written = |name: &str| fs::metadata(rig.path(name)).unwrap().modified().unwrap();
    let before = written("copy/.gitignore");
    rig.write("copy/left/over.rs", "");
    rig.write("repository/new.rs", "new\n");
    rig.copy();
    assert_eq!(rig.read("copy/code.rs"), "one\ntwo\nthree\n");
    assert_eq!(rig.read("copy/new.rs"), "new\n");
    assert_eq!(written("copy/.gitignore"), before);
    assert!(!rig.path("copy/left/over.rs").exists() && !rig.path("copy/target").exists());
}

#[test]
fn a_header_says_all_of_it_or_what_is_missing() {
    let rig = Rig::new();
    let patch = rig.patch();
    assert_eq!((patch.runs, patch.files.as_slice()), (7, [Path::new("code.rs").to_owned()].as_slice()));
    let scenario = Stage::Scenario("some-scenario".into());
    assert_eq!(patch.stages(), [scenario, Stage::Explore, Stage::Sweep, Stage::Library, Stage::Vectors]);
    for (header, missing) in [
        ("# runs: 7\n# seen-by: explore\n", "`what`"),
        ("# what: x\n# seen-by: explore\n", "`runs`"),
        ("# what: x\n# runs: 0\n# seen-by: explore\n", "`runs`"),
        ("# what: x\n# runs: 7\n", "`seen-by`"),
        ("# what: x\n# why: y\n", "no `why`"),
        ("It is wrong.\n", "no `# key: value`"),
    ] {
        rig.write("planted/01-german.patch", &format!("{header}{DIFF}"));
        let error = patch::load(&rig.path("planted")).unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn the_end_tells_all_caught_from_missed_and_from_broken() {
    let end = |finding: Finding| {
        let mut out = Vec::new();
        let ended = conclude(&[Rig::new().patch()], &[finding], &mut out);
        (ended.ok(), String::from_utf8(out).unwrap())
    };
    let (ended, out) = end(Finding::Caught { by: "sweep: start (OneSignature)".into(), runs: 3 });
    assert_eq!((ended, out.as_str()), (Some(Ended::AllCaught), "1 of 1 caught\n"));
    let (ended, out) = end(Finding::Missed { runs: 7 });
    assert_eq!(ended, Some(Ended::Missed));
    assert!(out.contains("01-german: Counts in German.\n"), "{out}");
    let (ended, _) = end(Finding::Late { by: "explore: x".into(), runs: 8, limit: 7 });
    assert_eq!(ended, Some(Ended::Missed));
    assert_eq!(end(Finding::Broken("no".into())).0, None);
}
