//! Pure. What is known of the credentials with which writes are deferred: whether the API accepts
//! them.
//!
//! A caller that defers a write does not wait for the API. Without asking it, an invented token
//! would get a 202 as well. The first write of a credential asks, and others wait for the same
//! answer. An accepted credential is not asked about again. A refused one, and one without an
//! answer, is asked about after [`AGAIN`].
//!
//! Bounded: beyond [`MOST`] credentials it forgets, which costs a question each.

use crate::credential::Credential;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The time after which the API is asked again about a credential that it has refused, or about
/// which it did not answer.
pub(super) const AGAIN: Duration = Duration::from_secs(15);
/// The most credentials that are known at a time.
const MOST: usize = 10_000;

/// What the API says about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It accepts it.
    Accepted,
    /// It answered 401.
    Refused,
    /// It could not be asked, or did not answer.
    Unanswered,
}

/// What is known of one credential; `W` waits for an answer that is on its way.
#[derive(Clone, Debug)]
enum Known<W> {
    Asking(W, Instant),
    Answered(Verdict, Instant),
}

/// What a write that arrives now has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look<W> {
    /// The API said this.
    Answered(Verdict),
    /// Another write asked at this instant: its answer is to be waited for.
    Join(W, Instant),
    /// Nothing is known: it has to ask, perhaps again.
    Ask {
        /// Whether the API was asked before.
        again: bool,
    },
}

/// All credentials of which something is known.
#[derive(Debug)]
pub(super) struct Checks<W> {
    known: HashMap<Credential, Known<W>>,
}

impl<W> Default for Checks<W> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
        }
    }
}

impl<W: Clone> Checks<W> {
    /// Returns what is known of a credential now.
    pub(super) fn look(&self, credential: Credential, now: Instant) -> Look<W> {
        match self.known.get(&credential) {
            Some(Known::Asking(wait, since)) => Look::Join(wait.clone(), *since),
            Some(Known::Answered(verdict, at)) if is_current(*verdict, *at, now) => {
                Look::Answered(*verdict)
            }
            known => Look::Ask {
                again: known.is_some(),
            },
        }
    }

    /// Notes that the API is being asked about a credential.
    pub(super) fn asking(&mut self, credential: Credential, wait: W, now: Instant) {
        self.make_room(now);
        self.known.insert(credential, Known::Asking(wait, now));
    }

    /// Notes the answer of the API, or that there was none.
    pub(super) fn answered(&mut self, credential: Credential, verdict: Verdict, now: Instant) {
        self.make_room(now);
        self.known.insert(credential, Known::Answered(verdict, now));
    }

    fn make_room(&mut self, now: Instant) {
        if self.known.len() < MOST {
            return;
        }
        self.known.retain(|_, known| match known {
            Known::Asking(..) => true,
            Known::Answered(verdict, at) => is_current(*verdict, *at, now),
        });
        if self.known.len() >= MOST {
            self.known.clear();
        }
    }
}

fn is_current(verdict: Verdict, at: Instant, now: Instant) -> bool {
    verdict == Verdict::Accepted || now.saturating_duration_since(at) < AGAIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn credential(n: usize) -> Credential {
        Credential::from_bytes((n as u128).to_be_bytes())
    }

    #[test]
    fn one_asks_and_the_others_join() {
        let now = Clock::system().now();
        let mut checks = Checks::default();
        let one = credential(1);
        let first = Look::Ask { again: false };
        assert_eq!(checks.look(one, now), first);
        checks.asking(one, "the first", now);
        assert_eq!(checks.look(one, now), Look::Join("the first", now));
        assert_eq!(checks.look(credential(2), now), first);
    }

    #[test]
    fn an_answer_is_good_for_a_while_unless_it_is_for_good() {
        let now = Clock::system().now();
        let (before, after) = (AGAIN - Duration::from_millis(1), AGAIN);
        for (verdict, then) in [
            (Verdict::Accepted, Look::Answered(Verdict::Accepted)),
            (Verdict::Refused, Look::Ask { again: true }),
            (Verdict::Unanswered, Look::Ask { again: true }),
        ] {
            let mut checks: Checks<()> = Checks::default();
            checks.answered(credential(1), verdict, now);
            let look = |after| checks.look(credential(1), now + after);
            assert_eq!(look(before), Look::Answered(verdict));
            assert_eq!(look(after), then);
        }
    }

    #[test]
    fn it_is_bounded_and_drops_what_is_out_of_date_first() {
        let now = Clock::system().now();
        let mut checks: Checks<()> = Checks::default();
        for n in 0..MOST {
            let verdict = match n % 2 {
                0 => Verdict::Accepted,
                _ => Verdict::Refused,
            };
            checks.answered(credential(n), verdict, now);
        }
        checks.answered(credential(MOST), Verdict::Refused, now + AGAIN);
        assert_eq!(checks.known.len(), MOST / 2 + 1);
        for n in 0..3 * MOST {
            checks.answered(credential(n), Verdict::Accepted, now + AGAIN);
            assert!(checks.known.len() <= MOST);
        }
    }
}
