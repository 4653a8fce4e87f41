//! How commitments to nonces go over the wire: as an eighth of each of the two points.
//!
//! FROST takes points of the subgroup of prime order alone (RFC 9591 section 6.1), and to check that a point is one takes most of the time
//! of reading it. Nothing has to be checked here: the curve has eight times as many points as the subgroup, so eight times whatever
//! was sent is in it.
//!
//! Eight points, some of them in two encodings, stand for one commitment. Nothing depends on which was sent: commitments are hashed by
//! the canonical encoding of the point itself, compared as points, and nonces go by numbers, never by their commitments.

use frost_core::round1::NonceCommitment;

use super::frost::{Point, SigningCommitments, Suite};

/// Writes commitments that were made here or read by [`read`]; `None` for others.
pub fn write(commitments: &SigningCommitments) -> Option<Vec<u8>> {
    let (hiding, binding) = (commitments.hiding().value(), commitments.binding().value());
    Some([hiding.eighth()?, binding.eighth()?].concat())
}

/// Reads what [`write`] writes. `None` for what is no two points, or if a commitment would be the identity.
pub fn read(bytes: &[u8]) -> Option<SigningCommitments> {
    let (hiding, binding) = bytes.split_first_chunk::<32>()?;
    let read = |bytes| Point::eight_times(bytes).map(NonceCommitment::<Suite>::new);
    Some(SigningCommitments::new(read(*hiding)?, read(binding.try_into().ok()?)?))
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::edwards::CompressedEdwardsY;
    use frost_core::{Field as _, round1};
    use frost_ed25519::Ed25519ScalarField;

    use super::*;
    use crate::seams::OsEntropy;
    use crate::threshold::frost::{SigningShare, Suite};
    use crate::threshold::rounds::EntropyRng;

    #[test]
    fn commitments_come_back_as_they_were_and_are_of_prime_order_whatever_was_sent() {
        let rng = &mut EntropyRng(&OsEntropy);
        let share = SigningShare::new(Ed25519ScalarField::random(&mut *rng));
        let (nonces, commitments) = round1::commit::<Suite, _>(&share, &mut *rng);
        let bytes = write(&commitments).expect("made here");
        let again = read(&bytes).expect("commitments");
        assert_eq!((&again, again.serialize()), (nonces.commitments(), commitments.serialize()));
        assert_eq!(write(&again), Some(bytes.clone()));
        let eighth =
            CompressedEdwardsY(*bytes.first_chunk().expect("a point")).decompress().expect("a point");
        for torsion in EIGHT_TORSION {
            let twisted = [(eighth + torsion).compress().as_bytes(), &bytes[32..]].concat();
            assert_eq!(read(&twisted).as_ref(), Some(&again), "the same point");
            let small = [torsion.compress().as_bytes(), &bytes[32..]].concat();
            assert_eq!(read(&small), None, "eight times it is the identity");
        }
    }

    #[test]
    fn bytes_that_are_not_two_points_are_no_commitments() {
        let share = SigningShare::new(Ed25519ScalarField::random(&mut EntropyRng(&OsEntropy)));
        let (_, commitments) = round1::commit::<Suite, _>(&share, &mut EntropyRng(&OsEntropy));
        let bytes = write(&commitments).expect("made here");
        assert_eq!(read(&bytes[1..]), None);
        assert_eq!(read(&[bytes.as_slice(), &[0]].concat()), None);
        // x squared would have to be no square.
        let no_point = (2..=u8::MAX).map(|y| [&[y][..], &[0; 31]].concat());
        let mut no_point =
            no_point.filter(|y| CompressedEdwardsY::from_slice(y).is_ok_and(|y| y.decompress().is_none()));
        assert_eq!(read(&[&no_point.next().expect("half of all"), &bytes[32..]].concat()), None);
    }
}
