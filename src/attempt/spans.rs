//! The span of an attempt, and the trace headers sent to the API.

use crate::attempt::Attempts;
use crate::exchange::ids::Ids;
use crate::route::policy::Operation;
use crate::trace::{ERROR, STATUS, Span, SpanKind, Trail, attribute};
use crate::upstream::Attempt;
use http::header::HeaderMap;
use std::time::{Duration, Instant};

impl Attempts {
    /// Creates the place of an attempt and writes it into `headers`, if its request is traced.
    pub(crate) fn attempt_trail(&self, ids: &Ids, headers: &mut HeaderMap) -> Option<Trail> {
        let _ = self.tracer.as_ref()?;
        let place = ids.trail()?.below();
        place.put_into(headers);
        Some(place)
    }

    /// Writes the span of an attempt.
    pub(crate) fn report_attempt(
        &self,
        place: &Trail,
        operation: &Operation,
        attempt: &Attempt,
        (from, took): (Instant, Duration),
    ) {
        let Some(tracer) = &self.tracer else {
            return;
        };
        let mut attributes = vec![
            attribute("segment_gateway.operation", operation.name.to_string()),
            attribute("segment_gateway.budget", operation.budget.name.to_string()),
        ];
        let failed = match attempt {
            Attempt::Answered(response) => {
                let status = response.status();
                attributes.push(attribute(STATUS, i64::from(status.as_u16())));
                status.is_client_error() || status.is_server_error()
            }
            Attempt::NotSent(why) => {
                attributes.push(attribute(ERROR, why.as_str()));
                true
            }
            Attempt::Unknown(why) => {
                attributes.push(attribute(ERROR, why.as_str()));
                true
            }
        };
        tracer.export(Span {
            trail: place,
            name: "upstream".into(),
            kind: SpanKind::Client,
            from,
            to: from + took,
            failed,
            attributes,
        });
    }
}
