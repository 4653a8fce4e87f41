//! The timeline: what happens to whom, when and for how long.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::place::{Misread, Place, Step, read};
use super::{Span, SpanRange};

/// One line of the timeline. In a file, `at`, `every` and `until` stand in one table with `do` and what that takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// When.
    pub when: When,
    /// What.
    pub act: Do,
}

/// When an act happens: once, or again and again. Times are drawn from the seed where they are ranges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct When {
    /// The first time, since the start.
    pub at: SpanRange,
    /// The pause until it happens again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<SpanRange>,
    /// When it no longer happens again; none means the end of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
}

/// What is done. A host is named by its name; peers are the validators of the chain that are not ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(tag = "do")]
pub enum Do {
    /// A process is killed: its sockets close, what it wrote stays in the page cache. It is started again after `for`.
    Kill {
        /// A signer or a node.
        host: String,
        /// How long it is down; none means until a `start`.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        down: Option<SpanRange>,
    },
    /// A host loses power: no socket says goodbye, what was not synced is lost, kept or torn.
    PowerCut {
        /// A signer or a node.
        host: String,
        /// How long it is down; none means until a `start`.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        down: Option<SpanRange>,
    },
    /// A host is started, if it is down.
    Start {
        /// A signer or a node.
        host: String,
    },
    /// A signer is stopped in good order, as by SIGTERM, and started again after `for`.
    Stop {
        /// A signer.
        host: String,
        /// How long it is down; none means until a `start`.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        down: Option<SpanRange>,
    },
    /// A signer's process dies at its next input or output operation but `after` of them, before it or after it, by a power cut.
    CrashPoint {
        /// A signer.
        host: String,
        /// How many half operations go well before.
        after: u64,
        /// Whether only the process is killed, and what it wrote stays in the page cache.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kill: bool,
        /// How long it is down.
        #[serde(rename = "for")]
        down: SpanRange,
    },
    /// A second process is started on a signer's host, with the same files. It must refuse.
    SecondProcess {
        /// A signer.
        host: String,
    },
    /// A node dies right after it has sent a request, before the answer comes.
    CrashAwaiting {
        /// A node.
        host: String,
        /// How long it is down.
        #[serde(rename = "for")]
        down: SpanRange,
    },
    /// A node dies right after an answer came, before anything is done with it.
    CrashAnswered {
        /// A node.
        host: String,
        /// How long it is down.
        #[serde(rename = "for")]
        down: SpanRange,
    },
    /// Segments between two hosts vanish, and connections stay half open.
    Partition {
        /// The two hosts.
        between: [String; 2],
        /// Whether only what the first sends to the second vanishes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        one_way: bool,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// Segments between two hosts wait, and come all at once at the end.
    Hold {
        /// The two hosts.
        between: [String; 2],
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// Segments between two hosts take so long.
    Latency {
        /// The two hosts.
        between: [String; 2],
        /// One way.
        latency: Span,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// The connection between two hosts breaks in the middle of the next request, whose end never arrives.
    DropInRequest {
        /// A signer and a node.
        between: [String; 2],
    },
    /// The connection between two hosts breaks in the middle of the next answer.
    DropInAnswer {
        /// A signer and a node.
        between: [String; 2],
    },
    /// A process neither reads nor writes nor closes, as by SIGSTOP.
    Freeze {
        /// A signer or a node.
        host: String,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// A node is cut from its peers, so that rounds go on without it.
    Isolate {
        /// A node.
        host: String,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// Some peers are away, so that proposals are missed, and with a third of them the chain stands still.
    PeersAway {
        /// How many.
        peers: usize,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// Gossip among all nodes is slow and loses much, so that rounds change with locks and proofs of lock.
    RoughGossip {
        /// How long gossip takes.
        latency: SpanRange,
        /// How much is lost, in percent.
        loss_percent: u8,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// A node asks, beside what it asks honestly, for each of the double signs there are.
    Equivocate {
        /// A node.
        host: String,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// A cosigner does not do as it should, by malice or by a defect. It is one of those that a group may not bear.
    Cheat {
        /// A cosigner.
        host: String,
        /// How.
        how: Cheat,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// The hosts of cosigners make new shares of the key together. Their operators give the command again until it has ended on all of
    /// them.
    Ceremony {
        /// How many sign together afterwards.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<u16>,
        /// The cosigners that are to be, in the order of their numbers, some of which may be hosts that are `off`. None means new shares
        /// for those that there are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<String>,
        /// The cosigners that lose their shares.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leaving: Vec<String>,
    },
    /// The host of a cosigner is lost with its disk. A new one takes its place, and its share is made again by the others, whose cosigners
    /// run meanwhile.
    Repair {
        /// The cosigner.
        host: String,
    },
    /// The hosts make a key that never existed, for another chain.
    Dkg {
        /// How many sign together with it.
        threshold: u16,
        /// The hosts, in the order of their numbers.
        members: Vec<String>,
    },
    /// A host's wall clock jumps.
    ClockJump {
        /// A signer or a node.
        host: String,
        /// How far, in milliseconds; negative is back.
        by_ms: i64,
    },
    /// A signer's disk fails.
    DiskFault {
        /// A signer.
        host: String,
        /// How.
        fault: DiskFault,
        /// How long; none means until it is repaired by a later act, or never.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        lasts: Option<SpanRange>,
    },
    /// A signer's key device fails.
    DeviceFault {
        /// A signer.
        host: String,
        /// Which one of its devices; none means all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// How.
        fault: DeviceFault,
        /// How long.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// A picture of a signer's disk is taken, to be restored later.
    Snapshot {
        /// A signer.
        host: String,
    },
    /// A signer is stopped, its disk set back to the last picture, and started.
    RestoreDisk {
        /// A signer.
        host: String,
    },
    /// A signer's record is removed while it is down, or restored empty; it is started again.
    LoseRecord {
        /// A signer.
        host: String,
    },
    /// The record is moved or replaced under a running signer, as by `mv`, rsync or a switched link. At the end what was moved is put back.
    DisplaceRecord {
        /// A signer.
        host: String,
        /// How.
        how: Displacement,
        /// How long; it takes a restart of the signer as well until it signs again.
        #[serde(rename = "for")]
        lasts: SpanRange,
    },
    /// A signer's key and record are copied to another host, which is started: the duplicated state.
    Clone {
        /// The signer that is copied.
        from: String,
        /// The signer that gets the copy.
        to: String,
    },
    /// A node is stopped and started as another release, with the chain.
    Upgrade {
        /// A node.
        host: String,
        /// The release.
        #[schemars(schema_with = "super::schema::dialect")]
        to: String,
    },
    /// A signer's configuration is read again, as by SIGHUP, with these keys changed.
    Reload {
        /// A signer.
        host: String,
        /// What stands in its `[[chain]]` table from now on.
        #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
        #[schemars(schema_with = "super::schema::table")]
        chain: toml::Table,
        /// What stands in its `[[validator]]` tables from now on.
        #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
        #[schemars(schema_with = "super::schema::table")]
        link: toml::Table,
        /// The nodes it serves from now on; none means as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validators: Option<Vec<String>>,
    },
}

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// Reads and writes fail with EIO.
    Eio,
    /// Writes fail with EIO; reads and syncs do not.
    WriteError,
    /// A sync fails with EIO, once, and what it should have written is lost though later reads still show it.
    SyncError,
    /// Writes that need room fail with ENOSPC.
    NoSpace,
    /// The file system has been mounted read-only.
    ReadOnly,
    /// Operations do not return.
    Hang,
    /// Operations take half a second.
    Slow,
}

/// What is done to a record under a running signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Displacement {
    /// It gets another name.
    Moved,
    /// A copy of it takes its name.
    ReplacedByCopy,
    /// The record of the last picture takes its name, which is older than what was signed.
    ReplacedByPicture,
}

/// How a key device fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceFault {
    /// It answers with an error.
    Error,
    /// It signs, and the answer is lost.
    AnswerLost,
    /// It does not answer.
    Hang,
    /// It takes a second and a half longer for a signature, or as long as its `slow_by` says.
    Slow,
    /// It gives a signature that does not verify.
    WrongSignature,
    /// It is not there.
    Absent,
    /// It loses its power for a moment, at the next signature: before it, or after it was made. What passes requests on to it stays up.
    PowerCycle,
    /// Its answers lack their last byte.
    Truncated,
    /// Somebody else fills its log, and reads it at the end unless a signer watches it, whose it is then to read. Without force audit
    /// entries are lost that the signer has not seen, which is an alarm.
    LogFull,
    /// Somebody else holds all its sessions.
    SessionsTaken,
    /// Others have it do so much that a request waits as long as its `slow_by` says before its turn comes.
    Busy,
    /// The key is deleted, and put back at the end.
    KeyDeleted,
    /// Somebody else has it sign something with our key.
    ForeignSignature,
    /// A copy of the signer, with its authentication key, has it sign something as long as what was signed last, and the connection was closed meanwhile,
    /// as connectors do with one that is idle: what the signer asks next is lost.
    CopySigns,
    /// Its log does not tell of signatures any more.
    SignaturesNotLogged,
    /// Somebody else puts our key there under another number, and has it sign something.
    CopiedKeySigns,
}

/// How a cosigner cheats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cheat {
    /// As a signer, it gives shares that are none.
    BadShare,
    /// As a signer, it offers each commitment a second time in the place of a fresh one.
    ReplayedCommitment,
    /// As a coordinator, it asks for a share with nonces that were used already.
    NonceTwice,
    /// As a coordinator without a guard of its own, it asks every set of the others for different blocks, for messages of another
    /// chain and for bytes that are none, and adds its own share.
    OtherBlocks,
    /// As a coordinator, it pings without end.
    PingFlood,
    /// As a coordinator, it asks for shares of messages as long as a frame may be, one after the other.
    LongFrames,
    /// As a coordinator, it asks for shares far ahead of the chain, so that the others sign nothing before the chain is there.
    AheadOfTheChain,
    /// It says that it was started more often than can be counted.
    LaterLives,
}

impl Cheat {
    /// Whether it is not the cosigner's own process that does so, but another with its share.
    pub fn is_another_program(self) -> bool {
        match self {
            Self::BadShare | Self::ReplayedCommitment | Self::NonceTwice => false,
            Self::OtherBlocks
            | Self::PingFlood
            | Self::LongFrames
            | Self::AheadOfTheChain
            | Self::LaterLives => true,
        }
    }
}

impl Act {
    /// Reads a line of the timeline. serde's own flattening would lose where in the table a mistake is, and let unknown keys pass.
    pub(super) fn from_table(mut table: toml::Table) -> Result<Self, Misread> {
        let mut when = toml::Table::new();
        for key in ["at", "every", "until"] {
            when.extend(table.remove(key).map(|value| (key.to_owned(), value)));
        }
        let name = match table.remove("do") {
            Some(toml::Value::String(name)) => name,
            Some(_) => return Err(Misread::at([Step::from("do")], "the name of an act is a text")),
            None => return Err(Misread::at([], "missing field `do`")),
        };
        let act = toml::Table::from_iter([(name, table.into())]);
        Ok(Self { when: read(when.into())?, act: read(act.into()).map_err(in_act)? })
    }

    /// The line as a table of a file.
    fn to_table(&self) -> Result<toml::Table, toml::ser::Error> {
        let mut table = toml::Table::try_from(&self.when)?;
        let (name, fields) = self.act.to_fields()?;
        table.insert("do".into(), name.into());
        table.extend(fields);
        Ok(table)
    }
}

/// The act's name was a key for serde, and is a value in the file.
fn in_act(misread: Misread) -> Misread {
    match misread.what.strip_prefix("unknown variant") {
        Some(rest) if misread.place == Place::default() => {
            Misread::at([Step::from("do")], format!("unknown act{rest}"))
        }
        _ => misread,
    }
}

impl Serialize for Act {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_table().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_table(toml::Table::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Do {
    /// The name of the act, as files have it.
    pub fn name(&self) -> String {
        self.to_fields().expect("a value that a file holds can be written").0
    }

    /// The name of the act, and what it takes.
    fn to_fields(&self) -> Result<(String, toml::Table), toml::ser::Error> {
        let toml::Value::Table(named) = toml::Value::try_from(self)? else {
            return Err(toml::ser::Error::custom("an act is a table"));
        };
        match named.into_iter().next() {
            Some((name, toml::Value::Table(fields))) => Ok((name, fields)),
            _ => Err(toml::ser::Error::custom("an act has a name and takes something")),
        }
    }
}
