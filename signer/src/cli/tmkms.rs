//! tmkms's command lines, of which guides are full: what its options are called here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// An option of tmkms that there is not here.
struct Foreign {
    /// The command, word by word.
    command: &'static [&'static str],
    /// Its names.
    names: &'static [&'static str],
    /// What to do instead.
    way_on: &'static str,
}

const OPTIONS: &[Foreign] = &[
    Foreign {
        command: &["init"],
        names: &["-n", "--networks"],
        way_on: "`--chain CHAIN-ID` names the chain, and `--addr ADDRESS` its validator; `-n` is tmkms's",
    },
    Foreign {
        command: &["yubihsm", "keys", "import"],
        names: &["-t", "--type"],
        way_on: "leave `-t` out: what the file is, is recognised",
    },
    Foreign {
        command: &["yubihsm", "keys", "import"],
        names: &["-p", "--path"],
        way_on: "name the file alone: `monosign yubihsm keys import --id 1 FILE`",
    },
    Foreign {
        command: &["yubihsm", "keys", "generate"],
        names: &["-b"],
        way_on: "`--exportable --backup FILE`: a key that has a backup can be copied",
    },
    Foreign {
        command: &["yubihsm", "keys", "generate"],
        names: &["-p", "--prefix"],
        way_on: "leave `-p` out: `monosign pubkey --prefix cosmos` shows the key with a chain's prefix",
    },
    Foreign {
        command: &["yubihsm", "keys", "generate"],
        names: &["-t", "--type"],
        way_on: "leave `-t` out: all keys here are consensus keys",
    },
    Foreign {
        command: &["yubihsm", "setup"],
        names: &["-r", "--restore"],
        way_on: "give `--secrets` the directory that the first device was set up with, then `monosign yubihsm keys import BACKUP`; \
                 there are no 24 words here",
    },
    Foreign {
        command: &["yubihsm", "setup"],
        names: &["-p", "--print-only"],
        way_on: "leave `-p` out: what is erased is shown first, and the serial number is asked for",
    },
];

/// What to do instead of an option that tmkms has and this program has not.
pub(super) fn way_on(error: &clap::Error, words: &[String]) -> Option<&'static str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_found = |name: &&&str| *found == ***name || found.starts_with(&format!("{name}="));
    let option = OPTIONS.iter().find(|option| {
        let begins = words.iter().zip(option.command).take_while(|(word, of)| word == *of).count();
        begins == option.command.len() && option.names.iter().any(|name| is_found(&name))
    });
    option.map(|option| option.way_on)
}
