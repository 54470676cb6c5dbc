//! Pure. The base URL of the API: a scheme and an authority, checked once.
//!
//! Promises that every request goes there, whatever `Host` a caller sent. A base with a path is
//! rejected: the paths of callers are forwarded byte for byte, and nothing is put before them.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use rustls::pki_types::ServerName;

/// Scheme and authority of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    scheme: Scheme,
    authority: Authority,
}

/// The reason why a text is not a [`Base`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseError {
    /// Not a URL at all.
    Malformed,
    /// Neither `https` nor `http`.
    Scheme,
    /// A user name or password before the host.
    UserInfo,
    /// The host is neither a name nor an address.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// A path, query or fragment after the authority.
    Path,
}

impl Base {
    /// Parses `https://host`, `https://host:port`, or the same with `http`. A single trailing slash
    /// is permitted.
    ///
    /// # Errors
    /// The first part of the text that is not acceptable.
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        if text.contains('#') {
            return Err(BaseError::Path);
        }
        let uri: Uri = text.trim().parse().map_err(|_| BaseError::Malformed)?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(BaseError::Malformed);
        };
        if scheme != Scheme::HTTPS && scheme != Scheme::HTTP {
            return Err(BaseError::Scheme);
        }
        if authority.as_str().contains('@') {
            return Err(BaseError::UserInfo);
        }
        if parts
            .path_and_query
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(BaseError::Path);
        }
        let base = Self { scheme, authority };
        base.check_port()?;
        base.server_name().ok_or(BaseError::Host)?;
        Ok(base)
    }

    /// Whether connections are encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The host, without port and without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host)
    }

    /// Whether the host is this machine: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_end_matches('.').to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// The URL of one request. `path` is taken unchanged.
    pub(super) fn join(&self, path: PathAndQuery) -> Option<Uri> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .ok()
    }

    /// The name for which the certificate of the API must be valid.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host().to_owned()).ok()
    }

    fn check_port(&self) -> Result<(), BaseError> {
        let after_host = self
            .authority
            .as_str()
            .strip_prefix(self.authority.host())
            .unwrap_or("");
        match (after_host.strip_prefix(':'), self.authority.port_u16()) {
            (None, _) => Ok(()),
            (Some(_), Some(port)) if port > 0 => Ok(()),
            (Some(_), _) => Err(BaseError::Port),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Display for BaseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "not a URL; expected for example https://api.segmentapis.com",
            Self::Scheme => "the scheme must be https (or http, for a sandbox)",
            Self::UserInfo => "a user name or password has no place here; callers send the token",
            Self::Host => "the host is neither a name nor an address",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::Path => "only scheme, host and port are allowed; remove the path or query",
        })
    }
}

impl std::error::Error for BaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_scheme_host_and_port() {
        for (text, shown, https, loopback) in [
            (
                "https://api.segmentapis.com",
                "https://api.segmentapis.com",
                true,
                false,
            ),
            (
                "https://eu1.api.segmentapis.com/",
                "https://eu1.api.segmentapis.com",
                true,
                false,
            ),
            (
                "http://127.0.0.1:8089",
                "http://127.0.0.1:8089",
                false,
                true,
            ),
            (
                "http://localhost:8089",
                "http://localhost:8089",
                false,
                true,
            ),
            ("https://[::1]:8443", "https://[::1]:8443", true, true),
            (" https://a.test ", "https://a.test", true, false),
        ] {
            let base = Base::parse(text).unwrap();
            assert_eq!(base.to_string(), shown);
            assert_eq!(
                (base.is_https(), base.is_loopback()),
                (https, loopback),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_everything_else_by_name() {
        for (text, error) in [
            ("", BaseError::Malformed),
            ("api.segmentapis.com", BaseError::Malformed),
            ("/users", BaseError::Malformed),
            ("https://", BaseError::Malformed),
            ("ftp://api.segmentapis.com", BaseError::Scheme),
            ("https://u:p@api.segmentapis.com", BaseError::UserInfo),
            ("https://api.segmentapis.com/v1", BaseError::Path),
            ("https://api.segmentapis.com?x=1", BaseError::Path),
            ("https://api.segmentapis.com#x", BaseError::Path),
            ("https://a.test:0", BaseError::Port),
            ("https://a.test:", BaseError::Port),
            ("https://a.test:99999", BaseError::Port),
            ("https://a~b", BaseError::Host),
        ] {
            assert_eq!(Base::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn paths_are_joined_byte_for_byte() {
        let base = Base::parse("https://a.test").unwrap();
        for path in ["/", "//x", "/a%2Fb/../c?x=%5B1%5D&&y", "/?", "/%zz", "*"] {
            let uri = base.join(path.parse().unwrap()).unwrap();
            assert_eq!(uri.path_and_query().unwrap().as_str(), path);
            assert_eq!(uri.authority().unwrap().as_str(), "a.test");
        }
    }
}
