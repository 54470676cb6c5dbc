//! Reads files and the environment: the only place that does, for settings.
//!
//! Everything is read again with each call, so that a running program can load a changed file and
//! keep what it has if that one is wrong. Relative paths are taken from the working directory.
//!
//! The order: the file is parsed; `keys.rs` reads values over the defaults, the environment before
//! the file; `check.rs` compares keys; a probe tries values out; the route table is built. All
//! mistakes of all steps are reported together. Only a file that cannot be parsed ends it early.

use super::check::Places;
use super::clients::ClientsFile;
use super::file_text::text_of;
use super::keys::{self, Config};
use super::problem::{ConfigProblem, Place, sort};
use super::read::{Document, Environment, Findings, Flag, PREFIX, variables};
use super::units::Size;
use super::{check, clients, routes, units};
use crate::route::{OperationDef, Table};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The route table that is used unless `routes.file` names another.
pub const EMBEDDED_ROUTES: &str = include_str!("../../config/segment.toml");
/// The name of the embedded table in messages, where others have their path.
const EMBEDDED_NAME: &str = "segment.toml (embedded)";
/// The largest files that are read. A larger one is not a configuration.
const LARGEST_FILE: Size = Size::mib(16);
const LARGEST_CLIENTS_FILE: Size = Size::mib(1);

/// A configuration without problems, with the operations of its route table and its clients. It
/// can be loaded again at any time and has no connection to a running gateway.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Every value within its bounds.
    pub config: Config,
    /// The operations, in the order of the route table's file. A table was built from them.
    pub operations: Vec<OperationDef>,
    /// The clients; none where callers send tokens of their own.
    pub clients: ClientsFile,
    /// Sentences about what is allowed but probably not meant.
    pub warnings: Vec<String>,
    /// The place of each value that was written, by key.
    places: Places,
}

impl Loaded {
    /// Returns the problem of a value that turned out to be unusable, at the place where it was
    /// written.
    pub fn problem(&self, unusable: Unusable) -> ConfigProblem {
        placed(unusable, &self.places)
    }

    /// Returns a message about the value of a key, behind the place where it was written.
    pub fn at(&self, key: &str, message: impl fmt::Display) -> String {
        match self.places.get(key) {
            // A default has no place; the message names what it is about.
            Some(place) => format!("{place}: {message}"),
            None => message.to_string(),
        }
    }

    /// Returns the route table, with all windows divided by `time_scale`.
    ///
    /// # Errors
    /// Not expected: a table was built from these operations when they were loaded.
    pub fn table(&self, time_scale: u32) -> Result<Table, Vec<ConfigProblem>> {
        let built = Table::build(
            self.operations.clone(),
            self.config.routes.defaults(),
            time_scale,
        );
        let findings = Findings::default();
        built.map_err(|found| {
            found
                .into_iter()
                .map(|p| routes::placed(p, &findings))
                .collect()
        })
    }
}

/// A value that is well-formed and cannot be used all the same: a file that does not exist, an
/// address of another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Where the value comes from.
    pub source: ValueSource,
    /// The finding, as the message shows it.
    pub found: String,
    /// The expectation, as the message shows it.
    pub expected: String,
}

impl Unusable {
    /// Returns what is wrong with the value from `source`.
    pub fn new(source: ValueSource, found: String, expected: &str) -> Self {
        Self {
            source,
            found,
            expected: expected.to_owned(),
        }
    }
}

/// The origin of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A key of the configuration.
    Key(&'static str),
    /// An environment variable that stands for no key, such as one with a secret.
    Variable(&'static str),
}

/// Loads as [`load`] does, with flags over the environment, and tries the values out: what `probe`
/// finds to be unusable is reported with the rest.
pub fn load_usable(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[Flag],
    probe: impl Fn(&Config) -> Vec<Unusable>,
) -> Result<Loaded, Vec<ConfigProblem>> {
    let environment = Environment::new(env).with_flags(flags);
    load_with(path, &environment, &probe)
}

/// Loads the configuration from a file, or the defaults without one, with the environment laid over
/// it; then the route table. `Err` has every problem that could be found, in the order of the
/// configuration, the environment and the route table.
pub fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Vec<ConfigProblem>> {
    load_with(path, &Environment::new(env), &|_| Vec::new())
}

/// Loads everything, in the order that the module describes. `probe` is asked even if there are
/// problems already: what it says about sound values is worth reporting.
fn load_with(
    path: Option<&Path>,
    environment: &Environment,
    probe: &dyn Fn(&Config) -> Vec<Unusable>,
) -> Result<Loaded, Vec<ConfigProblem>> {
    // Without a file nothing is parsed, and every value comes from the environment or is a default.
    let text = path
        .map(|path| text_of(path, LARGEST_FILE))
        .transpose()
        .map_err(|problem| vec![problem])?;
    let name = path
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let document = text
        .as_deref()
        .map(|text| Document::parse(&name, text))
        .transpose();
    let document = document.map_err(|problem| vec![problem])?;
    let mut findings = Findings::default();
    // A value that is wrong leaves the default, so everything below sees a complete configuration.
    let mut config = keys::read(document.as_ref(), environment, &mut findings);
    let mut problems = std::mem::take(&mut findings.problems);
    problems.extend(check::problems(&config, &findings.places));
    for unusable in probe(&config) {
        let problem = placed(unusable, &findings.places);
        // One problem per key: a malformed value need not be reported as unusable too.
        if problem.key.is_empty() || problems.iter().all(|known| known.key != problem.key) {
            problems.push(problem);
        }
    }
    // Its problem is placed in this file, at the key that names the other one.
    let routes = match RouteText::read(&config) {
        Ok(routes) => Some(routes),
        Err(unreadable) => {
            problems.push(placed(unreadable, &findings.places));
            None
        }
    };
    // Before the problems of the route table are added: theirs are in the order of another file.
    sort(&mut problems);
    // The URL is joined with paths that begin with a slash.
    config
        .upstream
        .url
        .truncate(config.upstream.url.trim_end_matches('/').len());
    // Warnings are reported only if there is no problem.
    let mut warnings = check::warnings(&config, has_admin_token(&config));
    let operations = routes.map(|routes| operations(&config, &routes, &mut warnings));
    let operations = match operations {
        Some(Ok(operations)) => operations,
        Some(Err(found)) => {
            problems.extend(found);
            Vec::new()
        }
        // Reported above.
        None => Vec::new(),
    };
    // Last, because it names operations. Its problems are in the order of its own lines.
    let clients = clients_of(&config, &operations, &findings.places, &mut warnings);
    let clients = clients.unwrap_or_else(|found| {
        problems.extend(found);
        ClientsFile::default()
    });
    if problems.is_empty() {
        Ok(Loaded {
            config,
            operations,
            clients,
            warnings,
            places: findings.places,
        })
    } else {
        Err(problems)
    }
}

/// Returns a problem at the place where the unusable value was written.
fn placed(unusable: Unusable, places: &Places) -> ConfigProblem {
    let (place, key) = match unusable.source {
        ValueSource::Key(key) => (places.get(key).cloned(), key),
        ValueSource::Variable(name) => (Some(Place::Variable(name.to_owned())), ""),
    };
    ConfigProblem::new(place, key, unusable.found, unusable.expected)
}

/// Returns the variables of this process that concern the configuration, or look as if they did. A
/// value that is not UTF-8 gets replacement characters, so that the key that it sets rejects it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let value = value.to_string_lossy().into_owned();
        let concerns = name.starts_with(PREFIX) || variables::is_stranger(&name, &value);
        concerns.then_some((name, value))
    })
}

/// Returns the secret of the journal's key, if the environment has it.
pub fn journal_key_environment() -> Option<OsString> {
    std::env::var_os(variables::JOURNAL_KEY)
}

/// Returns the admin token, if the environment has it.
pub fn admin_token_environment() -> Option<OsString> {
    std::env::var_os(variables::ADMIN_TOKEN)
}

/// Returns whether a token opens the admin listener, from a file or from the environment.
pub fn has_admin_token(config: &Config) -> bool {
    config.admin.token_file.is_some() || admin_token_environment().is_some()
}

/// Returns the state directory that the environment names, for commands that read no configuration.
pub fn state_directory_environment() -> Option<PathBuf> {
    let named = std::env::var_os("SEGMENT_GATEWAY__STATE__DIRECTORY");
    named.filter(|named| !named.is_empty()).map(PathBuf::from)
}

/// Returns the customary proxy variables: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, each in upper
/// case or else in lower case, empty where unset.
pub fn proxy_environment() -> [String; 3] {
    ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"].map(|name| {
        // The lower case is the older custom; a variable that is set but empty is final.
        let value = std::env::var_os(name).or_else(|| std::env::var_os(name.to_lowercase()));
        value.map_or_else(String::new, |value| value.to_string_lossy().into_owned())
    })
}

/// The text of a route table, and its name in messages.
struct RouteText {
    name: String,
    text: String,
}

impl RouteText {
    /// Reads the file of the configuration, or takes the embedded table. A file that cannot be read
    /// is a mistake of the configuration that names it.
    fn read(config: &Config) -> Result<Self, Unusable> {
        let Some(path) = &config.routes.file else {
            return Ok(Self {
                name: EMBEDDED_NAME.to_owned(),
                text: EMBEDDED_ROUTES.to_owned(),
            });
        };
        let name = path.display().to_string();
        match text_of(path, LARGEST_FILE) {
            Ok(text) => Ok(Self { name, text }),
            // The path stands in the finding instead of the place.
            Err(problem) => {
                let found = format!("{} ({})", units::quoted(&name), problem.found);
                let source = ValueSource::Key("routes.file");
                Err(Unusable::new(source, found, &problem.expected))
            }
        }
    }
}

/// Reads a route table. Adds warnings about what an own table leaves out, and about tags that no
/// read has.
fn operations(
    config: &Config,
    routes: &RouteText,
    warnings: &mut Vec<String>,
) -> Result<Vec<OperationDef>, Vec<ConfigProblem>> {
    let name = &routes.name;
    let document = Document::parse(name, &routes.text).map_err(|problem| vec![problem])?;
    let mut findings = Findings::default();
    let operations = routes::read(&document, &mut findings);
    // Built even if values are wrong, so that all mistakes are reported at once.
    let mut problems = std::mem::take(&mut findings.problems);
    match Table::build(operations.clone(), config.routes.defaults(), 1) {
        Ok(table) if problems.is_empty() => {
            // The embedded table leaves nothing out, so only an own one is compared.
            let own = config.routes.file.as_ref();
            warnings.extend(own.and_then(|_| left_out(&operations)).map(|count| {
                format!(
                    "{name}: {count} operations of the API are left out. They have no limits, times \
                     or tags of their own, and their writes make every cached answer stale; \
                     `segment-gateway routes --toml` prints a table that has them all"
                )
            }));
            warnings.extend(table.unread_tags().into_iter().map(|(operation, tag)| {
                let tag = units::quoted(&tag);
                format!("{name}: operations.{operation}.writes: no cached operation reads {tag}")
            }));
            Ok(operations)
        }
        // A table that can be built from what is left, beside values that are wrong.
        Ok(_) => {
            sort(&mut problems);
            Err(problems)
        }
        Err(found) => {
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| routes::placed(problem, &findings)),
            );
            Err(problems)
        }
    }
}

/// Reads the file of clients, if the configuration names one. Adds warnings about what it leaves
/// unused. The names of operations in it are those of the route table that was loaded with it, not
/// of one in use.
fn clients_of(
    config: &Config,
    operations: &[OperationDef],
    places: &Places,
    warnings: &mut Vec<String>,
) -> Result<ClientsFile, Vec<ConfigProblem>> {
    let Some(path) = &config.callers.clients_file else {
        return Ok(ClientsFile::default());
    };
    let name = path.display().to_string();
    let text = text_of(path, LARGEST_CLIENTS_FILE).map_err(|problem| {
        // A mistake of the configuration that names the file.
        let found = format!("{} ({})", units::quoted(&name), problem.found);
        let source = ValueSource::Key("callers.clients_file");
        vec![placed(
            Unusable::new(source, found, &problem.expected),
            places,
        )]
    })?;
    let document = Document::parse(&name, &text).map_err(|problem| vec![problem])?;
    // Without a route table, whose mistakes are reported already, no operation is known or unknown.
    // Built again, because what follows needs the names only.
    let table = match operations {
        [] => None,
        some => Table::build(some.to_vec(), config.routes.defaults(), 1).ok(),
    };
    let mut findings = Findings::default();
    let mode = config.callers.credentials;
    let (file, unused) = clients::read(&document, mode, table.as_ref(), &mut findings);
    let mut problems = findings.problems;
    sort(&mut problems);
    warnings.extend(unused);
    problems.is_empty().then_some(file).ok_or(problems)
}

/// Returns how many operations of the embedded table are not among these, if any. They are matched
/// by method and path, because an own table may use other names.
fn left_out(operations: &[OperationDef]) -> Option<usize> {
    // The embedded table always parses, as a test shows; `None` would only drop a warning.
    let document = Document::parse(EMBEDDED_NAME, EMBEDDED_ROUTES).ok()?;
    let embedded = routes::read(&document, &mut Findings::default());
    let missing = embedded
        .iter()
        .filter(|known| operations.iter().all(|given| !is_same_route(given, known)));
    Some(missing.count()).filter(|count| *count > 0)
}

/// Returns whether two definitions are of the same operation of the API.
fn is_same_route(one: &OperationDef, other: &OperationDef) -> bool {
    one.method == other.method && one.path == other.path
}

#[cfg(test)]
mod tests;
