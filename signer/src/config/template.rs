//! The file that `monosign init` writes.

use std::path::Path;

/// What is filled in.
pub struct TemplateChain<'a> {
    /// The chain id.
    pub chain_id: &'a str,
    /// The validator's address.
    pub addr: &'a str,
    /// Whether the key file is plain.
    pub plaintext: bool,
}

/// A commented configuration for a directory that `init` made.
pub fn template(dir: &Path, chain: &TemplateChain<'_>) -> String {
    let TemplateChain { chain_id, addr, plaintext } = chain;
    let dir = dir.display();
    let allow = if *plaintext { "allow_plaintext_key = true" } else { "# allow_plaintext_key = false" };
    format!(
        r#"# monosign.toml: a signer for CometBFT validators. It reads a tmkms.toml as it is.
# `monosign check -c {dir}/monosign.toml` tells what is wrong with it and what to do.

# A chain to sign for; one table for each.
[[chain]]
id = "{chain_id}"
# How the public key is shown: {{ type = "hex" }}, {{ type = "cosmos-json" }}, or
# {{ type = "bech32", account_key_prefix = "cosmospub", consensus_key_prefix = "cosmosvalconspub" }}
key_format = {{ type = "cosmos-json" }}
# The record of what was signed last. `monosign state init` makes it; the signer refuses to start without it.
state_file = "{dir}/state/{chain_id}.record"
# A request further above the record than this is refused (0: no limit); `monosign state allow-jump` lets one pass.
# max_height_jump = 100000
# Celestia (CIP-40) wants raw bytes signed; v1.0 has `sign_bytes`, v2.0-rc `sign_non_rp_extensions`. All off by default.
# sign_raw_bytes = false

# A validator to dial: the address of its priv_validator_laddr; one table for each, several for one chain if you like.
[[validator]]
chain_id = "{chain_id}"
# tcp://HOST:PORT, unix:///PATH, unix://@ABSTRACT, or noise://PEER_ID@HOST:PORT (CometBFT v0.40)
addr = "{addr}"
# This signer's identity on the connection.
secret_key = "{dir}/secrets/secret_connection.key"
# What the node speaks is recognised; no version needs to be named.
protocol_version = "auto"
reconnect = true

# The consensus key: made by `monosign softsign import` or `monosign softsign keygen`.
[[providers.softsign]]
chain_ids = ["{chain_id}"]
path = "{dir}/secrets/consensus.key"
# An encrypted key is opened by the systemd credential `consensus`, by identity_file or passphrase_file,
# by the file {dir}/secrets/consensus.key.identity, or by `monosign unlock`.
# identity_file = "/run/secrets/monosign-identity"
{allow}
"#
    )
}
