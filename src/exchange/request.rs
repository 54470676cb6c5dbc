//! The request context: a request whose operation is known, with everything that carrying it out
//! needs.

use crate::caller::Caller;
use crate::clients::KeyId;
use crate::credential::{self, Credential};
use crate::exchange::edge;
use crate::exchange::ids::Ids;
use crate::exchange::progress::Progress;
use crate::exchange::share::Portion;
use crate::limit::turns::Urgency;
use crate::route::names;
use crate::route::pattern::PathParams;
use crate::route::policy::Operation;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest method shown in the log, in bytes.
const LONGEST_METHOD: usize = 32;

/// The address of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A mark that the server adds to a request whose framing can be read in two ways.
#[derive(Clone, Copy, Debug)]
pub struct AmbiguousFraming;

/// The context of one request.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) operation: Arc<Operation>,
    pub(crate) params: PathParams,
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The memory reserved for the body.
    pub(crate) room: Option<Arc<Portion>>,
    /// The progress, for reports about the request.
    pub(crate) progress: Arc<Progress>,
    /// The ids for log and traces.
    pub(crate) ids: Ids,
    pub(crate) credential: Credential,
    /// The key by which its client is known.
    pub(crate) key: Option<KeyId>,
    /// Whether the gateway holds the token.
    pub(crate) is_held: bool,
    pub(crate) caller: Caller,
    /// The address that the request came from.
    pub(crate) peer: IpAddr,
    pub(crate) accepted: Instant,
    /// How long it may wait for its budget.
    pub(crate) patience: Duration,
    /// The rank among the requests of the same caller that wait for the same budget.
    pub(crate) urgency: Urgency,
    /// Whether a header asks the API to treat it as another method.
    pub(crate) overridden: bool,
}

impl RequestContext {
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.query()
    }

    pub(crate) fn document(&self) -> names::JsonBody<'_> {
        names::JsonBody::new(&self.body)
    }

    /// Returns whether the request has no credential although its operation needs one.
    pub(crate) fn lacks_credential(&self) -> bool {
        self.operation.needs_credential() && !credential::is_named(&self.headers)
    }

    /// Returns roughly how many bytes the request occupies while it waits.
    pub(crate) fn weight(&self) -> usize {
        let fields: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        self.body.len() + self.target.as_str().len() + fields + 512
    }

    /// Returns the request to send to the API.
    pub(crate) fn forwarded(&self) -> Request<Bytes> {
        self.forwarded_with(|_, _| true)
    }

    /// Returns the request to send to the API, with only those headers that are `kept`.
    pub(crate) fn forwarded_with(
        &self,
        kept: impl Fn(&HeaderName, &HeaderValue) -> bool,
    ) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = edge::request_headers(&self.headers, kept);
        request.extensions_mut().insert(self.ids.clone());
        request
    }
}

/// Returns a method shortened for the log. A caller can invent one as long as a whole head.
pub(crate) fn short(method: &Method) -> &str {
    let name = method.as_str();
    name.get(..LONGEST_METHOD).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_method_does_not_fill_the_log() {
        let long = "X".repeat(16 * 1024);
        let long = Method::from_bytes(long.as_bytes()).unwrap();
        assert_eq!(short(&long).len(), LONGEST_METHOD);
        assert_eq!(short(&Method::DELETE), "DELETE");
    }
}
