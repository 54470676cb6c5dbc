//! The life of one connection: when it stops accepting requests, and whether it ends in order or by
//! a reset.
//!
//! A connection accepts no further request after its lifetime, after the idle time in the API's
//! `Keep-Alive`, and after an error. An HTTP/1.1 connection whose request has no response is reset
//! when it ends, so that nothing of that request is delivered afterwards.
//!
//! The decision to reset is recorded here; `connect.rs` carries it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use tokio::sync::watch;

/// How long before the end of the API's idle time a connection is retired. Part of this time passes
/// while a request travels to the API.
const MARGIN: Duration = Duration::from_secs(1);
/// The upper bound of idle times.
const LONGEST_IDLE: Duration = Duration::from_secs(24 * 3600);

/// The state of one connection. Clones share it.
#[derive(Clone)]
pub(super) struct Life {
    born: Instant,
    /// HTTP/2: carries many requests at once, each of which can be reset by itself.
    is_shared: bool,
    is_used: Arc<AtomicBool>,
    /// Whether a request has no response yet. Never set on a shared connection.
    is_waiting: Arc<AtomicBool>,
    /// The instant at which an idle connection is retired. `None` while a request is in flight or
    /// if the API names no idle time.
    retire: Arc<watch::Sender<Option<Instant>>>,
    closed: watch::Receiver<()>,
}

impl Life {
    /// Creates the life of a connection made at `born`. The connection owns the sender: dropping it
    /// marks the connection as closed.
    pub(super) fn new(born: Instant, is_shared: bool) -> (Self, watch::Sender<()>) {
        let (open, closed) = watch::channel(());
        let life = Self {
            born,
            is_shared,
            is_used: Arc::default(),
            is_waiting: Arc::default(),
            retire: Arc::new(watch::Sender::new(None)),
            closed,
        };
        (life, open)
    }

    /// The instant at which the connection was made.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// Records that an attempt that began at `began` sends a request. Returns how the connection
    /// was used before.
    pub(super) fn begin_request(&self, began: Instant) -> Use {
        if self.retire.borrow().is_some() {
            self.retire.send_replace(None);
        }
        // A connection that ends from here on is reset.
        self.is_waiting.store(!self.is_shared, Ordering::Release);
        if self.is_used.swap(true, Ordering::AcqRel) {
            Use::Again
        } else if self.born < began {
            Use::FirstAfterIdle
        } else {
            Use::First
        }
    }

    /// Records that the head of the response arrived.
    pub(super) fn answered(&self, headers: &HeaderMap, now: Instant) {
        self.is_waiting.store(false, Ordering::Release);
        if let Some(idle) = idle_time(headers).filter(|_| !self.is_shared) {
            self.retire.send_replace(now.checked_add(idle));
        }
    }

    /// Whether the connection must be reset when it ends.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Acquire)
    }

    /// Waits until the connection is to be retired, at the latest at `end`. Returns `false` if it
    /// closes before.
    pub(super) async fn expires(&mut self, end: Instant) -> bool {
        let mut retire = self.retire.subscribe();
        loop {
            let until = retire.borrow_and_update().map_or(end, |at| at.min(end));
            tokio::select! {
                _ = self.closed.changed() => return false,
                () = tokio::time::sleep_until(until.into()) => return true,
                _ = retire.changed() => {}
            }
        }
    }
}

/// The use of a connection before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// None: the connection was made for this request.
    First,
    /// None, but the connection was made for another request and has been idle.
    FirstAfterIdle,
    /// At least one request.
    Again,
}

impl Use {
    /// Whether the connection was kept idle or used, so that the API may have closed it meanwhile.
    pub(super) fn was_kept(self) -> bool {
        self != Self::First
    }
}

/// How long a connection may stay idle after this response: slightly less than the `timeout` of
/// `Keep-Alive` (RFC 2068, section 19.7.1.1). `None` if the API names none.
fn idle_time(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers
        .get_all(HeaderName::from_static("keep-alive"))
        .iter();
    let mut parameters = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let seconds = parameters.find_map(|parameter| {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let name = parts.next()?.trim_ascii();
        let value = parts.next()?.trim_ascii();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        let value = str::from_utf8(value).ok()?;
        name.eq_ignore_ascii_case(b"timeout")
            .then(|| value.parse::<u64>().ok())?
    })?;
    let named = Duration::from_secs(seconds).min(LONGEST_IDLE);
    Some(named - MARGIN.min(named / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    /// Made for another request that then had a connection sooner, it may have been closed as well.
    #[test]
    fn a_connection_was_kept_unless_it_was_made_for_its_request() {
        let now = Clock::system().now();
        let before = now.checked_sub(Duration::from_millis(1)).unwrap();
        for (born, first, was_kept) in [
            (now, Use::First, false),
            (before, Use::FirstAfterIdle, true),
        ] {
            let (life, _open) = Life::new(born, false);
            let how = life.begin_request(now);
            assert_eq!((how, how.was_kept()), (first, was_kept));
            let again = life.begin_request(now);
            assert_eq!((again, again.was_kept()), (Use::Again, true));
        }
    }

    #[test]
    fn the_idle_time_is_a_little_less_than_the_api_names() {
        for (field, millis) in [
            ("timeout=5", Some(4_000)),
            ("timeout=5, max=1000", Some(4_000)),
            ("max=1000, Timeout = 60", Some(59_000)),
            ("timeout=\"5\"", Some(4_000)),
            ("timeout=2", Some(1_000)),
            ("timeout=1", Some(500)),
            ("timeout=0", Some(0)),
            ("timeout=18446744073709551615", Some(86_399_000)),
            ("timeout=18446744073709551616", None),
            ("timeout=-1", None),
            ("timeout", None),
            ("timeout=", None),
            ("max=5", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", field.parse().unwrap());
            let expected = millis.map(Duration::from_millis);
            assert_eq!(idle_time(&headers), expected, "{field}");
        }
        assert_eq!(idle_time(&HeaderMap::new()), None);
    }
}
