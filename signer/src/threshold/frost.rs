//! The ciphersuite FROST(Ed25519, SHA-512) (RFC 9591 section 6.1) for `frost-core`, as `frost-ed25519` has it, but for how points are
//! multiplied and how often they are encoded.
//!
//! There is no protocol of our own here, no hash, no field and no arithmetic: the rounds, polynomials and checks are `frost-core`'s;
//! hashes, scalars and encodings are `frost-ed25519`'s; points and what multiplies them are `curve25519-dalek`'s. But `frost-ed25519`
//! multiplies the base point like any other, and encodes a point, which takes an inversion, each time that it is hashed. Here:
//!
//! * the base point is multiplied by its precomputed table, in constant time like all that a secret may go into;
//! * a point remembers its encoding, and a multiple of the base point also that of an eighth of it, which goes over the
//!   [wire](super::commitments).
//!
//! On the machine that this was written on, commitments to two nonces take 31 µs instead of 49, to read another's takes 13 instead of 60,
//! and with what [`rounds`](super::rounds) keeps, a share of 2 of 3 takes 43 instead of 79, and to add two up and verify the signature by
//! the strict rule 31 instead of 171.
//!
//! Every byte is the one that `frost-ed25519` makes of the same entropy. `tests/alike.rs` holds it to that: keys are made, refreshed,
//! repaired and used by both, and all that either says or keeps is compared. So files and ceremonies know nothing of this.

use std::sync::LazyLock;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity as _, IsIdentity as _};
use frost_core::{Ciphersuite, Group, GroupError};
use frost_ed25519::{Ed25519Group, Ed25519ScalarField, Ed25519Sha512};
use zeroize::Zeroizing;

/// The ciphersuite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite;

/// An error of FROST's.
pub type Error = frost_core::Error<Suite>;
/// A member's number as a point of the polynomial.
pub type Identifier = frost_core::Identifier<Suite>;
/// What a set of signers signs, with what they have committed themselves to.
pub type SigningPackage = frost_core::SigningPackage<Suite>;
/// A key before it is shared out.
pub type SigningKey = frost_core::SigningKey<Suite>;
/// A group's public key.
pub type VerifyingKey = frost_core::VerifyingKey<Suite>;
/// The two nonces of one share. Good for one.
pub type SigningNonces = frost_core::round1::SigningNonces<Suite>;
/// What a signer commits itself to: its nonces, as points.
pub type SigningCommitments = frost_core::round1::SigningCommitments<Suite>;
/// A share of a signature.
pub type SignatureShare = frost_core::round2::SignatureShare<Suite>;
/// A member's share of the key, as a scalar.
pub type SigningShare = frost_core::keys::SigningShare<Suite>;
/// A member's share of the key, as a point.
pub type VerifyingShare = frost_core::keys::VerifyingShare<Suite>;
/// A member's share with all that it takes to sign.
pub type KeyPackage = frost_core::keys::KeyPackage<Suite>;
/// The public key and the verifying shares of a group.
pub type PublicKeyPackage = frost_core::keys::PublicKeyPackage<Suite>;
/// A share as its dealer hands it out, with what proves it.
pub type SecretShare = frost_core::keys::SecretShare<Suite>;
/// What a dealer commits itself to: its polynomial, as points.
pub type VerifiableSecretSharingCommitment = frost_core::keys::VerifiableSecretSharingCommitment<Suite>;

impl Ciphersuite for Suite {
    const ID: &'static str = Ed25519Sha512::ID;

    type Group = Curve;
    type HashOutput = [u8; 64];
    type SignatureSerialization = [u8; 64];

    fn H1(m: &[u8]) -> Scalar {
        Ed25519Sha512::H1(m)
    }

    fn H2(m: &[u8]) -> Scalar {
        Ed25519Sha512::H2(m)
    }

    fn H3(m: &[u8]) -> Scalar {
        Ed25519Sha512::H3(m)
    }

    fn H4(m: &[u8]) -> [u8; 64] {
        Ed25519Sha512::H4(m)
    }

    fn H5(m: &[u8]) -> [u8; 64] {
        Ed25519Sha512::H5(m)
    }

    fn HDKG(m: &[u8]) -> Option<Scalar> {
        Ed25519Sha512::HDKG(m)
    }

    fn HID(m: &[u8]) -> Option<Scalar> {
        Ed25519Sha512::HID(m)
    }
}

/// The subgroup of prime order of Ed25519's curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve;

impl Group for Curve {
    type Field = Ed25519ScalarField;
    type Element = Point;
    type Serialization = [u8; 32];

    fn cofactor() -> Scalar {
        Ed25519Group::cofactor()
    }

    fn identity() -> Point {
        Point(Form::Plain(EdwardsPoint::identity()))
    }

    fn generator() -> Point {
        Point(Form::Base)
    }

    fn serialize(point: &Point) -> Result<[u8; 32], GroupError> {
        match &point.0 {
            Form::Encoded { bytes, .. } => Ok(*bytes),
            Form::Base | Form::Plain(_) => Ed25519Group::serialize(&point.edwards()),
        }
    }

    /// Encodings that are not canonical are all of points that are refused (<https://eprint.iacr.org/2020/1244>), so the bytes are the
    /// point's only encoding.
    fn deserialize(bytes: &[u8; 32]) -> Result<Point, GroupError> {
        let point = Ed25519Group::deserialize(bytes)?;
        Ok(Point(Form::Encoded { point, bytes: *bytes, eighth: None }))
    }
}

/// A point of it.
#[derive(Debug, Clone, Copy)]
pub struct Point(Form);

#[derive(Debug, Clone, Copy)]
enum Form {
    Base,
    Plain(EdwardsPoint),
    /// Never the identity, which has no encoding in FROST.
    Encoded {
        point: EdwardsPoint,
        /// Its canonical encoding.
        bytes: [u8; 32],
        /// Some encoding of a point that this is eight times of.
        eighth: Option<[u8; 32]>,
    },
}

/// The inverse of eight.
static EIGHTH: LazyLock<Scalar> = LazyLock::new(|| Scalar::from(8u8).invert());

impl Point {
    /// For arithmetic beyond a ciphersuite's.
    pub fn edwards(&self) -> EdwardsPoint {
        match self.0 {
            Form::Base => ED25519_BASEPOINT_POINT,
            Form::Plain(point) | Form::Encoded { point, .. } => point,
        }
    }

    /// A point that will be encoded more than once.
    pub fn encoded(point: EdwardsPoint) -> Self {
        Self::with_eighth(point, None)
    }

    /// Eight times the point that is encoded here, in whatever way: it is in the subgroup, whatever that point is. `None` for what is
    /// no point, or if eight times it is the identity.
    pub fn eight_times(bytes: [u8; 32]) -> Option<Self> {
        let point = CompressedEdwardsY(bytes).decompress()?.mul_by_cofactor();
        (!point.is_identity()).then(|| Self::with_eighth(point, Some(bytes)))
    }

    /// What [`eight_times`](Self::eight_times) makes this point of, if it is known: for points that came of that, and for multiples
    /// of the base point.
    pub fn eighth(&self) -> Option<[u8; 32]> {
        match self.0 {
            Form::Encoded { eighth, .. } => eighth,
            Form::Base | Form::Plain(_) => None,
        }
    }

    fn with_eighth(point: EdwardsPoint, eighth: Option<[u8; 32]>) -> Self {
        if point.is_identity() {
            return Self(Form::Plain(point));
        }
        Self(Form::Encoded { point, bytes: point.compress().to_bytes(), eighth })
    }
}

impl std::ops::Add for Point {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(Form::Plain(self.edwards() + other.edwards()))
    }
}

impl std::ops::Sub for Point {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(Form::Plain(self.edwards() - other.edwards()))
    }
}

/// In constant time: the scalar may be a secret.
impl std::ops::Mul<Scalar> for Point {
    type Output = Self;

    fn mul(self, scalar: Scalar) -> Self {
        match self.0 {
            // What comes of it is published, and hashed more than once.
            Form::Base => {
                let eighth = Zeroizing::new(scalar * *EIGHTH);
                let eighth = EdwardsPoint::mul_base(&eighth);
                Self::with_eighth(eighth.mul_by_cofactor(), Some(eighth.compress().to_bytes()))
            }
            Form::Plain(point) | Form::Encoded { point, .. } => Self(Form::Plain(point * scalar)),
        }
    }
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.edwards() == other.edwards()
    }
}

impl Eq for Point {}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use frost_core::Field as _;

    use super::*;
    use crate::seams::OsEntropy;
    use crate::threshold::rounds::EntropyRng;

    fn bytes_of(encoding: &EdwardsPoint) -> [u8; 32] {
        encoding.compress().to_bytes()
    }

    #[test]
    fn points_are_taken_and_refused_as_by_frost_ed25519() {
        let mut kinds = std::collections::BTreeMap::<String, u32>::new();
        for n in 0..64 {
            let scalar = Ed25519ScalarField::random(&mut EntropyRng(&OsEntropy));
            let good = EdwardsPoint::mul_base(&scalar);
            let torsion = EIGHT_TORSION[n % 8];
            let mut noise = bytes_of(&good);
            noise[n % 32] ^= 0x55;
            for bytes in [bytes_of(&good), bytes_of(&(good + torsion)), bytes_of(&torsion), noise] {
                let ours = Curve::deserialize(&bytes).map(|point| point.edwards());
                let theirs = Ed25519Group::deserialize(&bytes);
                assert_eq!(ours, theirs);
                *kinds.entry(format!("{:?}", ours.err())).or_default() += 1;
            }
        }
        assert_eq!(kinds.len(), 4, "good ones, and three kinds of bad ones: {kinds:?}");
    }

    #[test]
    fn encodings_that_are_not_canonical_are_refused() {
        // y = p + 1, which is 1, and y = p, which is 0.
        for low in [0xee, 0xed] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, 0x7f);
            assert!(Curve::deserialize(&bytes).is_err());
        }
    }

    #[test]
    fn a_point_keeps_the_encoding_that_is_its_own() {
        let scalar = Ed25519ScalarField::random(&mut EntropyRng(&OsEntropy));
        let (base, plain) = (Curve::generator(), Point(Form::Plain(ED25519_BASEPOINT_POINT)));
        let (by_table, plain) = (base * scalar, plain * scalar);
        assert_eq!(by_table, plain);
        assert_eq!(Curve::serialize(&by_table), Curve::serialize(&plain));
        assert!(Curve::serialize(&(by_table - plain)).is_err(), "the identity has none");
        assert!(Curve::serialize(&(base * Scalar::ZERO)).is_err(), "nor has it as a multiple");
        assert!(Curve::serialize(&Point::encoded(EdwardsPoint::identity())).is_err());
        let twice = by_table + plain;
        assert_eq!(twice, base * (scalar + scalar));
        assert_eq!(Curve::serialize(&twice), Curve::serialize(&Point::encoded(twice.edwards())));
    }

    #[test]
    fn a_multiple_of_the_base_point_knows_an_eighth_of_it_and_others_do_not() {
        let scalar = Ed25519ScalarField::random(&mut EntropyRng(&OsEntropy));
        let point = Curve::generator() * scalar;
        let eighth = point.eighth().expect("of a multiple of the base point");
        assert_eq!(Curve::deserialize(&eighth).map(|eighth| eighth * Scalar::from(8u8)), Ok(point));
        assert_eq!(Point::eight_times(eighth), Some(point));
        let read = Curve::deserialize(&Curve::serialize(&point).expect("bytes")).expect("a point");
        assert_eq!([read.eighth(), (read + read).eighth(), Curve::generator().eighth()], [None; 3]);
    }
}
