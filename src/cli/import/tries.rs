//! Pure. How often and how fast a row is handed over again.
//!
//! A gateway that says that it is only a matter of time is asked for as long as it says so. One
//! that does not answer, or reports trouble of its own, is asked [`WAITS`] times, for about a
//! minute: as long as a restart takes.

use super::judgement::HandOver;
use super::reply::{GatewayReply, NoReply};
use super::result::{RowOutcome, RowResult};
use std::time::Duration;

/// The waits between two tries without a time of the gateway's own, in milliseconds.
const WAITS: [u64; 8] = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000];
/// The wait if the gateway says that it is a matter of time, but not of which.
const USUAL: Duration = Duration::from_secs(1);
/// The longest time of the gateway's own that is waited for at once.
const LONGEST: Duration = Duration::from_secs(600);

/// The time in which the API takes a row at best: 50 of them in each of 60 requests a minute.
const ROW: Duration = Duration::from_millis(20);
/// The longest time that rows are kept back so that they fill their batches.
const LONGEST_BURST: Duration = Duration::from_secs(20);

/// Returns how long the API is busy with so many rows. A gateway that accepts no more at present is
/// left alone for that long: rows that trickle in within that time end no earlier, and use up the
/// requests of a minute in small batches.
pub(super) fn busy_with(rows: usize) -> Duration {
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    ROW.saturating_mul(rows).min(LONGEST_BURST)
}

/// The tries of one row so far.
#[derive(Debug, Default)]
pub(super) struct RowTries {
    failed: usize,
    may_be_sent: bool,
    last: Option<RowResult>,
    /// What happened at the last try.
    pub(super) why: String,
}

impl RowTries {
    /// Notes a reply after which the row is to be handed over again. Returns the wait until then,
    /// or `None` if it has been tried often enough.
    pub(super) fn after_reply(
        &mut self,
        reply: &GatewayReply,
        verdict: &HandOver,
    ) -> Option<Duration> {
        let HandOver::Again {
            is_patient,
            may_be_sent,
        } = *verdict
        else {
            return None;
        };
        self.may_be_sent |= may_be_sent;
        self.why = format!("it answers {}", reply.in_words());
        self.last = Some(RowResult::of_reply(RowOutcome::Refused, reply));
        let named = reply.retry_after.map(|time| time.min(LONGEST));
        if is_patient {
            return Some(named.unwrap_or(USUAL));
        }
        let own = self.next_wait()?;
        Some(named.unwrap_or(own).max(own))
    }

    /// Notes that there was no reply. Returns the wait until the next try, or `None` if it has been
    /// tried often enough.
    pub(super) fn after_silence(&mut self, silence: &NoReply) -> Option<Duration> {
        self.may_be_sent |= silence.may_have_arrived;
        self.why.clone_from(&silence.why);
        self.next_wait()
    }

    fn next_wait(&mut self) -> Option<Duration> {
        let wait = WAITS.get(self.failed).copied();
        self.failed += 1;
        wait.map(Duration::from_millis)
    }

    /// Returns what is known of a row that is not tried again because the import stops.
    pub(super) fn left(self) -> RowResult {
        if self.may_be_sent {
            return self.given_up();
        }
        RowResult::new(RowOutcome::Unsent, &self.why)
    }

    /// Returns what is known of a row that was tried often enough.
    pub(super) fn given_up(self) -> RowResult {
        if self.may_be_sent {
            let message = format!("the gateway may have accepted it: {}", self.why);
            return RowResult::new(RowOutcome::Unknown, &message);
        }
        self.last
            .unwrap_or_else(|| RowResult::new(RowOutcome::Unsent, &self.why))
    }
}

#[cfg(test)]
mod tests {
    use super::super::judgement::judge;
    use super::*;
    use http::{HeaderMap, HeaderValue};
    use serde_json::json;

    fn reply(status: u16, kind: &str, retry_after: Option<u64>) -> GatewayReply {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert("retry-after", HeaderValue::from(seconds));
        }
        let body = json!({ "errors": [{ "type": kind, "message": "why" }] }).to_string();
        GatewayReply::new(status, &headers, body.as_bytes())
    }

    fn after(tries: &mut RowTries, reply: &GatewayReply) -> Option<Duration> {
        tries.after_reply(reply, &judge(reply))
    }

    #[test]
    fn a_matter_of_time_is_waited_for() {
        let mut tries = RowTries::default();
        for n in 0..100 {
            let quota = reply(429, "gateway-caller-quota", Some(n));
            assert_eq!(after(&mut tries, &quota), Some(Duration::from_secs(n)));
        }
        let unnamed = reply(503, "gateway-queue-full", None);
        assert_eq!(after(&mut tries, &unnamed), Some(USUAL));
        let long = reply(507, "gateway-too-many-ended", Some(86_400));
        assert_eq!(after(&mut tries, &long), Some(LONGEST));
        let result = tries.left();
        assert_eq!(result.outcome, RowOutcome::Unsent);
        assert!(result.error.message.contains("507 gateway-too-many-ended"));
    }

    #[test]
    fn what_was_accepted_at_once_keeps_the_api_busy() {
        for (rows, expected) in [
            (0, 0),
            (1, 20),
            (500, 10_000),
            (5_000, 20_000),
            (usize::MAX, 20_000),
        ] {
            assert_eq!(busy_with(rows), Duration::from_millis(expected), "{rows}");
        }
    }

    #[test]
    fn trouble_ends_after_about_a_minute() {
        let mut tries = RowTries::default();
        let full = reply(507, "gateway-journal-full", Some(10));
        let mut waits = Vec::new();
        while let Some(wait) = after(&mut tries, &full) {
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [10, 10, 10, 10, 10, 15, 15, 15]);
        let result = tries.given_up();
        assert_eq!(result.outcome, RowOutcome::Refused);
        assert_eq!(result.error.kind, "gateway-journal-full");
    }

    #[test]
    fn a_row_that_may_have_arrived_is_unknown_whatever_comes_later() {
        let silence = |may_have_arrived| NoReply {
            may_have_arrived,
            why: "the connection broke".to_owned(),
        };
        let mut tries = RowTries::default();
        assert_eq!(
            tries.after_silence(&silence(false)),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            tries.after_silence(&silence(false)),
            Some(Duration::from_secs(1))
        );
        assert_eq!(tries.given_up().outcome, RowOutcome::Unsent);
        let mut tries = RowTries::default();
        tries.after_silence(&silence(true));
        after(&mut tries, &reply(429, "gateway-caller-quota", None));
        let result = tries.given_up();
        assert_eq!(result.outcome, RowOutcome::Unknown);
        assert!(result.error.message.contains("429 gateway-caller-quota"));
    }
}
