//! The judgement of a response in shadow mode: it is compared with the stored one that the reader
//! would have been shown, and stored if the gateway would have fetched it.
//!
//! The head is judged first, since it may decide. Otherwise the body is copied while it streams
//! ([`copied`](super::copied)) and judged at its end. The response itself is never changed.

use crate::cache::conditional;
use crate::cache::entry::Entry;
use crate::cache::headers::ReceivedResponse;
use crate::cache::leader::Leader;
use crate::cache::media::MediaType;
use crate::cache::reason::StoreRefusal;
use crate::read::cacheable::CacheableRead;
use crate::shadow::Shadow;
use crate::shadow::verdict::{compared, is_same_body};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// The judge of a response: compares and stores it once it is complete.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) shadow: Arc<Shadow>,
    pub(super) reading: CacheableRead,
    /// The stored response that would have been shown.
    pub(super) shown: Option<Arc<Entry>>,
    /// The fetch that stores the response.
    pub(super) leader: Option<Leader>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Comparison {
    /// Judges the head of a response whose body has at least `length` bytes. Returns the judge if
    /// the body must be judged, too, and the comparison if the head decides it.
    pub(super) fn head(
        mut self: Box<Self>,
        status: StatusCode,
        headers: &HeaderMap,
        length: u64,
    ) -> (Option<Box<Self>>, Option<bool>) {
        self.status = status;
        self.headers = headers.clone();
        let same = self.same_by_head();
        if let Some(same) = same {
            self.tell(same);
        }
        let is_part = matches!(
            status,
            StatusCode::NOT_MODIFIED
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::RANGE_NOT_SATISFIABLE
        );
        if same.is_some() || is_part || self.is_no_word() {
            self.shown = None;
        }
        if is_part {
            // It answers the reader's own condition, not the request for the whole.
            self.leader = None;
        }
        let receipt = self.shadow.reads.receipt(&self.reading);
        let refusal = self
            .leader
            .as_ref()
            .and_then(|leader| leader.refusal(status, headers, length, &receipt));
        if let Some(refusal) = refusal
            && let Some(leader) = self.leader.take()
        {
            leader.refuse(refusal, status, self.shadow.clock.now());
        }
        let has_more = self.shown.is_some() || self.leader.is_some();
        (has_more.then_some(self), same)
    }

    /// Returns whether the response equals the stored one, if its head decides that.
    fn same_by_head(&self) -> Option<bool> {
        let shown = self.shown.as_ref()?;
        match self.status {
            _ if self.is_no_word() => None,
            StatusCode::NOT_MODIFIED => {
                let (asked, stored) = (&self.reading.context.headers, shown.shared_headers());
                let received = shown.received();
                Some(conditional::is_not_modified(asked, &stored, received))
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => None,
            status if status != shown.status() => Some(false),
            // The messages of errors may name the request, so they are not compared.
            status if status.as_u16() >= 400 => Some(true),
            _ => None,
        }
    }

    /// Judges the complete response. Returns whether it equals the stored one, if there is one to
    /// compare.
    pub(super) fn whole(mut self: Box<Self>, body: &Bytes) -> Option<bool> {
        let most = self.shadow.settings.get().largest_stored;
        let same = self.shown.take().and_then(|shown| {
            let stored = (shown.body(), shown.coding());
            is_same_body(stored, &self.headers, body, most)
        });
        if let Some(same) = same {
            self.tell(same);
        }
        if let Some(leader) = self.leader.take() {
            let answer = ReceivedResponse {
                status: self.status,
                headers: &self.headers,
                body,
            };
            leader.finish(&answer, &self.shadow.reads.receipt(&self.reading));
        }
        same
    }

    /// Ends the judgement of a response that is too large to be stored.
    pub(super) fn too_long(mut self: Box<Self>) {
        if let Some(leader) = self.leader.take() {
            let why = StoreRefusal::TooLarge;
            leader.refuse(why, self.status, self.shadow.clock.now());
        }
    }

    /// Returns whether the response says nothing about the data: a failure, or a page of something
    /// in front of the API. A 304 has no content, so its media type means nothing.
    fn is_no_word(&self) -> bool {
        let has_content = self.status != StatusCode::NOT_MODIFIED;
        let is_page = MediaType::of(&self.headers) == MediaType::Other;
        self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status.is_server_error()
            || is_page && has_content && !self.reading.rules.any_media_type
    }

    fn tell(&self, same: bool) {
        let context = &self.reading.context;
        let name = &context.operation.name;
        self.shadow.metrics.compared(name, compared(same));
        if !same {
            tracing::info!(
                operation = &**name,
                credential = %context.credential,
                key = %self.reading.at.primary.hash(),
                request_id = context.ids.request(),
                trace_id = context.ids.trace(),
                "a would-be cache hit differs from the API's response"
            );
        }
    }
}
