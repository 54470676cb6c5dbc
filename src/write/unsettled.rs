//! A write that was sent and whose outcome is not known yet.
//!
//! Promises that such a write settles in any case: dropped as it is, also by a panic, it settles
//! as one with an unknown outcome. What each end settles is decided in
//! [`settlement`](super::settlement).

use crate::lanes::Keys;
use crate::lanes::LanePosition;
use crate::write::Writes;
use crate::write::settlement::{Affected, Scope};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// A write that was sent and whose outcome is not known yet. A drop settles it with an unknown
/// outcome: what is cached is no longer believed, and the lanes stay closed for Q.
pub(crate) struct Unsettled {
    writes: Arc<Writes>,
    affected: Affected,
    place: Option<LanePosition>,
    settled: bool,
}

impl Unsettled {
    pub(crate) fn new(writes: Arc<Writes>, affected: Affected, place: LanePosition) -> Self {
        Self {
            writes,
            affected,
            place: Some(place),
            settled: false,
        }
    }

    pub(crate) fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// Returns whether it may change anything, if its outcome stays unknown.
    pub(crate) fn may_change_anything(&self) -> bool {
        self.affected.scope != Scope::Named
    }

    /// Returns what the write acts on.
    pub(crate) fn keys(&self) -> Keys {
        self.place
            .as_ref()
            .map(LanePosition::keys)
            .unwrap_or_default()
    }

    /// A write that waits in no lane: shadow mode orders nothing.
    pub(crate) fn without_place(writes: Arc<Writes>, affected: Affected) -> Self {
        Self {
            writes,
            affected,
            place: None,
            settled: false,
        }
    }

    /// Settles a write that the API answered. Dropping the place opens its lanes, unless the write
    /// may still be in flight: a 5xx may hide an effect that is still to come.
    pub(crate) fn heard(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        doubtful: bool,
    ) -> Option<LanePosition> {
        let authority = self.writes.router.settings.get().authority.clone();
        self.affected.also_named_by(headers, &authority);
        self.writes.settle_end(&self.affected, Some(status));
        self.settled = true;
        let mut place = self.place.take();
        if let Some(place) = place.as_mut().filter(|_| doubtful) {
            place.stay_closed_for(self.writes.router.settings.get().late);
        }
        place
    }

    /// Settles an attempt without effect: nothing has changed. The place is still that of the
    /// write.
    pub(crate) fn not_carried_out(mut self) -> Option<LanePosition> {
        self.settled = true;
        self.place.take()
    }

    /// Settles an attempt with an unknown outcome. The write may be sent again in its place.
    pub(crate) fn in_doubt(mut self) -> Option<LanePosition> {
        self.end_unknown();
        self.place.take()
    }

    fn end_unknown(&mut self) {
        self.settled = true;
        self.writes.settle_end(&self.affected, None);
        if let Some(place) = &mut self.place {
            place.stay_closed_for(self.writes.router.settings.get().late);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.settled {
            self.end_unknown();
        }
    }
}
