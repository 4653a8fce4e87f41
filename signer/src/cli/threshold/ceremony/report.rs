//! What has come of a ceremony, and what the operator does next.

use std::io::Write;

use crate::cli::Failure;
use crate::cli::threshold::split::{peer_table, provider_table};
use crate::config::Endpoint;
use crate::threshold::ceremony::plan::{Key, Plan};
use crate::threshold::ceremony::{Ended, Files};
use crate::threshold::rounds::MemberId;

pub(super) fn dkg(
    plan: &Plan,
    members: &[(Key, Endpoint)],
    files: &Files,
    id: MemberId,
    ended: &Ended,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (group, chain) = (&ended.group, plan.chain_id());
    writeln!(out, "public key   {} (new; the key itself has never been anywhere)", group.public_key())?;
    files_of(files, out)?;
    profile(ended, out)?;
    let share = files.share.file_name().unwrap_or(files.share.as_os_str()).to_string_lossy();
    writeln!(
        out,
        "\nThis is cosigner {id}. In its monosign.toml (`monosign init` makes one), in place of its [[providers.softsign]]:\n\n{}{}",
        provider_table(chain, &share),
        peer_tables(members, id)
    )?;
    writeln!(
        out,
        "Then:  monosign state init --chain {chain}  and  monosign check  and  monosign start\n\n\
         There is no file from which the key could be restored: with fewer than {} of the shares it is gone. Keep a copy of this\n\
         share, and of what opens it, apart from each other and from the other shares.",
        group.shape().threshold()
    )?;
    Ok(())
}

pub(super) fn refreshed(files: &Files, ended: &Ended, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "public key   {} (unchanged), epoch {}", ended.group.public_key(), ended.group.epoch())?;
    files_of(files, out)?;
    profile(ended, out)?;
    writeln!(
        out,
        "\nNow:  monosign start  on this host, and when all run,  monosign threshold drill\n\
         Shares of epoch {} sign no more, backups included: destroy them.",
        ended.group.epoch().saturating_sub(1)
    )?;
    Ok(())
}

pub(super) fn reshared(
    plan: &Plan,
    me: &Key,
    members: &[(Key, Endpoint)],
    files: &Files,
    ended: &Ended,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(out, "public key   {} (unchanged), epoch {}", ended.group.public_key(), ended.group.epoch())?;
    let Some(id) = plan.role(me).and_then(|role| role.new) else {
        writeln!(out, "This cosigner has left the group: its share is destroyed. Destroy its backups too.")?;
        return Ok(());
    };
    files_of(files, out)?;
    profile(ended, out)?;
    writeln!(
        out,
        "\nThis is cosigner {id} from now on. In its monosign.toml, with the port on which each listens:\n"
    )?;
    write!(out, "{}", peer_tables(members, id))?;
    writeln!(
        out,
        "\nThen:  monosign check  and  monosign start, and when all run,  monosign threshold drill\n\
         Shares of epoch {} sign no more, backups included: destroy them.",
        ended.group.epoch().saturating_sub(1)
    )?;
    Ok(())
}

pub(super) fn repaired(
    plan: &Plan,
    me: &Key,
    lost: MemberId,
    files: &Files,
    ended: &Ended,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(out, "public key   {} (unchanged)", ended.group.public_key())?;
    let is_lost = plan.role(me).is_some_and(|role| role.old.is_none());
    if is_lost {
        files_of(files, out)?;
        profile(ended, out)?;
        writeln!(out, "\nNow:  monosign check, and once the others were restarted,  monosign start")?;
    } else {
        writeln!(out, "group file   {} (with the new identity of cosigner {lost})", files.group.display())?;
        writeln!(
            out,
            "\nNow restart the cosigners, this one too, one after the other, so that they know cosigner {lost} again. Those that did\n\
             not help need the new group file first; nothing in it is secret."
        )?;
    }
    writeln!(
        out,
        "The share is the one that was lost. If it may be in other hands, go on with  monosign threshold refresh"
    )?;
    Ok(())
}

/// The tables of all members but `id`.
fn peer_tables(members: &[(Key, Endpoint)], id: MemberId) -> String {
    let others = members.iter().zip(1..).filter(|(_, number)| MemberId(*number) != id);
    let tables = others.map(|((_, endpoint), number)| match endpoint {
        Endpoint::Tcp { host, .. } => peer_table(number, host),
        other => peer_table(number, &other.to_string()),
    });
    tables.collect()
}

fn files_of(files: &Files, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "group file   {} (the same for all; nothing in it is secret)", files.group.display())?;
    writeln!(out, "share        {}", files.share.display())?;
    Ok(())
}

fn profile(ended: &Ended, out: &mut dyn Write) -> Result<(), Failure> {
    let shape = ended.group.shape();
    match ended.proven {
        Some(sets) => writeln!(out, "proven       all {sets} sets of {} sign", shape.threshold())?,
        None => writeln!(out, "proven       when it was begun")?,
    }
    if let Some(floor) = ended.floor {
        writeln!(out, "floor        h/r/s {floor}: nothing there or below is signed")?;
    }
    Ok(writeln!(out, "profile      {}", shape.profile())?)
}
