//! From one set of shares to the next, in the order that leaves no two quorums; see the [ceremonies](super).

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use monosign_protocol::{Height, Step};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::journal::{Journal, Stage, Taken};
use super::meeting::{Meeting, Round, all, greet};
use super::plan::{Act, Key, Plan, Role};
use super::shares::{Host, Made};
use super::{CeremonyError, Ended, Workshop, if_there, proof, seal_identity};
use crate::guard::{JumpLimit, Watermark};
use crate::ops::durable_file::{self, DurableFileError};
use crate::record::{Header, Opener, Record, RecordError};
use crate::threshold::group::Group;
use crate::threshold::incarnation::Lives;
use crate::threshold::message::Place;
use crate::threshold::share::{Share, ShareOf};

/// How often it is looked whether the cosigner has been stopped.
const LOOK: Duration = Duration::from_millis(250);

/// Which run of the ceremony a host has come how far in.
type Begun = Option<(String, Stage)>;

/// Makes new shares and goes over to them, or goes on where it was interrupted. Every host of the plan runs this at the same
/// time; those that `meeting` leaves out may be away for what comes after the new shares are made.
///
/// # Errors
/// [`CeremonyError`]. It is safe to run it again.
pub async fn succeed(
    shop: &Workshop<'_>,
    plan: &Plan,
    meeting: &mut dyn Meeting,
) -> Result<Ended, CeremonyError> {
    let me = meeting.me();
    let role = plan.must_have(&me)?;
    let journal = Journal::load(shop.disk, &shop.files.journal).await?;
    let mut host = Successor { shop, plan, me, role, journal, record: None };
    host.forget_others()?;
    let heard = greet(meeting, plan, (host.begun(), host.is_settled().await?)).await?;
    host.must_be_told(&heard)?;
    let heard = heard.into_iter().map(|(key, (begun, _))| (key, begun)).collect();
    let proven = match taken_up(plan, &heard)? {
        Some(Stage::Retired | Stage::Active) => None,
        // What nobody relies on yet is nothing to hurry for.
        Some(Stage::Staged) => host.must_be_all(meeting).map(|()| None)?,
        None => Some(host.begin(meeting).await?),
    };
    let group = host.staged_group().await?;
    host.check_staged(&group).await?;

    let mut floor = None;
    if let Some(before) = plan.before() {
        let guard = host.retire().await?;
        let heard = all(meeting, plan, Round::Retired, guard).await?;
        let guards = heard.into_iter().filter_map(|(key, guard)| Some((key, guard?))).collect();
        floor = Some(host.floor(before, &guards)?);
    }
    host.activate(floor).await?;
    (shop.tell)("the new share is in its place; waiting for the others");
    all(meeting, plan, Round::Active, ()).await?;
    host.end().await?;
    Ok(Ended { group: Rc::new(group), proven, floor })
}

/// How far the furthest has come, if all have the new shares of one run. If some rely on them already and others do not have
/// them, nobody goes on.
fn taken_up(plan: &Plan, heard: &BTreeMap<Key, Begun>) -> Result<Option<Stage>, CeremonyError> {
    let begun = || heard.iter().map(|(key, begun)| (key, begun.as_ref()));
    let furthest = begun().filter_map(|(_, begun)| begun).max_by_key(|(_, stage)| *stage);
    let Some((run, stage)) = furthest else { return Ok(None) };
    let behind = begun().find(|(_, begun)| begun.is_none_or(|(other, _)| other != run));
    match behind {
        None => Ok(Some(*stage)),
        Some(_) if *stage == Stage::Staged => Ok(None),
        Some((key, _)) => Err(CeremonyError::Behind { who: plan.name(key), key: HEXLOWER.encode(key) }),
    }
}

struct Successor<'a> {
    shop: &'a Workshop<'a>,
    plan: &'a Plan,
    me: Key,
    role: Role,
    journal: Journal,
    record: Option<Record>,
}

impl Successor<'_> {
    /// What this host remembers must be of this plan, or of none that matters any more.
    fn forget_others(&mut self) -> Result<(), CeremonyError> {
        let digest = HEXLOWER.encode(&self.plan.digest());
        let Some(taken) = self.journal.ceremony.as_ref().filter(|taken| taken.plan != digest) else {
            return Ok(());
        };
        match taken.stage {
            Stage::Retired => return Err(CeremonyError::Another),
            Stage::Active if !self.shop.anew => return Err(CeremonyError::Unended),
            Stage::Active | Stage::Staged => self.journal.ceremony = None,
        }
        Ok(())
    }

    fn begun(&self) -> Begun {
        self.journal.ceremony.as_ref().map(|taken| (taken.id.clone(), taken.stage))
    }

    fn stage(&self) -> Option<Stage> {
        self.journal.ceremony.as_ref().map(|taken| taken.stage)
    }

    /// Whether this host's guard can be relied on: the others have told its disk what it may have lost.
    async fn is_settled(&self) -> Result<bool, CeremonyError> {
        let Some(record) = &self.shop.files.record else { return Ok(false) };
        let lives = Lives::load(self.shop.disk, &Lives::path(record)).await?;
        Ok(lives.is_some_and(|lives| lives.settled))
    }

    /// The floor of the new shares is the highest guard of `t` old members, since whatever was signed took one of them. A member whose disk
    /// is new does not know what it has signed: then it takes `n - t + 1` others, as when it rejoins. Before any share is destroyed.
    fn must_be_told(&self, heard: &BTreeMap<Key, (Begun, bool)>) -> Result<(), CeremonyError> {
        let Some(before) = self.plan.before() else { return Ok(()) };
        let old = heard.iter().filter(|(key, _)| self.plan.role(key).is_some_and(|role| role.old.is_some()));
        let old: Vec<_> = old.collect();
        match old.iter().find(|(_, (_, settled))| !settled) {
            Some((key, _)) if old.len() <= before.shape().rejoin_quorum() => {
                Err(CeremonyError::NewDisk { who: self.plan.name(key) })
            }
            _ => Ok(()),
        }
    }

    async fn store(&self) -> Result<(), CeremonyError> {
        Ok(self.journal.store(self.shop.disk, &self.shop.files.journal).await?)
    }

    async fn is_there(&self, path: &Path) -> Result<bool, CeremonyError> {
        Ok(self.shop.disk.is_there(path).await.map_err(DurableFileError::at("read", path))?)
    }

    fn must_be_all(&self, meeting: &dyn Meeting) -> Result<(), CeremonyError> {
        let here = meeting.others();
        let mut away = self.plan.parties().filter(|(key, _)| **key != self.me && !here.contains(key));
        match away.next() {
            Some((key, _)) => Err(CeremonyError::NotAll(self.plan.name(key))),
            None => Ok(()),
        }
    }

    /// Makes the new shares, proves them and puts this host's by. Returns how many sets have signed.
    async fn begin(&mut self, meeting: &mut dyn Meeting) -> Result<usize, CeremonyError> {
        self.must_be_all(meeting)?;
        // What another run has put by is nobody's any more, and must not be taken for this one's.
        self.journal.ceremony = None;
        self.store().await?;
        let key = match (self.plan.before(), &self.shop.own.share, self.role.old) {
            (Some(group), Some(share), Some(_)) => Some(share.key_package(group)?),
            (Some(_), None, Some(_)) => return Err(CeremonyError::NoShare),
            _ => None,
        };
        let host = Host {
            plan: self.plan,
            me: self.me,
            role: self.role,
            key: key.as_deref(),
            entropy: self.shop.entropy,
        };
        let Made { share, package, run } = match self.plan.act() {
            Act::Generate => host.generate(meeting).await?,
            Act::Refresh => host.refresh(meeting).await?,
            Act::Reshare | Act::Repair { .. } => host.reshare(meeting).await?,
        };
        let (chain_id, shape, epoch) = (self.plan.chain_id().clone(), self.plan.shape(), self.plan.epoch());
        let group = Group::new(chain_id.clone(), shape, epoch, self.plan.identities(), package)?;
        if self.plan.before().is_some_and(|before| before.public_key() != group.public_key()) {
            return Err(CeremonyError::OtherKey);
        }
        let floor = self.shop.own.share.as_ref().map_or(Height(0), Share::floor);
        let of = ShareOf { chain_id, public_key: group.public_key(), epoch, floor };
        let identity = self.shop.own.identity.clone();
        let share = share.zip(self.role.new).map(|(share, id)| Share::new(&of, id, share, identity));
        let key =
            share.as_ref().map(|share| Ok::<_, CeremonyError>((share.id(), share.key_package(&group)?)));
        let key = key.transpose()?;
        let own = key.as_ref().map(|(id, key)| (*id, key));
        let proven = proof::prove(meeting, self.plan, &group, own, run, self.shop.entropy).await?;
        (self.shop.tell)(&format!("all {proven} sets of {} sign with the new shares", shape.threshold()));
        let mut id = Sha256::new_with_prefix(self.plan.digest());
        id.update(run);
        self.put_by(&group, share.as_ref(), HEXLOWER.encode(&id.finalize())).await?;
        all(meeting, self.plan, Round::Staged, run).await?;
        Ok(proven)
    }

    /// Brings the new share and group file to stable storage, beside those that count.
    async fn put_by(
        &mut self,
        group: &Group,
        share: Option<&Share>,
        id: String,
    ) -> Result<(), CeremonyError> {
        let (disk, files, own) = (self.shop.disk, self.shop.files, self.shop.own);
        if let Some(before) = self.plan.before() {
            durable_file::replace(disk, &files.group_before(), before.to_json().as_bytes()).await?;
        }
        durable_file::replace(disk, &files.next_group(), group.to_json().as_bytes()).await?;
        match share {
            Some(share) => {
                let content = share.seal(&own.age.to_public())?;
                durable_file::replace(disk, &files.next_share(), content.as_bytes()).await?;
            }
            // Who leaves must be able to say so again after its share is gone.
            None => {
                let content = seal_identity(&own.identity, &own.age)?;
                durable_file::replace(disk, &files.left(), content.as_bytes()).await?;
            }
        }
        self.check_staged(group).await?;
        let plan = HEXLOWER.encode(&self.plan.digest());
        self.journal.ceremony = Some(Taken { plan, id, stage: Stage::Staged, guard: None });
        self.store().await
    }

    async fn staged_group(&self) -> Result<Group, CeremonyError> {
        let (disk, files) = (self.shop.disk, self.shop.files);
        let content = match if_there(disk.read_wiping(&files.next_group()).await)? {
            Some(content) => content,
            None => disk.read_wiping(&files.group).await?,
        };
        Ok(Group::parse(&content)?)
    }

    /// That what is on the disk is what the new group needs of this host.
    async fn check_staged(&self, group: &Group) -> Result<(), CeremonyError> {
        if self.role.new.is_none() {
            return Ok(());
        }
        let (disk, files, own) = (self.shop.disk, self.shop.files, self.shop.own);
        let content = match if_there(disk.read_private(&files.next_share()).await)? {
            Some(content) => content,
            None => disk.read_private(&files.share).await?,
        };
        let share = Share::open(&content, std::slice::from_ref(&own.age))?;
        share.key_package(group).map_err(CeremonyError::Staged)?;
        Ok(())
    }

    /// Destroys the old share, and writes down that its epoch is over. Returns where its guard stands, which it does for ever.
    async fn retire(&mut self) -> Result<Option<Place>, CeremonyError> {
        if self.role.old.is_none() {
            return Ok(None);
        }
        if self.stage() == Some(Stage::Staged) {
            // The lock of the record: no cosigner gives a share from here on.
            let record = self.lock_record().await?;
            let guard = Place::of(record.watermark());
            self.record = Some(record);
            self.journal.epoch = self.plan.epoch();
            self.write_down(Stage::Retired, Some(guard)).await?;
        }
        if self.stage() == Some(Stage::Retired) {
            let files = self.shop.files;
            // If the new share has taken the place already, the old one is gone.
            let old_is_there = self.role.new.is_none() || self.is_there(&files.next_share()).await?;
            if old_is_there {
                durable_file::remove(self.shop.disk, &files.share).await?;
            }
            (self.shop.tell)("the old share is destroyed; waiting for the others");
        }
        Ok(self.journal.ceremony.as_ref().and_then(|taken| taken.guard))
    }

    async fn write_down(&mut self, stage: Stage, guard: Option<Place>) -> Result<(), CeremonyError> {
        if let Some(taken) = &mut self.journal.ceremony {
            taken.stage = stage;
            taken.guard = guard.or(taken.guard);
        }
        self.store().await
    }

    /// Opens the record once no cosigner runs on it.
    async fn lock_record(&self) -> Result<Record, CeremonyError> {
        let (Some(path), Some(group)) = (&self.shop.files.record, self.plan.before()) else {
            return Err(CeremonyError::NoShare);
        };
        let mut told = false;
        loop {
            let key = group.verifying_key().to_bytes();
            match self.shop.opener(path).open(self.plan.chain_id(), &key).await {
                Err(RecordError::Locked { .. }) => {
                    if !std::mem::replace(&mut told, true) {
                        (self.shop.tell)(
                            "every host has its new share, and the old ones still sign: stop the cosigner of this host now",
                        );
                    }
                    sleep(LOOK).await;
                }
                other => return Ok(other?),
            }
        }
    }

    /// The highest guard of those that have retired.
    fn floor(&self, before: &Group, guards: &BTreeMap<Key, Place>) -> Result<Place, CeremonyError> {
        let (have, need) = (guards.len(), before.shape().threshold());
        if have < usize::from(need) {
            return Err(super::plan::PlanError::TooFew { have, need }.into());
        }
        let mut ordered: Vec<(Place, &Key)> = guards.iter().map(|(key, place)| (*place, key)).collect();
        ordered.sort_by(|one, other| other.cmp(one));
        let (highest, who) = ordered.first().copied().unwrap_or((Place::default(), &self.me));
        let next = ordered.get(1).map_or(0, |(place, _)| place.height);
        let ahead = u64::try_from(highest.height.saturating_sub(next)).unwrap_or(0);
        let is_accepted = self.shop.accept_floor.is_some_and(|accepted| highest.height <= accepted.0);
        match self.shop.jump_limit {
            JumpLimit::Heights(limit) if ahead > limit && !is_accepted => {
                Err(CeremonyError::Unbelievable { who: self.plan.name(who), height: Height(highest.height) })
            }
            _ => Ok(highest),
        }
    }

    /// Raises the record to the floor, and puts the new share in its place.
    async fn activate(&mut self, floor: Option<Place>) -> Result<(), CeremonyError> {
        if self.stage() == Some(Stage::Active) {
            return Ok(());
        }
        // A share takes its place when the record has risen, and a cosigner may run on both from then on.
        if self.role.new.is_some() && self.is_there(&self.shop.files.next_share()).await? {
            if let (Some(floor), Some(path), Some(group)) =
                (floor, &self.shop.files.record, self.plan.before())
            {
                stand_at(self.shop.opener(path), group, floor, self.record.take()).await?;
            }
            self.forget_lives().await?;
            let (disk, files) = (self.shop.disk, self.shop.files);
            for (next, place) in [(files.next_group(), &files.group), (files.next_share(), &files.share)] {
                if self.is_there(&next).await? {
                    durable_file::rename(disk, &next, place).await?;
                }
            }
        }
        self.journal.epoch = self.plan.epoch();
        self.write_down(Stage::Active, None).await
    }

    /// The lives of the old group's members say nothing about the new one's, whose numbers may be others'. Our own count goes on, and so
    /// does what is known of this disk.
    async fn forget_lives(&self) -> Result<(), CeremonyError> {
        let Some(record) = &self.shop.files.record else { return Ok(()) };
        let path = Lives::path(record);
        let Some(lives) = Lives::load(self.shop.disk, &path).await? else { return Ok(()) };
        let lives = Lives { own: lives.own, settled: lives.settled, ..Lives::default() };
        Ok(lives.store(self.shop.disk, &path).await?)
    }

    /// All have gone over: there is nothing left to take up.
    async fn end(&mut self) -> Result<(), CeremonyError> {
        let (disk, files) = (self.shop.disk, self.shop.files);
        self.journal.ceremony = None;
        match files.record {
            Some(_) => self.store().await?,
            None => durable_file::remove(disk, &files.journal).await?,
        }
        for path in [files.group_before(), files.left()] {
            durable_file::remove(disk, &path).await?;
        }
        if self.role.new.is_none() {
            durable_file::remove(disk, &files.next_group()).await?;
        }
        Ok(())
    }
}

/// Raises a record to a floor at least; makes it there, if there is none. `held` is the record, if it is open already.
pub(super) async fn stand_at(
    opener: Opener<'_>,
    group: &Group,
    floor: Place,
    held: Option<Record>,
) -> Result<(), CeremonyError> {
    let (floor, public_key) = (watermark(floor), group.verifying_key().to_bytes());
    let opened = match held {
        Some(record) => Ok(record),
        None => opener.open(group.chain_id(), &public_key).await,
    };
    let mut record = match opened {
        Err(RecordError::Missing { .. }) => {
            let header = Header { chain_id: group.chain_id().clone(), public_key };
            Lives::unsettle(opener.disk(), opener.path()).await?;
            opener.create(header, floor.clone()).await?
        }
        other => other?,
    };
    match record.raise(floor).await {
        Err(RecordError::NotRising { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Nothing at this place or below is signed.
pub(super) fn watermark(place: Place) -> Watermark {
    let step = match place.step {
        1 => Some(Step::Proposal),
        2 => Some(Step::Prevote),
        3 => Some(Step::Precommit),
        _ => None,
    };
    Watermark::floor(Height(place.height), monosign_protocol::Round(place.round), step)
}
