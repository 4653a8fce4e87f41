//! What the commands print. Public values only.

use std::io::{self, Write};
use std::path::Path;

use super::{OpenedBy, SoftsignError, Written};
use crate::backend::softsign::unlock::default_credential_name;
use crate::import::key::KeyForm;
use crate::pubkey::{PrefixError, PublicKey};

/// What was noticed about the key that was imported.
pub(super) fn imported(
    out: &mut dyn Write,
    path: &Path,
    form: Option<KeyForm>,
    unread: &[String],
    exposed: bool,
) -> Result<(), SoftsignError> {
    let path = path.display();
    let mut text = String::new();
    if exposed {
        text += &format!("warning: {path} can be read by other users of this machine\n");
    }
    if form == Some(KeyForm::SeedAndPublicKey) {
        text += &format!(
            "warning: {path} holds a seed with its public key, as CometBFT keeps it. tmkms reads such a file as an\n\
             expanded secret, that is as another key: compare the public key below with the one the chain knows\n"
        );
    }
    if !unread.is_empty() {
        text += &format!(
            "warning: {path} also has {}, which this signer does not use: keep them for the node\n",
            listed(unread)
        );
    }
    print(out, &text)
}

/// Names of fields, in backticks.
fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The file that was written, and the key in it.
pub(super) fn written(
    out: &mut dyn Write,
    written: &Written,
    key: &PublicKey,
    prefix: &str,
) -> Result<(), SoftsignError> {
    let path = written.path.display();
    let text = match &written.opened_by {
        OpenedBy::Anybody => format!("key file     {path} (NOT encrypted)\n"),
        OpenedBy::Passphrase => format!("key file     {path} (encrypted with the passphrase)\n"),
        OpenedBy::NewIdentity { file, recipient } => format!(
            "key file     {path} (encrypted)\n\
             identity     {file} (opens it)\n\
             recipient    {recipient}\n",
            file = file.display()
        ),
        OpenedBy::Recipients(recipients) => {
            let recipients = recipients.join("\n             ");
            format!("key file     {path} (encrypted)\nrecipients   {recipients}\n")
        }
    };
    print(out, &text)?;
    public_key(out, key, prefix)
}

/// A public key, in every form that nodes, chains and explorers show.
pub(super) fn public_key(out: &mut dyn Write, key: &PublicKey, prefix: &str) -> Result<(), SoftsignError> {
    let text = format!(
        "public key   {key}\n\
         cosmos       {cosmos}\n\
         cometbft     {cometbft}\n\
         address      {address}\n\
         valcons      {valcons}\n\
         valconspub   {valconspub}\n",
        cosmos = key.to_cosmos_json(),
        cometbft = key.to_cometbft_json(),
        address = key.address(),
        valcons = key.valcons(&format!("{prefix}valcons"))?,
        valconspub = key.valconspub(&format!("{prefix}valconspub"))?,
    );
    print(out, &text)
}

/// That [`public_key`] will not fail on the prefix, after everything is written.
pub(super) fn check_prefix(prefix: &str) -> Result<(), PrefixError> {
    PublicKey::from_bytes([0; 32]).valconspub(&format!("{prefix}valconspub")).map(drop)
}

/// What to do with the files, and in which order not to sign twice.
pub(super) fn next_steps(
    out: &mut dyn Write,
    written: &Written,
    imported: Option<(&Path, &[String])>,
) -> Result<(), SoftsignError> {
    let mut steps = Vec::new();
    if let Some((old, unread)) = imported {
        let old = old.display();
        steps.push(
            "Never run two signers with this key: stop the validator node (or the old signer) and leave it stopped,\n\
             then bring over its last state with `monosign state import`."
                .to_owned(),
        );
        steps.push(if unread.is_empty() {
            format!(
                "Once this signer signs, remove the old key and its backups from the validator's machine (`shred -u {old}`):\n\
                 a node that starts with it would sign a second time."
            )
        } else {
            format!(
                "Once this signer signs, remove `priv_key` and its backups from the validator's machine: a node that starts with\n\
                 it would sign a second time. Keep what else is in {old} ({}).",
                listed(unread)
            )
        });
    }
    steps.extend(protection_steps(written));
    let allow =
        if matches!(written.opened_by, OpenedBy::Anybody) { ", allow_plaintext_key = true" } else { "" };
    // A relative path in the configuration is relative to that file, and not to this directory.
    let absolute = std::fs::canonicalize(&written.path);
    let absolute = absolute.as_deref().unwrap_or(&written.path).display();
    steps.insert(
        0,
        format!("In the configuration, under [[providers.softsign]]: path = \"{absolute}\"{allow}"),
    );

    let mut text = "\nnext:\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        text += &format!("  {}. {}\n", number + 1, step.replace('\n', "\n     "));
    }
    print(out, &text)
}

fn protection_steps(written: &Written) -> Vec<String> {
    let path = written.path.display();
    match &written.opened_by {
        OpenedBy::Anybody => vec![format!(
            "Whoever reads {path} has the key. To encrypt it later: `monosign softsign import {path} --output NEW`."
        )],
        OpenedBy::Passphrase => vec![
            "The signer starts sealed and signs nothing until it is given the passphrase, or finds it in a systemd\n\
             credential or in `passphrase_file`."
                .to_owned(),
            format!("Keep a copy of {path} and, apart from it, of the passphrase: without either, the key is lost."),
        ],
        OpenedBy::NewIdentity { file, .. } => {
            let file = file.display();
            let name = default_credential_name(&written.path).unwrap_or("softsign");
            vec![
                format!("Keep a copy of {path} and, apart from it, of {file}: without either, the key is lost."),
                format!(
                    "Beside the key file, the identity protects a copied file, but not a copied directory. Move it into a\n\
                     systemd credential, which the TPM binds to this machine:\n\
                     systemd-creds encrypt --with-key=host+tpm2 --name={name} {file} {name}.cred\n\
                     then LoadCredentialEncrypted={name}:/etc/monosign/{name}.cred in the unit, then `shred -u {file}`."
                ),
            ]
        }
        OpenedBy::Recipients(_) => vec![format!(
            "Give the signer an identity of these recipients: as systemd credential, as `identity_file`, or in\n\
             {path}.identity."
        )],
    }
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), SoftsignError> {
    let report = |error: io::Error| SoftsignError::Report { reason: error.to_string() };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(report)
}
