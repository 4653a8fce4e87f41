use monosign_protocol::Hrs;
use monosign_protocol::message::Timestamp;

/// An answer that a CometBFT node could not use, or would stop because of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// The signer spoke without being asked.
    #[error("an answer came to a request that was not made")]
    Unasked,
    /// The answer has no content, or none that a node of this dialect knows.
    #[error("empty answer to {asked}, or one that this dialect does not know")]
    EmptyAnswer {
        /// The request's name.
        asked: &'static str,
    },
    /// The answer belongs to another request. Nodes retry such a request up to 50 times.
    #[error("{asked} was answered with {answered}: errors too must have the arm of the request")]
    WrongArm {
        /// The request's name.
        asked: &'static str,
        /// The answer's name.
        answered: &'static str,
    },
    /// The answer to a key request has neither key nor error where a node of this dialect looks for it.
    #[error("the answer holds no public key in the field that this dialect reads")]
    NoPublicKey,
    /// The key is not an Ed25519 key.
    #[error("the public key is not an ed25519 key: type `{kind}`, {length} bytes")]
    KeyNotEd25519 {
        /// What the signer calls it.
        kind: String,
        /// The key's length in bytes.
        length: usize,
    },
    /// The key is not the expected one, or another one than before.
    #[error("the signer shows the public key `{shown}`, expected `{expected}`")]
    WrongKey {
        /// The key that was shown, in hexadecimal digits.
        shown: String,
        /// The key that was expected, in hexadecimal digits.
        expected: String,
    },
    /// The signer has yet to show a key to check signatures with.
    #[error("signature for `{hrs}` before any public key: ask for the key first")]
    KeyUnknown {
        /// What was signed.
        hrs: Hrs,
    },
    /// A refusal carries a signature all the same.
    #[error("the refusal of `{hrs}` carries a signature")]
    SignatureInRefusal {
        /// What was refused.
        hrs: Hrs,
    },
    /// There is neither signature nor error, or a signature of the wrong length.
    #[error("the signature for `{hrs}` has {length} bytes, expected 64")]
    SignatureLength {
        /// What was to be signed.
        hrs: Hrs,
        /// The length of what came, in bytes.
        length: usize,
    },
    /// The signature does not cover what the node takes it to cover.
    #[error("the signature for `{hrs}` is not one of the validator's key over the requested message")]
    SignatureInvalid {
        /// What was to be signed.
        hrs: Hrs,
    },
    /// The signature is good for another timestamp than the one that the node will send with it.
    ///
    /// A node takes a vote's timestamp from the answer, and a proposal's from its own request.
    #[error(
        "the signature for `{hrs}` covers the time {} s + {} ns, where the node sends {} s + {} ns",
        signed.seconds, signed.nanos, sent.seconds, sent.nanos
    )]
    SignedOtherTime {
        /// What was signed.
        hrs: Hrs,
        /// The time that the signature covers.
        signed: Timestamp,
        /// The time that the node sends along with it.
        sent: Timestamp,
    },
    /// A precommit for a block has no extension signature where extensions are on. Nodes panic on it.
    #[error("the precommit `{hrs}` has no extension signature: a node would stop (CONSENSUS FAILURE)")]
    ExtensionSignatureMissing {
        /// The precommit.
        hrs: Hrs,
    },
    /// A prevote or a precommit for nil has an extension signature. Nodes panic on it.
    #[error("`{hrs}` must not have an extension signature: a node would stop (CONSENSUS FAILURE)")]
    ExtensionSignatureUnexpected {
        /// The prevote, or the precommit for nil.
        hrs: Hrs,
    },
    /// The extension signature does not cover the extension.
    #[error("the extension signature for `{hrs}` is not one of the validator's key over the extension")]
    ExtensionSignatureInvalid {
        /// The precommit.
        hrs: Hrs,
    },
}
