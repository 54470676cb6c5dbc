//! Pure. What follows from what came of an attempt: the end of a write, or another attempt.
//!
//! A write that may have taken effect is never sent again unless a repetition cannot do more than
//! the first (PUT and DELETE), and then only for a while: later, somebody may have built on another
//! state.

use crate::attempt::backoff::backoff;
use crate::journal::State;
use http::{Method, StatusCode};
use std::time::Duration;

/// How long after its first attempt an idempotent write may be repeated.
pub const REPEAT_FOR: Duration = Duration::from_secs(300);

/// The pause before another attempt of a write that may have taken effect, and how far it grows.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// A final answer other than 429.
    Status(StatusCode),
    /// A 429: it did not take effect.
    Throttled,
    /// It never left.
    NotSent,
    /// It left, and no answer came.
    NoAnswer,
}

/// What is known of the write.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Whether it names more than one element, so that a refusal may be about any of them.
    pub is_list: bool,
    /// Whether the same request may be sent again after an attempt of which nobody knows the
    /// outcome.
    pub repeatable: bool,
    /// Whether an earlier attempt may have taken effect.
    pub doubtful: bool,
    /// Time since it was first sent.
    pub since_first: Duration,
    /// Whether nobody waits for it, so that it can wait for another credential.
    pub deferred: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has ended.
    End(State),
    /// It waits for its turn again: it did not take effect.
    Again,
    /// It is repeated although it may have taken effect.
    Repeat,
    /// The credential is refused: its writes wait until somebody sees to it.
    Pause,
}

/// What follows from an attempt.
pub fn verdict(came: Came, known: &Known<'_>) -> Verdict {
    let in_doubt = || {
        if known.repeatable && known.since_first < REPEAT_FOR {
            Verdict::Repeat
        } else {
            Verdict::End(State::Unknown)
        }
    };
    match came {
        Came::Throttled | Came::NotSent => Verdict::Again,
        Came::NoAnswer => in_doubt(),
        Came::Status(status) => match status.as_u16() {
            502..=504 => in_doubt(),
            // Whatever failed there may have failed after the effect.
            500.. => Verdict::End(State::Unknown),
            401 if known.deferred => Verdict::Pause,
            // What an earlier attempt has deleted is gone.
            404 if known.doubtful && *known.method == Method::DELETE && !known.is_list => {
                Verdict::End(State::Succeeded)
            }
            // It says nothing of an earlier attempt.
            400..=499 if known.doubtful => Verdict::End(State::Unknown),
            400..=499 => Verdict::End(State::Failed),
            _ => Verdict::End(State::Succeeded),
        },
    }
}

/// Whether the write may have taken effect by an attempt of which this came.
pub fn is_in_doubt(came: Came) -> bool {
    match came {
        Came::NoAnswer => true,
        Came::Status(status) => status.is_server_error(),
        Came::Throttled | Came::NotSent => false,
    }
}

/// Whether the API refused an attempt.
pub fn is_refusal(came: Came) -> bool {
    matches!(came, Came::Status(status) if status.is_client_error())
}

/// The pause before the next attempt of a write after `failures` that may have taken effect.
pub fn pause(failures: u32, dice: u64) -> Duration {
    backoff(FIRST_PAUSE, LONGEST_PAUSE, failures, dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Known<'_> = Known {
        method: &Method::PUT,
        is_list: false,
        repeatable: true,
        doubtful: false,
        since_first: Duration::ZERO,
        deferred: true,
    };
    const POST: Known<'_> = Known {
        method: &Method::POST,
        repeatable: false,
        ..PUT
    };

    fn of(status: u16) -> Came {
        Came::Status(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn what_may_have_taken_effect_is_repeated_only_if_that_does_no_more() {
        for came in [Came::NoAnswer, of(502), of(503), of(504)] {
            assert_eq!(verdict(came, &PUT), Verdict::Repeat, "{came:?}");
            let unknown = Verdict::End(State::Unknown);
            assert_eq!(verdict(came, &POST), unknown, "{came:?}");
            let late = Known {
                since_first: REPEAT_FOR,
                ..PUT
            };
            assert_eq!(verdict(came, &late), unknown, "{came:?}");
        }
    }

    #[test]
    fn what_did_not_take_effect_is_always_sent_again() {
        for known in [PUT, POST] {
            for came in [Came::Throttled, Came::NotSent] {
                assert_eq!(verdict(came, &known), Verdict::Again);
            }
        }
    }

    #[test]
    fn an_answer_ends_it() {
        let ends = |known: &Known<'_>, status| match verdict(of(status), known) {
            Verdict::End(state) => state,
            other => panic!("{status}: {other:?}"),
        };
        for known in [PUT, POST] {
            assert_eq!(ends(&known, 200), State::Succeeded);
            assert_eq!(ends(&known, 303), State::Succeeded);
            assert_eq!(ends(&known, 404), State::Failed);
            assert_eq!(ends(&known, 422), State::Failed);
            assert_eq!(ends(&known, 500), State::Unknown);
        }
    }

    #[test]
    fn what_an_earlier_attempt_deleted_is_gone() {
        let delete = Known {
            method: &Method::DELETE,
            ..PUT
        };
        let repeated = Known {
            doubtful: true,
            ..delete
        };
        assert_eq!(verdict(of(404), &delete), Verdict::End(State::Failed));
        assert_eq!(verdict(of(404), &repeated), Verdict::End(State::Succeeded));
        let list = Known {
            is_list: true,
            ..repeated
        };
        assert_eq!(verdict(of(404), &list), Verdict::End(State::Unknown));
        assert_eq!(verdict(of(200), &list), Verdict::End(State::Succeeded));
    }

    #[test]
    fn a_refused_retry_says_nothing_of_the_attempt_before() {
        for method in [Method::PUT, Method::DELETE] {
            for status in [400, 403, 404, 409, 410, 422] {
                let known = |doubtful| Known {
                    method: &method,
                    doubtful,
                    ..PUT
                };
                let first = verdict(of(status), &known(false));
                assert_eq!(first, Verdict::End(State::Failed), "{method} {status}");
                let is_gone = method == Method::DELETE && status == 404;
                let again = match is_gone {
                    true => State::Succeeded,
                    false => State::Unknown,
                };
                assert_eq!(
                    verdict(of(status), &known(true)),
                    Verdict::End(again),
                    "{method} {status}"
                );
            }
        }
    }

    #[test]
    fn a_refused_credential_stops_what_nobody_waits_for() {
        assert_eq!(verdict(of(401), &POST), Verdict::Pause);
        let waited_for = Known {
            deferred: false,
            ..POST
        };
        assert_eq!(verdict(of(401), &waited_for), Verdict::End(State::Failed));
        let doubtful = Known {
            doubtful: true,
            ..waited_for
        };
        assert_eq!(verdict(of(401), &doubtful), Verdict::End(State::Unknown));
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let mut last = Duration::ZERO;
        for failures in 1..40 {
            for dice in [0, 499, 999, u64::MAX] {
                let pause = pause(failures, dice);
                let whole = FIRST_PAUSE * 2_u32.pow((failures - 1).min(10));
                let whole = whole.min(LONGEST_PAUSE);
                assert!(pause >= whole / 2 && pause <= whole, "{failures} {pause:?}");
            }
            let shortest = pause(failures, 0);
            assert!(shortest >= last);
            last = shortest;
        }
    }
}
