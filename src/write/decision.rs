//! Pure. What follows from the outcome of an attempt: the end of a write, or another attempt.
//!
//! A write that may have taken effect is never sent again unless a retry cannot do more than the
//! first attempt (PUT and DELETE), and then only for a while: later, somebody may have built on
//! another state.

use crate::attempt::backoff::backoff;
use crate::exchange::request::RequestContext;
use crate::journal::State;
use crate::route::query;
use http::{Method, StatusCode};
use std::time::Duration;

/// The time after its first attempt in which an idempotent write may be retried.
pub const RETRY_FOR: Duration = Duration::from_secs(300);

/// The first and the longest pause before another attempt of a write that may have taken effect.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The outcome of an attempt, as far as the decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeClass {
    /// A final answer other than 429.
    Status(StatusCode),
    /// It did not take effect: a 429, or it was not sent, or its batch was refused.
    NoEffect,
    /// It was sent, and no answer came.
    NoAnswer,
}

/// What is known of the write.
#[derive(Clone, Copy, Debug)]
pub struct WriteFacts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Whether it names more than one element, so that a refusal may be about any of them.
    pub is_list: bool,
    /// Whether the same request may be sent again after an attempt with an unknown outcome.
    pub repeatable: bool,
    /// Whether an earlier attempt may have taken effect.
    pub doubtful: bool,
    /// The time since it was first sent.
    pub since_first: Duration,
    /// Whether it can wait for another credential: it is durable, and nobody waits for it or the
    /// gateway holds the token.
    pub can_pause: bool,
}

impl<'a> WriteFacts<'a> {
    /// Returns what is known of a write that is not sent again, whatever its attempt comes to.
    pub(crate) fn last(context: &'a RequestContext, doubtful: bool) -> Self {
        Self {
            method: &context.method,
            is_list: is_list(context),
            repeatable: false,
            doubtful,
            since_first: Duration::ZERO,
            can_pause: false,
        }
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has ended.
    End(State),
    /// It waits for its turn again: it did not take effect.
    Requeue,
    /// It is sent again although it may have taken effect.
    Retry,
    /// The credential is refused: its writes wait until an operator or the API admits it.
    Pause,
}

/// Decides what follows from an attempt.
pub fn decide(outcome: OutcomeClass, known: &WriteFacts<'_>) -> Decision {
    let in_doubt = || {
        if known.repeatable && known.since_first < RETRY_FOR {
            Decision::Retry
        } else {
            Decision::End(State::Unknown)
        }
    };
    match outcome {
        OutcomeClass::NoEffect => Decision::Requeue,
        OutcomeClass::NoAnswer => in_doubt(),
        OutcomeClass::Status(status) => match status.as_u16() {
            502..=504 => in_doubt(),
            // What failed there may have failed after the effect.
            500.. => Decision::End(State::Unknown),
            401 if known.can_pause => Decision::Pause,
            // What an earlier attempt has deleted is gone.
            404 if known.doubtful && *known.method == Method::DELETE && !known.is_list => {
                Decision::End(State::Succeeded)
            }
            // The refusal says nothing about an earlier attempt.
            400..=499 if known.doubtful => Decision::End(State::Unknown),
            400..=499 => Decision::End(State::Failed),
            _ => Decision::End(State::Succeeded),
        },
    }
}

/// Returns whether the write may have taken effect by an attempt with this outcome.
pub fn is_in_doubt(outcome: OutcomeClass) -> bool {
    match outcome {
        OutcomeClass::NoAnswer => true,
        OutcomeClass::Status(status) => status.is_server_error(),
        OutcomeClass::NoEffect => false,
    }
}

/// Returns whether the API refused an attempt.
pub fn is_refusal(outcome: OutcomeClass) -> bool {
    matches!(outcome, OutcomeClass::Status(status) if status.is_client_error())
}

/// Returns whether a write may be sent again after it may have taken effect.
pub(crate) fn is_repeatable(context: &RequestContext) -> bool {
    context.operation.is_idempotent(&context.method) && !context.overridden
}

/// Returns whether a write may name more than one element. A body may list any number.
pub(crate) fn is_list(context: &RequestContext) -> bool {
    let lists = context.operation.lists.iter();
    let values = lists.map(|name| query::list_values(context.query(), name).len());
    !context.body.is_empty() || values.sum::<usize>() > 1
}

/// Returns the pause before the next attempt of a write after `failures` that may have taken
/// effect.
pub fn pause(failures: u32, jitter: u64) -> Duration {
    backoff(FIRST_PAUSE, LONGEST_PAUSE, failures, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: WriteFacts<'_> = WriteFacts {
        method: &Method::PUT,
        is_list: false,
        repeatable: true,
        doubtful: false,
        since_first: Duration::ZERO,
        can_pause: true,
    };
    const POST: WriteFacts<'_> = WriteFacts {
        method: &Method::POST,
        repeatable: false,
        ..PUT
    };

    fn of(status: u16) -> OutcomeClass {
        OutcomeClass::Status(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn what_may_have_taken_effect_is_repeated_only_if_that_does_no_more() {
        for outcome in [OutcomeClass::NoAnswer, of(502), of(503), of(504)] {
            assert_eq!(decide(outcome, &PUT), Decision::Retry, "{outcome:?}");
            let unknown = Decision::End(State::Unknown);
            assert_eq!(decide(outcome, &POST), unknown, "{outcome:?}");
            let late = WriteFacts {
                since_first: RETRY_FOR,
                ..PUT
            };
            assert_eq!(decide(outcome, &late), unknown, "{outcome:?}");
        }
    }

    #[test]
    fn what_did_not_take_effect_is_always_sent_again() {
        for known in [PUT, POST] {
            assert_eq!(decide(OutcomeClass::NoEffect, &known), Decision::Requeue);
        }
    }

    #[test]
    fn an_answer_ends_it() {
        let ends = |known: &WriteFacts<'_>, status| match decide(of(status), known) {
            Decision::End(state) => state,
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
        let delete = WriteFacts {
            method: &Method::DELETE,
            ..PUT
        };
        let repeated = WriteFacts {
            doubtful: true,
            ..delete
        };
        assert_eq!(decide(of(404), &delete), Decision::End(State::Failed));
        assert_eq!(decide(of(404), &repeated), Decision::End(State::Succeeded));
        let list = WriteFacts {
            is_list: true,
            ..repeated
        };
        assert_eq!(decide(of(404), &list), Decision::End(State::Unknown));
        assert_eq!(decide(of(200), &list), Decision::End(State::Succeeded));
    }

    #[test]
    fn a_refused_retry_says_nothing_of_the_attempt_before() {
        for method in [Method::PUT, Method::DELETE] {
            for status in [400, 403, 404, 409, 410, 422] {
                let known = |doubtful| WriteFacts {
                    method: &method,
                    doubtful,
                    ..PUT
                };
                let first = decide(of(status), &known(false));
                assert_eq!(first, Decision::End(State::Failed), "{method} {status}");
                let is_gone = method == Method::DELETE && status == 404;
                let again = match is_gone {
                    true => State::Succeeded,
                    false => State::Unknown,
                };
                assert_eq!(
                    decide(of(status), &known(true)),
                    Decision::End(again),
                    "{method} {status}"
                );
            }
        }
    }

    #[test]
    fn a_refused_credential_stops_what_nobody_waits_for() {
        assert_eq!(decide(of(401), &POST), Decision::Pause);
        let waited_for = WriteFacts {
            can_pause: false,
            ..POST
        };
        assert_eq!(decide(of(401), &waited_for), Decision::End(State::Failed));
        let doubtful = WriteFacts {
            doubtful: true,
            ..waited_for
        };
        assert_eq!(decide(of(401), &doubtful), Decision::End(State::Unknown));
    }

    #[test]
    fn pauses_grow_and_end_growing() {
        let mut last = Duration::ZERO;
        for failures in 1..40 {
            for jitter in [0, 499, 999, u64::MAX] {
                let pause = pause(failures, jitter);
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
