//! Pure. The names in a client certificate: URIs, such as SPIFFE IDs, and DNS names.
//!
//! The certificate has been verified before: it is of an authority that the operator trusts, and
//! its owner has proved that it has the key. What the names mean is not decided here.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The most names of a certificate that are looked at. Real ones have one or two.
const MOST: usize = 32;

/// Returns the URIs and the DNS names, these in lower case, of the alternative names of a
/// certificate (RFC 5280, section 4.2.1.6). Names with a wildcard stand for nobody and are left
/// out, and so is the common name, which has no defined meaning.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Vec<Box<str>> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris = certificate.valid_uri_names().map(Box::from);
    let dns = certificate.valid_dns_names();
    let dns = dns.filter(|name| !name.contains('*'));
    let dns = dns.map(|name| name.to_ascii_lowercase().into_boxed_str());
    uris.chain(dns).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    #[test]
    fn the_alternative_names_of_a_certificate_name_its_owner() {
        let names = |alternative: Vec<SanType>| {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.subject_alt_names = alternative;
            let key = KeyPair::generate().unwrap();
            of(params.self_signed(&key).unwrap().der())
        };
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        let spiffe = "spiffe://example.org/ns/hr/sa/sync";
        let found = names(vec![
            dns("HR.example.org"),
            uri(spiffe),
            dns("*.example.org"),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name("hr@example.org".try_into().unwrap()),
        ]);
        let found: Vec<&str> = found.iter().map(|name| &**name).collect();
        assert_eq!(found, [spiffe, "hr.example.org"]);
        assert!(names(Vec::new()).is_empty());
        let many = (0..100).map(|n| dns(&format!("n{n}.example.org")));
        assert_eq!(names(many.collect()).len(), MOST);
        assert!(of(&CertificateDer::from(vec![1, 2, 3])).is_empty());
    }
}
