//! `/log` on the admin listener: the level from which the gateway logs.

use super::writes::{parameters, refused};
use super::{Admin, document, text};
use crate::audit::AUDIT;
use crate::config::LogLevel;
use crate::error::GatewayError;
use crate::exchange::body::OuterBody;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

impl Admin {
    /// Answers a request for `/log`.
    pub(super) fn log_level(&self, request: &Request<()>) -> Response<OuterBody> {
        let done = match *request.method() {
            Method::GET => Ok(()),
            Method::POST => self.set_log_level(request.uri().query()),
            _ => {
                return text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "there are GET /log and POST /log?level=…\n",
                );
            }
        };
        match (done, &self.log) {
            (Err(error), _) => refused(&error),
            (Ok(()), Some(log)) => {
                document(StatusCode::OK, &json!({ "level": log.level().as_str() }))
            }
            (Ok(()), None) => text(
                StatusCode::NOT_FOUND,
                "this process has no log of its own\n",
            ),
        }
    }

    fn set_log_level(&self, query: Option<&str>) -> Result<(), GatewayError> {
        let given = parameters(query, &["level"])?;
        let level = given.get("level");
        let level = level.and_then(|level| LogLevel::named(level));
        let level = level.ok_or(GatewayError::BadRequest(
            "Give a level: one of error, warn, info, debug and trace",
        ))?;
        let Some(log) = &self.log else {
            return Ok(());
        };
        let before = log.level();
        if !log.set(level) {
            return Err(GatewayError::Internal);
        }
        self.gateway.set_debug(level.tells_of_requests());
        if before != level {
            // Under this target the new level does not hide it.
            tracing::info!(
                target: AUDIT,
                from = before.as_str(),
                to = level.as_str(),
                "log level changed by an operator"
            );
        }
        Ok(())
    }
}
