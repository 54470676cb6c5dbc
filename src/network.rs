//! Pure. IP networks in CIDR form (RFC 4632, section 3.1; RFC 4291, section 2.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network of IPv4 or IPv6 addresses, e.g. `127.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The expectation, for error messages.
pub const NETWORK: &str = "networks such as `10.0.0.0/8`, `::1/128` or a single address, with no bits set behind the prefix";

impl Network {
    /// Returns whether the address is in the network. An IPv4 address mapped into IPv6
    /// (`::ffff:10.0.0.1`, as a dual-stack socket shows it) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && masked(address, self.prefix) == bits(self.address)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        // Addresses are compared in canonical form, so a mapped one would never match.
        if address != address.to_canonical() {
            return Err(());
        }
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
            None => width(address),
        };
        if prefix > width(address) || masked(address, prefix) != bits(address) {
            return Err(());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Returns the address with all bits behind the prefix cleared.
fn masked(address: IpAddr, prefix: u8) -> u128 {
    let behind = u32::from(width(address).saturating_sub(prefix));
    let bits = bits(address);
    bits.checked_shr(behind)
        .and_then(|kept| kept.checked_shl(behind))
        .unwrap_or(0)
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
