//! Pure. What must hold between the keys of TLS.
//!
//! A listener never gets less than was asked for: half of a pair, or client certificates without
//! their authorities, are problems and not taken for nothing. What is in the files is not known
//! here.

use super::Check;
use crate::config::keys::Config;
use crate::config::words::ClientAuth;

impl Check<'_> {
    /// Certificates with keys, and authorities where clients are asked for a certificate.
    pub(super) fn tls(&mut self, config: &Config) {
        let (callers, admin) = (&config.tls, &config.admin.tls);
        let names = |section: &str| {
            [
                "certificate_file",
                "key_file",
                "client_auth",
                "client_ca_file",
            ]
            .map(|key| format!("{section}.{key}"))
        };
        for (keys, certificate, key, auth, ca) in [
            (
                names("tls"),
                callers.certificate_file.is_some(),
                callers.key_file.is_some(),
                callers.client_auth,
                callers.client_ca_file.is_some(),
            ),
            (
                names("admin.tls"),
                admin.certificate_file.is_some(),
                admin.key_file.is_some(),
                admin.client_auth,
                admin.client_ca_file.is_some(),
            ),
        ] {
            let [certificate_key, key_key, auth_key, ca_key] = keys.each_ref().map(String::as_str);
            if certificate != key {
                let found = match certificate {
                    true => format!("{certificate_key} without {key_key}"),
                    false => format!("{key_key} without {certificate_key}"),
                };
                self.add(&[certificate_key, key_key], found, "both files, or neither");
            }
            // Without a certificate of its own a listener asks nobody for one. An operator who has
            // written this believes that strangers are rejected.
            let asks = auth != ClientAuth::None;
            if asks && !certificate {
                let found = format!("{:?} without {certificate_key}", auth.as_str());
                let expected = "a listener with TLS where clients have certificates";
                self.add(&[auth_key], found, expected);
            }
            if asks && !ca {
                let found = format!("{:?} without {ca_key}", auth.as_str());
                let expected = "the certificates of the authorities of clients";
                self.add(&[auth_key], found, expected);
            }
            if ca && !asks {
                let found = format!("a file, and {auth_key} is \"none\"");
                let expected = "\"optional\" or \"required\" beside it, or no file";
                self.add(&[ca_key], found, expected);
            }
        }
    }
}
