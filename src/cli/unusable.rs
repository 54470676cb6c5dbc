//! Checks that only using a value can make: the URL, certificates, keys, tokens, proxies. `serve`,
//! a reload and `check` share them, so that none rejects what another accepts.

use crate::clock::Clock;
use crate::config::{self, Config, Unusable, ValueSource, units};
use crate::journal::SealingKey;
use crate::upstream::{self, Base, ProxyRules, ProxyVariables};
use crate::{app, state};
use std::path::Path;

const ADMIN_TOKEN: &str = "SEGMENT_GATEWAY_ADMIN_TOKEN";
const JOURNAL_KEY: &str = "SEGMENT_GATEWAY_JOURNAL_KEY";

/// Returns the values that are well-formed and cannot be used.
pub(super) fn unusable_values(config: &Config) -> Vec<Unusable> {
    let upstream = &config.upstream;
    let mut found = Vec::new();
    let mut add = |source, text, expected| found.push(Unusable::new(source, text, expected));
    let shown = |path: &Path| units::quoted(&path.display().to_string());
    if let Err(error) = Base::parse(&upstream.url) {
        let text = format!("{} ({error})", units::quoted(&upstream.url));
        let expected = "scheme, host and perhaps a port, such as `https://api.segmentapis.com`";
        add(ValueSource::Key("upstream.url"), text, expected);
    }
    if let Some(path) = &upstream.ca_file
        && let Err(error) = upstream::check_ca_file(path)
    {
        let text = format!("{} ({})", shown(path), app::causes(&error));
        let expected = "a readable file of PEM certificates";
        add(ValueSource::Key("upstream.ca_file"), text, expected);
    }
    if let Some(path) = &config.credentials.key_file
        && let Err(error) = state::key_file(path)
    {
        let text = format!("{} ({error})", shown(path));
        let expected = "a readable file of 16 bytes or more";
        add(ValueSource::Key("credentials.key_file"), text, expected);
    }
    let [https, http, no] = config::proxy_environment();
    for (https, http, name) in [(&*https, "", "HTTPS_PROXY"), ("", &*http, "HTTP_PROXY")] {
        let variables = ProxyVariables {
            https,
            http,
            no: &no,
        };
        if let Err(error) = ProxyRules::parse(variables) {
            // Its value may hold a password.
            let text = format!("a value that cannot be used ({error})");
            add(ValueSource::Variable(name), text, "`http://host:port`");
        }
    }
    if let Some(collector) = app::collector(config)
        && let Err(error) = collector.address()
    {
        let text = if collector.endpoint.contains('@') {
            "a URL with user information".to_owned()
        } else {
            format!("{} ({error})", units::quoted(&collector.endpoint))
        };
        let expected = "the address of a collector, such as `http://127.0.0.1:4318`";
        add(ValueSource::Key("tracing.otlp_endpoint"), text, expected);
    }
    if let Some(path) = &config.tracing.ca_file
        && let Err(error) = upstream::check_ca_file(path)
    {
        let text = format!("{} ({})", shown(path), app::causes(&error));
        let expected = "a readable file of PEM certificates";
        add(ValueSource::Key("tracing.ca_file"), text, expected);
    }
    let now = Clock::system().wall();
    found.extend(app::unusable_certificates(config, now));
    found.extend(app::unusable_audit_log(config));
    found.extend(given_twice(config));
    found.extend(journal_key(config).err());
    found.extend(operators_token(config).err());
    found
}

/// Returns the secrets that both a file and the environment give: one would be ignored.
fn given_twice(config: &Config) -> impl Iterator<Item = Unusable> {
    let token = config::admin_token_environment().is_some();
    let key = config::journal_key_environment().is_some();
    let secrets = [
        (
            ADMIN_TOKEN,
            token,
            "admin.token_file",
            &config.admin.token_file,
        ),
        (
            JOURNAL_KEY,
            key,
            "journal.key_file",
            &config.journal.key_file,
        ),
    ];
    let twice = secrets.map(|(variable, is_set, key, file)| {
        (is_set && file.is_some()).then(|| {
            let found = format!("a value beside {key}");
            Unusable::new(ValueSource::Variable(variable), found, "one of the two")
        })
    });
    twice.into_iter().flatten()
}

/// Checks the key of the journal, if one is configured.
fn journal_key(config: &Config) -> Result<(), Unusable> {
    let (source, made) = match (&config.journal.key_file, config::journal_key_environment()) {
        (Some(path), _) => (
            ValueSource::Key("journal.key_file"),
            SealingKey::from_file(path),
        ),
        (None, Some(secret)) => (
            ValueSource::Variable(JOURNAL_KEY),
            SealingKey::from_secret(secret.as_encoded_bytes()),
        ),
        (None, None) => return Ok(()),
    };
    made.map(drop).map_err(|error| {
        let found = format!("a key that cannot be used ({error})");
        let expected = "16 bytes or more, in a readable file or in the variable";
        Unusable::new(source, found, expected)
    })
}

/// Checks that the admin token is one, and that others do not reach an admin listener without any
/// protection.
fn operators_token(config: &Config) -> Result<(), Unusable> {
    let admin = &config.admin;
    let token = app::admin_token(config).map_err(|found| Unusable {
        source: match admin.token_file {
            Some(_) => ValueSource::Key("admin.token_file"),
            None => ValueSource::Variable(ADMIN_TOKEN),
        },
        found,
        expected: "16 to 1024 printable characters without spaces".to_owned(),
    })?;
    if config::is_loopback(admin.listen) || token.is_some() || admin.public || admin.open {
        return Ok(());
    }
    Err(Unusable {
        source: ValueSource::Key("admin.listen"),
        found: format!("{}, which other machines reach, and no token", admin.listen),
        expected: "a loopback address such as 127.0.0.1:8081; or a token, in admin.token_file (or \
                   SEGMENT_GATEWAY_ADMIN_TOKEN), for whoever has it; or admin.public = true for \
                   probes and metrics alone"
            .to_owned(),
    })
}
