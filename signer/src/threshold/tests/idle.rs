//! Groups in which nothing is asked for a long time.

use std::time::Duration;

use super::rig::{Rig, prevote};
use super::signing::shape;

/// Lets this much time pass.
fn idle(rig: &mut Rig, millis: u64) {
    let until = rig.time + Duration::from_millis(millis);
    while rig.time < until {
        rig.step();
    }
}

/// Ages of the pools around which coordinator and signer could disagree, the second generation's too.
const SECONDS: [u64; 7] = [41, 49, 52, 55, 58, 61, 115];

#[test]
fn nonces_are_never_missing_in_a_healthy_group_however_long_it_idles() {
    for (t, n) in [(2, 3), (3, 5)] {
        for seconds in SECONDS {
            let mut rig = Rig::running(shape(t, n), 5);
            idle(&mut rig, seconds * 1000);
            let begin = rig.time;
            rig.sign(0, &prevote(5, 1, 1)).expect("signed");
            assert!(rig.time - begin < Duration::from_millis(20), "{t} of {n} after {seconds} s: it waited");
        }
    }
}

/// How the coordinator goes.
enum Failure {
    Kill,
    Hang,
    Partition,
}

/// Node 0 signs two votes each six seconds, and fails; the standby, whose nonces nobody has used, is asked.
fn a_failover_after_an_idle_standby(failure: &Failure) {
    for (t, n) in [(2u16, 3u16), (3, 5)] {
        for seconds in SECONDS {
            let mut rig = Rig::running(shape(t, n), 6);
            let start = rig.time;
            let mut height = 1;
            while rig.time < start + Duration::from_secs(seconds) {
                rig.sign(0, &prevote(height, 1, 1)).expect("signed");
                height += 1;
                let left = (start + Duration::from_secs(seconds)).saturating_duration_since(rig.time);
                idle(&mut rig, left.min(Duration::from_secs(3)).as_millis() as u64 + 1);
            }
            match failure {
                Failure::Kill => rig.crash(0),
                Failure::Hang => drop(rig.hung.insert(0)),
                Failure::Partition => {
                    let sides: Vec<u8> = (0..n).map(|node| u8::from(node == 0)).collect();
                    rig.partition(&sides);
                }
            }
            let begin = rig.time;
            let signed = rig.sign(1, &prevote(height, 1, 1));
            let took = rig.time - begin;
            assert!(signed.is_ok(), "{t} of {n} after {seconds} s: {signed:?}");
            assert!(took < Duration::from_millis(250), "{t} of {n} after {seconds} s: {took:?}");
        }
    }
}

#[test]
fn a_kill_after_an_idle_standby_loses_no_signature() {
    a_failover_after_an_idle_standby(&Failure::Kill);
}

#[test]
fn a_hang_after_an_idle_standby_loses_no_signature() {
    a_failover_after_an_idle_standby(&Failure::Hang);
}

#[test]
fn a_partition_after_an_idle_standby_loses_no_signature() {
    a_failover_after_an_idle_standby(&Failure::Partition);
}
