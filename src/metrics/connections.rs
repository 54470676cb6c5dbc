//! Guards that count what is open, and what came in on a connection.

use super::families::Families;
use super::labels::Malformed;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// The connections of a listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    open: IntGauge,
    malformed: IntCounterVec,
}

/// A guard that counts a connection as open.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Connections {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            open: families.connections.clone(),
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
    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
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
