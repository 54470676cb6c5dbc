//! `/openapi.json` on the admin listener: the description, for programs, of every path and answer
//! of this listener, and of `/_gateway/writes` on the listener for callers.
//!
//! The description is a file that people edit. It decides nothing: a test asks for each path of it
//! and compares the answers.

use super::{Admin, respond};
use crate::exchange::body::OuterBody;
use http::header::HeaderValue;
use http::{Response, StatusCode};

const DESCRIPTION: &str = include_str!("openapi.json");

impl Admin {
    /// Returns the description.
    pub(super) fn description() -> Response<OuterBody> {
        let kind = HeaderValue::from_static("application/json");
        respond(StatusCode::OK, kind, DESCRIPTION)
    }
}
