//! `/clients` on the admin listener, for `segment-gateway clients revoke`.

use super::writes::{parameters, refused};
use super::{Admin, document, text};
use crate::audit::AUDIT;
use crate::error::GatewayError;
use crate::exchange::body::OuterBody;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

impl Admin {
    /// Answers a request below `/clients`.
    pub(super) async fn clients(&self, request: &Request<()>) -> Response<OuterBody> {
        let (method, uri) = (request.method(), request.uri());
        let done = match (method, uri.path()) {
            (&Method::POST, "/clients/revoke") => self.revoke(uri.query()).await,
            _ => {
                return text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "there is POST /clients/revoke?client=…\n",
                );
            }
        };
        match done {
            Ok(done) => document(StatusCode::OK, &done),
            Err(error) => refused(&error),
        }
    }

    async fn revoke(&self, query: Option<&str>) -> Result<Value, GatewayError> {
        let given = parameters(query, &["client", "keepWrites"])?;
        let client = given.get("client");
        let client = client.ok_or(GatewayError::BadRequest("Give a client by its name"))?;
        let keeps_writes = match given.get("keepWrites").map(String::as_str) {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => return Err(GatewayError::BadRequest("keepWrites is true or false")),
        };
        let revoked = self.gateway.revoke_client(client, keeps_writes).await?;
        tracing::warn!(
            target: AUDIT,
            client, revoked = revoked.names, cancelled = revoked.writes,
            "client revoked by an operator"
        );
        Ok(json!({
            "client": client,
            "revoked": revoked.names,
            "cancelledWrites": revoked.writes,
        }))
    }
}
