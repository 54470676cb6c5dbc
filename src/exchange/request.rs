//! A request once it has been understood, with all that the gateway needs to carry it out.

use crate::credential::{self, Credential};
use crate::exchange::body_memory::Taken;
use crate::exchange::edge;
use crate::exchange::ids::Ids;
use crate::exchange::timing::Progress;
use crate::limit::turns::{Caller, Urgency};
use crate::route::names;
use crate::route::pattern::Params;
use crate::route::policy::Operation;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The address of the connection, put into the request by the server.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Put into the request by the server where its framing could be read in two ways.
#[derive(Clone, Copy, Debug)]
pub struct AmbiguousFraming;

/// What a caller asks for, with all that the gateway needs to carry it out.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) operation: Arc<Operation>,
    pub(crate) params: Params,
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the body takes of the memory of all bodies.
    pub(crate) room: Option<Arc<Taken>>,
    /// How far it has come, for those who tell about it.
    pub(crate) progress: Arc<Progress>,
    /// What names it.
    pub(crate) ids: Ids,
    pub(crate) credential: Credential,
    pub(crate) caller: Caller,
    pub(crate) accepted: Instant,
    /// How long it may wait for its budget.
    pub(crate) patience: Duration,
    /// Among those of its caller that wait for the same budget.
    pub(crate) urgency: Urgency,
    /// A field asks the API to treat it as another method.
    pub(crate) overridden: bool,
}

impl Ask {
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.query()
    }

    pub(crate) fn document(&self) -> names::Body<'_> {
        names::Body::new(&self.body)
    }

    /// Whether it names no credential, although its operation is for nobody without one.
    pub(crate) fn lacks_credential(&self) -> bool {
        self.operation.needs_credential() && !credential::is_named(&self.headers)
    }

    /// Bytes kept while it waits, roughly.
    pub(crate) fn weight(&self) -> usize {
        let fields: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        self.body.len() + self.target.as_str().len() + fields + 512
    }

    /// The request as it goes to the API.
    pub(crate) fn forwarded(&self) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = edge::request_headers(&self.headers);
        request.extensions_mut().insert(self.ids.clone());
        request
    }
}
