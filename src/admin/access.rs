//! Pure. Access to the admin listener: who may do what.
//!
//! The checks, in this order:
//!
//! 1. The request is meant for this listener: its `Host` is known, and no page of another site made
//!    it.
//! 2. A request that changes something says so in a header that browsers do not send across sites.
//! 3. The client may see the page.
//!
//! If only this machine reaches the listener, its peers may do everything; with a token configured,
//! they may read only probes and metrics without it. If others reach the listener, a peer on
//! loopback is like any other, because it may be a proxy, a sidecar or a forwarded port. `public`
//! then opens probes and metrics, the token opens everything, and `open` opens everything without
//! one. A client of the socket in the state directory is the user of the gateway, or root, and may
//! do everything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The header of requests that change something. A browser does not send it for another site.
pub const HEADER: HeaderName = HeaderName::from_static("x-gateway-admin");
/// The pages of probes and scrapers.
const PROBES: [&str; 3] = ["/metrics", "/livez", "/readyz"];
/// The bounds of a token, in bytes. A shorter one could be guessed.
pub const SHORTEST_TOKEN: usize = 16;
const LONGEST_TOKEN: usize = 1_024;

/// The admin token, kept as its hash. Nothing shows the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Returns the token of 16 to 1024 printable ASCII characters without spaces. An end of line
    /// behind it is not part of it.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let secret = secret.trim_ascii_end();
        let is_fit = (SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&secret.len())
            && secret.iter().all(u8::is_ascii_graphic);
        is_fit.then(|| Self::hashed(secret))
    }

    fn hashed(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Returns whether the headers have the token: as a bearer token (RFC 6750, section 2.1), or as
    /// the password of any user (RFC 7617), which is how a browser sends it. The time that this
    /// takes does not depend on how much of a wrong token is right.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return false;
        };
        let Some((scheme, value)) = field.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        let given = if scheme.eq_ignore_ascii_case("bearer") {
            Self::hashed(value.trim().as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(value.trim()).unwrap_or_default();
            let password = pair.splitn(2, |byte| *byte == b':').nth(1);
            Self::hashed(password.unwrap_or_default())
        } else {
            return false;
        };
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &given.0).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPeer {
    /// A client at this address.
    Address(IpAddr),
    /// The user of the gateway, through the socket in the state directory.
    Socket,
}

impl From<SocketAddr> for AdminPeer {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address.ip())
    }
}

/// The access rules in effect.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether only this machine reaches the listener, so that its peers are operators without a
    /// token.
    pub loopback: bool,
    /// Whether probes and metrics are open beyond loopback.
    pub public: bool,
    /// Whether everything is open to every client, without a token.
    pub open: bool,
    /// The token that opens everything.
    pub token: Option<Token>,
    /// Names accepted in `Host`, besides loopback names and IP addresses.
    pub hosts: Vec<String>,
}

/// The reason for which a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// `Host` is not a name of this listener.
    Host,
    /// A page of another site made the request.
    Origin,
    /// The request changes something and lacks [`HEADER`].
    Header,
    /// The address of the peer may not ask this.
    Address,
    /// The address may read probes and metrics alone, and no token is configured.
    Closed,
    /// The token is missing.
    NoToken,
    /// The token is wrong.
    WrongToken,
    /// The token is wrong, soon after another wrong one.
    Paused,
}

impl Denied {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Host,
        Self::Origin,
        Self::Header,
        Self::Address,
        Self::Closed,
        Self::NoToken,
        Self::WrongToken,
        Self::Paused,
    ];

    /// Returns the label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Header => "header",
            Self::Address | Self::Closed => "address",
            Self::NoToken => "no-token",
            Self::WrongToken => "wrong-token",
            Self::Paused => "paused",
        }
    }

    /// Returns the message for the client: what to do.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Host => "this Host is not accepted; add it to admin.hosts\n",
            Self::Origin => "requests of other sites are not accepted\n",
            Self::Header => {
                "what changes something needs the header X-Gateway-Admin. This is the listener of \
                 operators; callers of the API use the one that `listen` names\n"
            }
            Self::Address => {
                "not open to this address; admin.token_file opens it to clients with the token, \
                 admin.public opens probes and metrics alone\n"
            }
            Self::Closed => {
                "probes and metrics alone are open to this address; admin.token_file opens the \
                 rest to clients with the token, and `segment-gateway` on the machine of the gateway \
                 asks through admin.sock in its state directory\n"
            }
            Self::NoToken => {
                "this needs the admin token: as `Authorization: Bearer`, or as the password in a \
                 browser, with any name\n"
            }
            Self::WrongToken => "this is not the admin token\n",
            Self::Paused => {
                "wrong admin token, twice in a row from this address; the right one is accepted at \
                 once\n"
            }
        }
    }

    /// Returns the status code of the rejection.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Paused => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

impl Access {
    /// Checks whether a request of this peer is answered. `is_paused` says that a token of this
    /// peer was wrong a moment ago. The right token is accepted all the same, or one client with an
    /// old token would lock out all that share its address.
    ///
    /// # Errors
    /// With the first reason for a rejection.
    pub fn admit<B>(
        &self,
        request: &Request<B>,
        peer: AdminPeer,
        is_paused: bool,
    ) -> Result<(), Denied> {
        // No browser uses the socket.
        let AdminPeer::Address(peer) = peer else {
            return Ok(());
        };
        let headers = request.headers();
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().filter(|_| hosts.next().is_none());
        let host = host.and_then(|host| host.to_str().ok());
        if !host.is_some_and(|host| self.knows(host)) {
            return Err(Denied::Host);
        }
        let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
            let own = origin.to_str().ok().and_then(|o| o.split_once("://"));
            own.map(|(_, host)| host) != host
        });
        if foreign {
            return Err(Denied::Origin);
        }
        if !request.method().is_safe() && !headers.contains_key(HEADER) {
            return Err(Denied::Header);
        }
        let local = self.loopback && is_of_this_machine(peer);
        let probe = PROBES.contains(&request.uri().path());
        let near = self.loopback && peer.to_canonical().is_loopback();
        if self.open || probe && (near || self.public) {
            return Ok(());
        }
        match &self.token {
            Some(_) if !headers.contains_key(header::AUTHORIZATION) => Err(Denied::NoToken),
            Some(token) if token.is_in(headers) => Ok(()),
            Some(_) if is_paused => Err(Denied::Paused),
            Some(_) => Err(Denied::WrongToken),
            None if local => Ok(()),
            None if self.public => Err(Denied::Closed),
            None => Err(Denied::Address),
        }
    }

    /// Returns who may do what, as a sentence for the log.
    pub fn summary(&self) -> &'static str {
        match (self.open, &self.token, self.loopback, self.public) {
            (true, ..) => "anyone who can connect may do everything",
            (_, Some(_), _, true) => {
                "clients with the admin token may do everything, anyone may read probes and metrics"
            }
            (_, Some(_), true, false) => {
                "clients with the admin token may do everything, this machine may read probes and \
                 metrics"
            }
            (_, Some(_), false, false) => "clients with the admin token may do everything",
            (_, None, true, _) => "anyone on this machine may do everything",
            (_, None, false, true) => "anyone may read probes and metrics",
            (_, None, false, false) => "nobody may do anything",
        }
    }

    /// Returns whether the listener has this name: a loopback name, an IP address or a configured
    /// one, with or without a port.
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let mut hosts = self.hosts.iter();
        name.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok()
            || hosts.any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Returns whether a peer is a program on this machine that speaks for itself. Programs have these
/// two addresses; sidecars of a mesh pass requests of other machines on from other ones of
/// 127.0.0.0/8.
fn is_of_this_machine(peer: IpAddr) -> bool {
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].contains(&peer.to_canonical())
}

#[cfg(test)]
mod tests;
