//! What to do about a record that cannot be used, told by what lies there.
//!
//! What is advised can be done as it is written, and leads to no lower floor: a file that may say what was signed is read before a
//! record without it is spoken of, in each place where it may lie.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use monosign_protocol::{Height, Round, Step};

use super::Failure;
use crate::backend::softsign::unlock::{KeyFileError, is_plain};
use crate::config::ChainConfig;
use crate::guard::Watermark;
use crate::import::state::{ForeignState, StateDialect, StateError};
pub(super) use crate::ops::access::shell;
use crate::ops::private_file::PrivateFileError;
use crate::record::{FILE_LEN, FormatError, Header, RecordError, decode_file};
use crate::start::StartError;
use crate::threshold::open::OpenError;

/// What lies at a path.
#[derive(Debug)]
pub(super) enum Lying {
    /// Nothing.
    Nothing,
    /// Nothing, nor the directory for it.
    NoDirectory,
    /// A link to what is not there.
    Dangling(PathBuf),
    /// A directory.
    Directory,
    /// A socket, a pipe or a device.
    Special,
    /// A file that this user may not read, or that the disk does not give.
    Unreadable,
    /// A record of ours.
    Record(Header, Watermark),
    /// The state of another signer.
    State(State),
    /// A record that a newer version of ours made.
    Newer,
    /// Neither, and why.
    Other(String),
}

/// How far another signer's state says that it has signed.
#[derive(Debug)]
pub(super) struct State {
    /// The place, as a floor.
    pub(super) floor: Watermark,
    /// Whether it has to be said whose it is.
    is_ambiguous: bool,
}

impl State {
    fn parse(content: &[u8]) -> Result<Self, StateError> {
        let (state, is_ambiguous) = match ForeignState::parse(content, None) {
            Err(StateError::Ambiguous) => (ForeignState::parse(content, Some(StateDialect::Horcrux))?, true),
            other => (other?, false),
        };
        Ok(Self { floor: floor_of(&state), is_ambiguous })
    }

    /// The option that says whose it is, where that has to be said.
    fn option(&self) -> &'static str {
        if self.is_ambiguous { " --dialect horcrux" } else { "" }
    }
}

fn floor_of(state: &ForeignState) -> Watermark {
    Watermark::floor(Height(state.height), Round(state.round), state.step)
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.floor.fmt(f)
    }
}

impl Lying {
    /// Looks, without a lock and without waiting for a writer of a pipe.
    pub(super) fn at(path: &Path) -> Self {
        let metadata = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::no_file(path),
            Err(_) => return Self::Unreadable,
            Ok(metadata) => metadata,
        };
        if metadata.is_dir() {
            return Self::Directory;
        }
        if !metadata.is_file() {
            return Self::Special;
        }
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_LEN as u64 + 1).read_to_end(&mut content));
        match read {
            Err(_) => Self::Unreadable,
            Ok(_) => Self::of(&content),
        }
    }

    fn no_file(path: &Path) -> Self {
        if path.symlink_metadata().is_ok() {
            return Self::Dangling(fs::read_link(path).unwrap_or_default());
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        if dir.is_some_and(|dir| !dir.exists()) { Self::NoDirectory } else { Self::Nothing }
    }

    fn of(content: &[u8]) -> Self {
        match decode_file(content) {
            Ok((header, newest)) => Self::Record(header, newest.watermark),
            Err(FormatError::NotARecord) if content.trim_ascii_start().starts_with(b"{") => {
                match State::parse(content) {
                    Ok(state) => Self::State(state),
                    Err(error) => Self::Other(first_line(&error.to_string())),
                }
            }
            Err(FormatError::UnknownFormat(_)) => Self::Newer,
            Err(FormatError::NotARecord) if content.trim_ascii().is_empty() => {
                Self::Other("it is empty".into())
            }
            Err(error) => Self::Other(error.to_string()),
        }
    }

    /// The place that is known to have been signed.
    fn place(&self) -> Option<(Height, Round, Option<Step>)> {
        match self {
            Self::Record(_, watermark) => Some(watermark.place()),
            Self::State(state) => Some(state.floor.place()),
            _ => None,
        }
    }
}

/// A command for this chain, as it is to be typed.
pub(super) fn command(chain: &ChainConfig, words: &str) -> String {
    let config = shell(&chain.origin.config);
    let chain = if chain.origin.only_chain { String::new() } else { format!(" --chain {}", chain.id) };
    // `start` and `check` are for all chains.
    let chain = if words.starts_with("state ") { chain.as_str() } else { "" };
    format!("monosign {words} -c {config}{chain}")
}

/// Where tmkms, started in this directory, would keep the chain's state, if there is anything and it is not where the record is.
pub(super) fn elsewhere(chain: &ChainConfig) -> Option<PathBuf> {
    let path = where_tmkms_would(chain)?;
    (path.symlink_metadata().is_ok() && !is_same(&path, &chain.record)).then_some(path)
}

fn where_tmkms_would(chain: &ChainConfig) -> Option<PathBuf> {
    let relative = chain.origin.relative_state.as_ref()?;
    if chain.key.threshold().is_some() {
        return None;
    }
    // Without the `.` in `./state.json`.
    Some(std::env::current_dir().ok()?.join(relative).components().collect())
}

/// Whether two paths are of one file, which need not be there.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    if let (Ok(a), Ok(b)) = (fs::canonicalize(a), fs::canonicalize(b)) {
        return a == b;
    }
    let whole = |path: &Path| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(dir).ok()?.join(path.file_name()?))
    };
    matches!((whole(a), whole(b)), (Some(a), Some(b)) if a == b)
}

/// The failure of a start, with what to do about the record as it lies there, or about the key.
pub(super) fn of_start(chain: &ChainConfig, error: StartError) -> Failure {
    match &error {
        StartError::Key(KeyFileError::File(PrivateFileError::Read {
            kind: io::ErrorKind::NotFound,
            path,
            reason,
        })) if path.symlink_metadata().is_err() => Failure::new(format!(
            "cannot read `{}`: {reason}\nhint: if the key is still to be imported, `monosign softsign import KEYFILE --output {}`; \
                 otherwise correct `path`",
            path.display(),
            shell(path)
        )),
        StartError::Record { source } | StartError::Cosigner(OpenError::Record { source }) => {
            of_record(chain, source)
        }
        _ => error.into(),
    }
}

/// The failure of whatever was done with the chain's record, with what to do about it as it lies there.
pub(super) fn of_record(chain: &ChainConfig, error: &RecordError) -> Failure {
    let lying = Lying::at(&chain.record);
    let (more, hint) = match error {
        RecordError::Missing { .. } => missing(chain, &lying),
        RecordError::Exists { .. } | RecordError::Damaged { in_use: false, .. } => {
            (String::new(), in_the_way(chain, &lying))
        }
        RecordError::Locked { by: None, .. } => {
            let path = shell(&chain.record);
            (String::new(), Some(format!("stop the other signer first; `fuser {path}` names its process")))
        }
        RecordError::Io { source, .. } => (String::new(), of_disk(chain, &lying, source)),
        _ => (String::new(), None),
    };
    let hint = hint.unwrap_or_else(|| error.hint().into_owned());
    let text = format!("{error}{more}\nhint: {hint}");
    if matches!(error, RecordError::Io { .. }) { Failure::new(text) } else { Failure::for_safety(text) }
}

/// Nothing is there: what else is known, and what to do.
fn missing(chain: &ChainConfig, lying: &Lying) -> (String, Option<String>) {
    if let Lying::Dangling(target) = lying {
        let (link, target) = (shell(&chain.record), target.display());
        let more = format!(": it is a link to `{target}`, which is not there");
        return (
            more,
            Some(format!(
                "mount or restore `{target}`; if it is lost for good, `rm {link}` and go on as without a record"
            )),
        );
    }
    if let Some(path) = elsewhere(chain) {
        let there = Lying::at(&path);
        return (format!("; {}", lies_at(&path, &there)), Some(elsewhere_hint(chain, &path, &there)));
    }
    let import = command(chain, "state import");
    let origin = &chain.origin;
    match where_tmkms_would(chain) {
        Some(path) if origin.is_tmkms => {
            let name = path.file_name().unwrap_or_default().display();
            let more = format!(", and no state of tmkms at `{}`", path.display());
            let hint = format!(
                "tmkms keeps `{name}` in the directory that it was started in: WorkingDirectory= of its unit, `/` without one. \
                 Stop tmkms for good, find the file, then `{import} FILE`. Without it this key must not sign"
            );
            (more, Some(hint))
        }
        None if origin.is_tmkms && chain.key.threshold().is_none() => {
            let hint = format!(
                "tmkms keeps its state there. Stop tmkms for good, find where the file went, then `{import} FILE`. Without it \
                 this key must not sign"
            );
            (String::new(), Some(hint))
        }
        _ => (String::new(), Some(never_made(chain))),
    }
}

fn never_made(chain: &ChainConfig) -> String {
    let (init, import) = (command(chain, "state init"), command(chain, "state import"));
    if chain.key.threshold().is_some() {
        return format!(
            "a lost record: `{init} --height H`, with a height above all that the group has signed (`monosign threshold status` \
             on another cosigner); a new group, or a new share: the height that `split` or the ceremony printed"
        );
    }
    format!(
        "a key that has signed, with whatever signer: `{import} FILE` with its state; a record that was moved: move it back, never \
         an older copy; a key that has never signed: `{init}`"
    )
}

/// What lies where tmkms would have put it.
fn lies_at(path: &Path, there: &Lying) -> String {
    let path = path.display();
    match there {
        Lying::State(state) => {
            format!(
                "where tmkms keeps it, in the directory it is started in, is `{path}`, last signed h/r/s {state}"
            )
        }
        Lying::Record(_, watermark) => {
            format!("in this directory is the record `{path}`, last signed h/r/s {watermark}")
        }
        Lying::Other(why) => format!("where tmkms keeps it is `{path}`, which is no state: {why}"),
        _ => format!("where tmkms keeps it is `{path}`, which cannot be read"),
    }
}

fn elsewhere_hint(chain: &ChainConfig, path: &Path, there: &Lying) -> String {
    match there {
        Lying::State(state) => {
            let import = format!("{} {}{}", command(chain, "state import"), shell(path), state.option());
            format!("stop tmkms for good, then `{import}`")
        }
        Lying::Record(..) => {
            format!(
                "relative paths are relative to the configuration file: if it is this one's, `state_file = \"{}\"` names it",
                path.display()
            )
        }
        _ => unknown(chain, path),
    }
}

/// Something that is no usable record lies where the record has to be, or a record where one was to be made.
fn in_the_way(chain: &ChainConfig, lying: &Lying) -> Option<String> {
    let path = &chain.record;
    let hint = match lying {
        Lying::Record(header, watermark) if header.chain_id == chain.id => {
            format!(
                "it is a record, last signed h/r/s {watermark}: `{}` goes on from there, `{} --to-height H` raises it",
                command(chain, "start"),
                command(chain, "state raise")
            )
        }
        Lying::Record(header, _) => {
            format!(
                "it is the record of chain `{}`: give chain `{}` a `state_file` of its own",
                header.chain_id, chain.id
            )
        }
        Lying::State(state) => {
            format!(
                "it is the state of another signer, last signed h/r/s {state}: stop that one for good, then `{}{}`",
                command(chain, "state import"),
                state.option()
            )
        }
        Lying::Newer => "use the version of monosign that made it".into(),
        Lying::Other(_) if is_held(path) => {
            "a signer runs on it and may just have written: look again, and leave the file alone".into()
        }
        Lying::Other(_) => unknown(chain, path),
        Lying::Dangling(target) => {
            let (target, link) = (target.display(), shell(path));
            format!(
                "it is a link to `{target}`, which is not there: mount or restore that; if it is lost for good, `rm {link}`"
            )
        }
        Lying::Directory => {
            format!(
                "it is a directory: name a file, for instance `state_file = \"{}/{}.record\"`",
                path.display(),
                chain.id
            )
        }
        Lying::Special => "it is no file: name one in `state_file`".into(),
        Lying::Unreadable => format!("let the user of the signer read and write it: `ls -l {}`", shell(path)),
        Lying::Nothing | Lying::NoDirectory => return None,
    };
    Some(hint)
}

/// What was signed last is not known: the one way on is a floor above all of it.
fn unknown(chain: &ChainConfig, path: &Path) -> String {
    let (from, to) = (shell(path), shell(&path.with_added_extension("unreadable")));
    let init = command(chain, "state init");
    format!(
        "if it is another file, correct `state_file`. Otherwise what was signed last is not known: `mv {from} {to}`, then \
         `{init} --height H` with a height that this validator has certainly not signed"
    )
}

fn of_disk(chain: &ChainConfig, lying: &Lying, error: &io::Error) -> Option<String> {
    let path = &chain.record;
    match (lying, error.kind()) {
        (Lying::NoDirectory, _) => {
            let dir = path.parent().unwrap_or(path);
            Some(format!("`mkdir -p {}`, or correct `state_file`", shell(dir)))
        }
        (Lying::Directory | Lying::Special | Lying::Dangling(_), _) => in_the_way(chain, lying),
        (_, io::ErrorKind::ReadOnlyFilesystem) => Some(
            "each signature is recorded there first: make the file system writable; never go on from a copy elsewhere".into(),
        ),
        (_, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Some("make room on its file system, then start again".into())
        }
        (_, io::ErrorKind::PermissionDenied) => Some(format!(
            "the user of the signer needs to read and write it and its directory: `ls -ld {} {}`",
            shell(path.parent().unwrap_or(path)),
            shell(path)
        )),
        _ => None,
    }
}

/// Whether a signer runs on a record. Nothing waits for this: a lock that is asked for meanwhile is asked for again.
fn is_held(path: &Path) -> bool {
    let locked = File::open(path).map(|file| file.try_lock_shared());
    matches!(locked, Ok(Err(fs::TryLockError::WouldBlock)))
}

/// Why a record is not made from nothing: something that may say what was signed lies at one of its places.
pub(super) fn something_to_import(chain: &ChainConfig, has_floor: bool) -> Option<Failure> {
    if let Lying::State(state) = Lying::at(&chain.record) {
        let import = command(chain, "state import") + state.option();
        return Some(Failure::for_safety(format!(
            "`{}` is the state of another signer, last signed h/r/s {state}\nhint: `{import}` takes it over",
            chain.record.display()
        )));
    }
    let path = elsewhere(chain)?;
    let there = Lying::at(&path);
    if has_floor && there.place().is_none() {
        return None;
    }
    let hint = elsewhere_hint(chain, &path, &there);
    Some(Failure::for_safety(format!("no record is made: {}\nhint: {hint}", lies_at(&path, &there))))
}

/// What there is to say of a plain key that is allowed, or of leave that is of no use.
pub(super) fn plaintext(chain: &ChainConfig) -> Option<String> {
    let source = chain.key.softsign().filter(|source| source.allow_plaintext)?;
    let path = source.path.display();
    match is_plain(&source.path)? {
        true => Some(format!(
            "the key is not encrypted, and whoever reads {path} can sign: `monosign softsign import {0} --output {0}.age` encrypts it; \
             then `path = \"{path}.age\"`",
            shell(&source.path)
        )),
        false => Some(format!(
            "allow_plaintext_key is set, and {path} is encrypted: the setting can go, and should: it would let a plain file in"
        )),
    }
}

/// Why a record is not signed from: the state that tmkms keeps in this directory is above it.
pub(super) fn something_above(chain: &ChainConfig) -> Option<Failure> {
    let Lying::Record(header, watermark) = Lying::at(&chain.record) else { return None };
    rival(chain, &chain.record, &watermark, Some(&header))
}

/// Another place of the chain's state that says more than `floor`, which was read from `file`.
pub(super) fn rival(
    chain: &ChainConfig,
    file: &Path,
    floor: &Watermark,
    header: Option<&Header>,
) -> Option<Failure> {
    let places = [Some(chain.record.clone()), elsewhere(chain)];
    for path in places.into_iter().flatten().filter(|path| !is_same(path, file)) {
        let there = Lying::at(&path);
        let (is_state, option) = match &there {
            Lying::State(state) => (true, state.option()),
            _ => (false, ""),
        };
        let is_ours = match (&there, header) {
            (Lying::Record(other, _), Some(header)) => other == header,
            (Lying::Record(other, _), None) => other.chain_id == chain.id,
            _ => is_state,
        };
        // A record at its own place only ever rises, whatever is imported.
        if !is_ours || (!is_state && is_same(&path, &chain.record)) || there.place() <= Some(floor.place()) {
            continue;
        }
        let (import, there_path) = (command(chain, "state import"), shell(&path));
        let says = Watermark::floor(
            there.place().map_or(Height(0), |place| place.0),
            there.place().map_or(Round(0), |place| place.1),
            there.place().and_then(|place| place.2),
        );
        let hint = if is_state {
            format!(
                "if it is this key's, stop whoever writes it for good, then `{import} {there_path}{option}`; if it is another's, move it away"
            )
        } else {
            format!(
                "if that one was signed from, `state_file = \"{}\"` names it; otherwise move it away",
                path.display()
            )
        };
        return Some(Failure::for_safety(format!(
            "`{}` is at {floor}, and `{}` says {says}, which is above\nhint: {hint}",
            file.display(),
            path.display()
        )));
    }
    None
}

/// The file that is imported if none is named.
pub(super) fn to_import(chain: &ChainConfig) -> Result<PathBuf, Failure> {
    let here = Lying::at(&chain.record);
    let Some(path) = elsewhere(chain) else {
        return match here {
            Lying::Nothing | Lying::NoDirectory | Lying::Dangling(_) => {
                Err(of_record(chain, &RecordError::Missing { path: chain.record.clone() }))
            }
            _ => Ok(chain.record.clone()),
        };
    };
    let there = Lying::at(&path);
    match (&here, &there) {
        (Lying::Nothing | Lying::NoDirectory, Lying::State(_)) => Ok(path),
        (Lying::Nothing | Lying::NoDirectory, _) => {
            Err(of_record(chain, &RecordError::Missing { path: chain.record.clone() }))
        }
        // What it says is compared when it is read.
        (Lying::Record(..), _) => Ok(chain.record.clone()),
        (here_is, there_is) => {
            let import = command(chain, "state import");
            let says = |lying: &Lying| match lying {
                Lying::State(state) => format!("last signed h/r/s {state}"),
                Lying::Record(_, watermark) => format!("a record, last signed h/r/s {watermark}"),
                Lying::Other(why) => format!("no state: {why}"),
                _ => "cannot be read".to_owned(),
            };
            // The lower one would be refused, so it is not offered.
            let higher = if here_is.place() >= there_is.place() {
                (&chain.record, here_is)
            } else {
                (&path, there_is)
            };
            let option = match higher.1 {
                Lying::State(state) => state.option(),
                _ => "",
            };
            Err(Failure::for_safety(format!(
                "there are two states: `{}` beside the configuration ({}), and `{}` where tmkms keeps it if it is started in this \
                 directory ({})\nhint: stop tmkms for good and name the one that it wrote last: `{import} {}{option}` is the higher \
                 one; a file that is another key's has to be moved away",
                chain.record.display(),
                says(here_is),
                path.display(),
                says(there_is),
                shell(higher.0)
            )))
        }
    }
}

/// A file that was named, and is no state that can be taken over.
pub(super) fn of_state(chain: &ChainConfig, file: &Path, error: &StateError) -> Failure {
    let path = file.display();
    match error {
        StateError::Ambiguous | StateError::OtherDialect { .. } | StateError::UnknownDialect { .. } => {
            Failure::new(format!("`{path}`: {error}"))
        }
        _ if matches!(Lying::at(file), Lying::Newer) => Failure::for_safety(format!(
            "`{path}` is a record of a newer version of monosign\nhint: use the version that made it"
        )),
        // What lies in the place of the record has a way on of its own.
        _ if !matches!(Lying::at(&chain.record), Lying::Nothing | Lying::NoDirectory) => {
            Failure::new(format!("`{path}`: {error}"))
        }
        _ => Failure::new(format!(
            "`{path}`: {}\nhint: take it from the other signer again, unchanged; if that is lost too, `{} --height H` with a \
             height that this validator has certainly not signed",
            first_line(&error.to_string()),
            command(chain, "state init")
        )),
    }
}

/// The file is none of another signer, and it lies where the record has to be.
pub(super) fn not_a_state(chain: &ChainConfig, file: &Path, why: &str) -> Option<Failure> {
    let lying = Lying::at(file);
    if !is_same(file, &chain.record) || !matches!(lying, Lying::Other(_)) {
        return None;
    }
    let hint = in_the_way(chain, &lying)?;
    Some(Failure::for_safety(format!("`{}`: {}\nhint: {hint}", file.display(), first_line(why))))
}

/// Without what is advised.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
