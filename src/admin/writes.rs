//! `/writes` on the admin listener, for `segment-gateway writes`.

use super::{Admin, document, text};
use crate::error::GatewayError;
use crate::exchange::body::OuterBody;
use crate::journal::State;
use crate::write::durable::{Listing, Selection};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The header with the new token of a credential's writes, as a caller sends it in `Authorization`,
/// which has the operator's own here.
const NEW_TOKEN: &str = "x-gateway-new-authorization";
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 1_000;
const NO_STATE: &str = "There is no such state; a write is queued, dispatched, succeeded, failed, \
    unknown or cancelled";

impl Admin {
    /// Answers a request below `/writes`.
    pub(super) async fn writes(&self, request: &Request<()>) -> Response<OuterBody> {
        let (method, query) = (request.method(), request.uri().query());
        let rest = request
            .uri()
            .path()
            .strip_prefix("/writes")
            .unwrap_or_default();
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let answer = match (method, rest) {
            (&Method::GET, "") => self.list(query).await,
            (&Method::POST, "pause") => self.turn(query, true).await,
            (&Method::POST, "resume") => self.turn(query, false).await,
            (&Method::POST, "rebind") => self.rebind(query, request.headers()).await,
            (&Method::GET, id) => match id.parse() {
                Ok(id) => self.gateway.writes().operators_show(id).await,
                Err(_) => Err(GatewayError::NotFound),
            },
            (&Method::DELETE, id) => match id.parse() {
                Ok(id) => self.gateway.writes().operators_cancel(id).await,
                Err(_) => Err(GatewayError::NotFound),
            },
            _ => return text(StatusCode::METHOD_NOT_ALLOWED, "no such method here\n"),
        };
        match answer {
            Ok(answer) => document(StatusCode::OK, &answer),
            Err(error) => refused(&error),
        }
    }

    async fn list(&self, query: Option<&str>) -> Result<Value, GatewayError> {
        let mut given = parameters(
            query,
            &["state", "credential", "operation", "after", "limit"],
        )?;
        let mut listing = Listing {
            credential: given.remove("credential"),
            operation: given.remove("operation").map(Into::into),
            state: None,
            after: None,
            limit: PAGE,
        };
        if let Some(name) = given.remove("state") {
            let mut states = State::ALL.into_iter();
            let state = states.find(|state| state.as_str() == name);
            listing.state = Some(state.ok_or(GatewayError::BadRequest(NO_STATE))?);
        }
        if let Some(id) = given.remove("after") {
            let id = id.parse();
            let wrong = GatewayError::BadRequest("`after` is not the id of a write");
            listing.after = Some(id.map_err(|_| wrong)?);
        }
        if let Some(limit) = given.remove("limit") {
            let limit = limit.parse().ok();
            let limit = limit.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
            listing.limit = limit.ok_or(GatewayError::BadRequest(
                "`limit` is not a number from 1 to 1000",
            ))?;
        }
        self.gateway.writes().operators_list(&listing).await
    }

    async fn turn(&self, query: Option<&str>, pause: bool) -> Result<Value, GatewayError> {
        let mut given = parameters(query, &["credential", "operation"])?;
        let selection = Selection {
            credential: given.remove("credential"),
            operation: given.remove("operation").map(Into::into),
        };
        let changed = if pause {
            self.gateway.writes().operators_pause(&selection)?
        } else {
            self.gateway.writes().operators_resume(&selection).await?
        };
        Ok(json!({ "paused": pause, "changed": changed }))
    }

    /// Rebinds writes. The new token is in a header, because addresses are logged.
    async fn rebind(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Value, GatewayError> {
        let mut given = parameters(query, &["credential", "unchecked"])?;
        let credential = given.remove("credential");
        let credential = credential.ok_or(GatewayError::BadRequest("Give `credential`"))?;
        let unchecked = match given.remove("unchecked").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(GatewayError::BadRequest(
                    "`unchecked` is neither true nor false",
                ));
            }
        };
        let mut tokens = headers.get_all(NEW_TOKEN).iter();
        let token = tokens.next();
        if tokens.next().is_some() {
            return Err(GatewayError::BadRequest("There is more than one new token"));
        }
        self.gateway
            .writes()
            .operators_rebind(&credential, token, unchecked)
            .await
    }
}

/// Returns the decoded parameters of a query. Only `known` ones are accepted.
pub(super) fn parameters(
    query: Option<&str>,
    known: &[&str],
) -> Result<BTreeMap<String, String>, GatewayError> {
    let mut given = BTreeMap::new();
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) {
            return Err(GatewayError::BadRequest(
                "The query has a parameter that is not known here",
            ));
        }
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| GatewayError::BadRequest("A parameter is not UTF-8"))?;
        if given.insert(name.to_owned(), value.into_owned()).is_some() {
            return Err(GatewayError::BadRequest("A parameter is given twice"));
        }
    }
    Ok(given)
}

pub(super) fn refused(error: &GatewayError) -> Response<OuterBody> {
    let message = match error {
        GatewayError::NotFound => "There is no such write".to_owned(),
        // Nothing of what operators ask for is sent to the API.
        GatewayError::BadRequest(why) => format!("{why}."),
        other => other.message(),
    };
    let facts = error.facts();
    let answer = json!({ "error": facts.kind, "message": message });
    document(facts.status, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_names_another_state_hears_of_all() {
        for state in State::ALL {
            assert!(NO_STATE.contains(state.as_str()), "{state:?}");
        }
    }
}
