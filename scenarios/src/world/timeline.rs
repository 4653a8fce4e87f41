//! When what happens: the acts of a scenario with their times drawn, and the ends of what lasts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::scenario::{Act, Do, Scenario};
use crate::streams::{Stream, Streams};

/// What is still to happen.
pub(super) struct Timeline<E> {
    due: BTreeMap<(Duration, u64), E>,
    entered: u64,
}

impl<E> Timeline<E> {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), entered: 0 }
    }

    /// Enters something to happen at `at`; of two at the same time the one that was entered first comes first.
    pub(super) fn enter(&mut self, at: Duration, event: E) {
        self.entered += 1;
        self.due.insert((at, self.entered), event);
    }

    /// What is due by `now`.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<E> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Takes all out that has not happened.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = E> {
        std::mem::take(&mut self.due).into_values()
    }
}

/// One happening of an act, with the stream that its own draws come from.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub(super) act: Do,
    pub(super) stream: Stream,
}

/// The acts of a scenario with their times, in no particular order.
pub(super) fn happenings(scenario: &Scenario, streams: &Streams) -> Vec<(Duration, Happening)> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut all = VecDeque::new();
    for act in &scenario.acts {
        // A stream follows from what the act is, not from its place: taking another one out of the plan does not shift it.
        let text = format!("{act:?}");
        let twin = seen.entry(text.clone()).or_default();
        let mut stream = streams.of(&format!("act/{twin}/{text}"));
        *twin += 1;
        all.extend(times(act, scenario.duration.0, &mut stream).into_iter().map(|at| {
            let of_its_own = Streams::new(stream.bits()).of("happening");
            (at, Happening { act: act.act.clone(), stream: of_its_own })
        }));
    }
    all.into()
}

fn times(act: &Act, duration: Duration, stream: &mut Stream) -> Vec<Duration> {
    let mut at = act.when.at.draw(stream);
    let mut times = vec![at];
    let Some(every) = act.when.every else { return times };
    let until = act.when.until.map_or(duration, |until| until.0);
    loop {
        let pause = every.draw(stream).max(Duration::from_millis(1));
        at += pause;
        if at >= until {
            return times;
        }
        times.push(at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Timeline, happenings};
    use crate::scenario::Scenario;
    use crate::streams::Streams;

    fn scenario(acts: &str) -> Scenario {
        toml::from_str(&format!("about = \"\"\nduration = \"60s\"\n{acts}")).unwrap()
    }

    #[test]
    fn taking_an_act_out_does_not_shift_the_others() {
        let one = "[[act]]\nat = \"1s..50s\"\ndo = \"start\"\nhost = \"a\"\n";
        let two = "[[act]]\nat = \"1s..50s\"\nevery = \"1s..9s\"\ndo = \"start\"\nhost = \"b\"\n";
        let times = |acts: &str| -> Vec<_> {
            let all = happenings(&scenario(acts), &Streams::new(5));
            let of_b = all.into_iter().filter(|(_, h)| format!("{:?}", h.act).contains("\"b\""));
            of_b.map(|(at, mut h)| (at, h.stream.bits())).collect()
        };
        assert!(times(two).len() > 5);
        assert_eq!(times(two), times(&format!("{one}{two}")));
    }

    #[test]
    fn what_is_due_comes_in_order() {
        let mut timeline = Timeline::new();
        for (at, name) in [(3, "c"), (1, "a"), (1, "b")] {
            timeline.enter(Duration::from_secs(at), name);
        }
        assert_eq!(timeline.next_due(Duration::from_secs(2)), Some("a"));
        assert_eq!(timeline.next_due(Duration::from_secs(2)), Some("b"));
        assert_eq!(timeline.next_due(Duration::from_secs(2)), None);
        assert_eq!(timeline.drain().collect::<Vec<_>>(), ["c"]);
    }
}
