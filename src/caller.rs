//! Pure. The caller of a request: whom quotas, turns, shares and bounds are counted for.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The unit by which callers are told apart: the client, where a key or a certificate names one,
/// and the peer's address otherwise.
///
/// A client is one principal from however many addresses it connects, and two clients behind one
/// proxy are two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// The address of the connection.
    Peer(IpAddr),
    /// The name of a client, as the file of clients has it.
    Client(Arc<str>),
}

impl Principal {
    /// Returns the name of the client, if one is known.
    pub fn client(&self) -> Option<&Arc<str>> {
        match self {
            Self::Client(name) => Some(name),
            Self::Peer(_) => None,
        }
    }

    /// Returns the address, unless a client is known.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Peer(address) => Some(*address),
            Self::Client(_) => None,
        }
    }
}

impl From<IpAddr> for Principal {
    /// Returns the principal of an address. An IPv4 address has one form.
    fn from(address: IpAddr) -> Self {
        Self::Peer(address.to_canonical())
    }
}

impl fmt::Display for Principal {
    /// Writes the address or the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::Client(name) => f.write_str(name),
        }
    }
}

/// The caller of a request: a principal, divided by a name that a trusted peer may give.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Whom the request is counted for.
    pub principal: Principal,
    /// From `X-Gateway-Caller`: at most 64 printable ASCII bytes.
    pub name: Option<Arc<str>>,
}
