//! Pure. IP networks in CIDR form (RFC 4632, section 3.1; RFC 4291, section 2.3).

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network of IPv4 or IPv6 addresses, e.g. `127.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// The expectation, for error messages.
pub const NETWORK: &str = "networks such as `10.0.0.0/8`, `::1/128` or a single address, with no bits set behind the prefix";

impl Network {
    /// Returns whether the address is in the network. An IPv4 address mapped into IPv6
    /// (`::ffff:10.0.0.1`, as a dual-stack socket shows it) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let network: IpNet = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().map_err(|_| ())?,
        };
        // Addresses are compared in canonical form, so a mapped one would never match.
        let is_canonical = network.addr() == network.addr().to_canonical();
        let is_network = network == network.trunc();
        (is_canonical && is_network)
            .then_some(Self(network))
            .ok_or(())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks() {
        for (network, address, inside) in [
            ("127.0.0.0/8", "127.255.0.1", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "::1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "8.8.8.8", false),
            ("::1/128", "::1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("10.1.2.4/30", "10.1.2.7", true),
            ("10.1.2.4/30", "10.1.2.8", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn wrong_networks_are_refused() {
        for text in [
            "",
            "/",
            "127.0.0.0/",
            "127.0.0.0/33",
            "::/129",
            "127.0.0.1/8",
            "127.0.0.0/+8",
            "127.0.0.0/8/8",
            "127.0.0/8",
            "localhost",
            "::ffff:10.0.0.0/104",
            "127.0.0.0/256",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_shown_as_they_are_read() {
        for text in ["127.0.0.0/8", "::1/128", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }
}
