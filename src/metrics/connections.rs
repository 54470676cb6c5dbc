//! Guards that count what is open, and what came in on a connection.

use super::families::Families;
use super::labels::Malformed;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// The connections of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    open: IntGauge,
    streams: IntGauge,
    malformed: IntCounterVec,
}

/// A guard that counts a connection or a stream as open.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Connections {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            open: families.connections.clone(),
            streams: families.streams.clone(),
            malformed: families.malformed.clone(),
        }
    }

    /// Returns counters that no scrape shows, for a listener without metrics.
    ///
    /// # Errors
    /// Only if a name is malformed, which a test excludes.
    pub fn unseen() -> prometheus::Result<Self> {
        Ok(Self::new(&Families::new(&Registry::new())?))
    }

    /// Counts an open connection until the returned guard is dropped.
    pub fn opened(&self) -> Open {
        Open::new(&self.open)
    }

    /// Counts an open stream of HTTP/2 until the returned guard is dropped.
    pub fn opened_stream(&self) -> Open {
        Open::new(&self.streams)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> i64 {
        self.open.get()
    }

    /// Counts a connection closed because of bytes that are not a request.
    pub fn malformed(&self, reason: Malformed) {
        self.malformed.with_label_values(&[reason.as_str()]).inc();
    }
}

/// A guard that counts a response body as in flight.
#[derive(Debug)]
pub struct BodyUnderWay {
    under_way: IntGauge,
    panics: IntCounter,
}

impl BodyUnderWay {
    pub(super) fn new(families: &Families) -> Self {
        families.bodies.inc();
        Self {
            under_way: families.bodies.clone(),
            panics: families.body_panics.clone(),
        }
    }

    /// Counts a panic of the body.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

impl Drop for BodyUnderWay {
    fn drop(&mut self) {
        self.under_way.dec();
    }
}
