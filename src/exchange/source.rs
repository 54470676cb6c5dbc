//! The source of a request: what is known of it before the operation is.
//!
//! The connection finds it out once. The request carries it through the layers as an extension, so
//! that one that a layer rejects is reported with its ids, and nothing is looked up again.

use crate::exchange::identity::{Admitted, CertificateNames};
use crate::exchange::ids::Ids;
use crate::exchange::request::Peer;
use crate::exchange::request_id::{self, REQUEST_ID, RequestIds};
use crate::trace::Tracer;
use http::{Method, Request, Version};

/// The source of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestSource {
    pub(crate) method: Method,
    /// The version of HTTP that the caller speaks.
    pub(crate) version: Version,
    /// The ids under which logs and spans show the request.
    pub(crate) ids: Ids,
    /// The address of the connection, unless the request came from within.
    pub(crate) peer: Option<Peer>,
    /// The sender, if the connection knows it.
    pub(crate) admitted: Option<Admitted>,
    /// The names in the client certificate of the connection.
    pub(crate) certificate: CertificateNames,
}

impl RequestSource {
    /// Returns the source of a request from within.
    pub(crate) fn within<B>(request: &Request<B>, ids: Ids) -> Self {
        Self {
            method: request.method().clone(),
            version: request.version(),
            ids,
            peer: None,
            admitted: None,
            certificate: CertificateNames::default(),
        }
    }

    /// Returns the source of a request that a connection has received, and settles its id.
    pub(crate) fn received<B>(
        request: &mut Request<B>,
        ids: &RequestIds,
        tracer: Option<&Tracer>,
    ) -> Self {
        let id = request_id::settle(request.headers_mut(), ids);
        let ids = Ids::new(Some(id), request.headers(), tracer);
        Self::within(request, ids)
    }

    /// Takes the source out of a request that a connection received. Any other request is from
    /// within. `tracer` exports its spans.
    pub(crate) fn take<B>(request: &mut Request<B>, tracer: Option<&Tracer>) -> Self {
        let known = request.extensions_mut().remove();
        known.unwrap_or_else(|| {
            let headers = request.headers();
            let id = headers.get(REQUEST_ID).cloned();
            Self::within(request, Ids::new(id, headers, tracer))
        })
    }
}
