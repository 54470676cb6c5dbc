//! Pure. Reads a TOML document section by section, with the environment laid over it.
//!
//! A [`Section`] is asked for its keys one by one, each with the value that it may replace.
//! What is wrong is collected, not returned: one run finds every wrong value and every unknown key.
//! Only the syntax of TOML stops at its first error, since nothing behind it can be trusted.
//!
//! Promises that nothing which was written is ignored in silence: a key or a variable that nobody
//! asked for is a problem, and so is a value that does not fit. A variable wins over the document.
//!
//! What is asked for is also recorded in [`Findings`], with its default and its bounds. The list of
//! keys in the documentation comes from there, so it cannot differ from what is read.
//!
//! Not here: which keys there are (`keys.rs`, `routes.rs`), the forms of values (`value.rs`), and
//! conditions between keys (`check.rs`).

use super::problem::{ConfigProblem, Place};
use super::units;
use super::value::{ConfigValue, Raw, WrongEntry};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

mod environment;
mod nearest;
pub mod variables;

pub use environment::{Environment, Flag, PREFIX};

use environment::variable;
pub(in crate::config) use nearest::nearest;

/// Keys that no message proposes for an unknown one: a typing mistake must not lead anybody to open
/// something.
const UNSAFE: [&str; 4] = [
    "admin.open",
    "admin.public",
    "upstream.allow_plain_http",
    "callers.trust_header_from",
];

/// A TOML document, with the positions of all its keys.
pub struct Document<'t> {
    /// The name in messages: a path, or that of the embedded table.
    file: Arc<str>,
    /// The offset at which each line ends.
    line_ends: Vec<usize>,
    /// The parsed text. It borrows from the text, which must outlive the reading.
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Parses a document; the first error of syntax is the problem. `file` is its name in messages.
    pub fn parse(file: &str, text: &'t str) -> Result<Self, ConfigProblem> {
        let file: Arc<str> = file.into();
        let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        match DeTable::parse(text) {
            Ok(root) => Ok(Self {
                file,
                line_ends,
                root: root.into_inner(),
            }),
            Err(error) => {
                let line = error.span().map_or(0, |span| line(&line_ends, &span));
                // On one line, because each problem is one line of the output.
                let found = error.message().replace('\n', "; ");
                let found = match error.span().and_then(|span| text.get(span)) {
                    // The most common slip has a message of its own, which quotes the key.
                    Some(key) if found == "duplicate key" => {
                        format!("{} a second time", units::quoted(key.trim()))
                    }
                    _ => format!("invalid TOML ({found})"),
                };
                let place = Some(Place::Line(file, line));
                let expected = "a document of TOML 1.1";
                Err(ConfigProblem::new(place, "", found, expected))
            }
        }
    }

    /// Returns the place of a span, for a message.
    fn place(&self, span: &Range<usize>) -> Place {
        Place::Line(self.file.clone(), line(&self.line_ends, span))
    }
}

/// Returns the number of the line in which a span begins, counted from 1.
fn line(line_ends: &[usize], span: &Range<usize>) -> usize {
    line_ends.partition_point(|end| *end < span.start) + 1
}

/// The findings of reading, besides the values.
#[derive(Default)]
pub struct Findings {
    /// Everything that is wrong.
    pub problems: Vec<ConfigProblem>,
    /// The place of each value that was written, by key.
    pub places: BTreeMap<String, Place>,
    /// All keys that were asked for, with their sections.
    pub known: Vec<String>,
    /// The default and the accepted values of each, in the same order.
    pub facts: Vec<KeyFacts>,
}

/// The default of a key, and the values that it accepts.
pub struct KeyFacts {
    /// The value without a configuration.
    pub default: String,
    /// The bounds of the value, or its form; empty for any text.
    pub accepts: String,
}

/// A table of a document, or the part of the environment that stands for one, or both.
pub struct Section<'a> {
    /// The document, for the places of its keys. `None` if only the environment is read.
    document: Option<&'a Document<'a>>,
    environment: &'a Environment,
    /// The table of this section. `None` if the document does not have it.
    table: Option<&'a DeTable<'a>>,
    /// Empty, or the names of the sections with a dot at the end.
    path: String,
    /// The place at which the table begins.
    header: Option<Place>,
    /// What all sections have found so far.
    findings: &'a mut Findings,
    /// The keys and sections asked for here. What the table has besides is unknown.
    keys: Vec<String>,
}

impl<'a> Section<'a> {
    /// Reads a whole document; keys that `read` did not ask for are problems, and so are variables.
    pub fn root(
        document: Option<&'a Document<'a>>,
        environment: &'a Environment,
        findings: &'a mut Findings,
        read: impl FnOnce(&mut Section<'_>),
    ) {
        let mut root = Section {
            document,
            environment,
            table: document.map(|document| &document.root),
            path: String::new(),
            header: None,
            findings,
            // Filled by what `read` asks for.
            keys: Vec::new(),
        };
        // Unknown keys come last: only now is it certain what is known. Variables come after all
        // sections, because they do not belong to one.
        read(&mut root);
        root.unknown_keys();
        root.unknown_variables();
    }

    /// Reads the table `name` of this one, if there is one; what it does not ask for is a problem.
    pub fn section(&mut self, name: &str, read: impl FnOnce(&mut Section<'_>)) {
        // Known even if its value is not a table, so that it is not reported a second time as
        // unknown.
        self.keys.push(name.to_owned());
        let table = match self
            .table
            .and_then(|table| table.get(name))
            .map(|value| value.get_ref())
        {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                let found = Raw::Toml(other).shown();
                self.problem(name, found, format!("a table `[{}{name}]`", self.path));
                None
            }
        };
        let mut section = Section {
            document: self.document,
            environment: self.environment,
            table,
            path: format!("{}{name}.", self.path),
            header: self.place(name),
            findings: self.findings,
            keys: Vec::new(),
        };
        read(&mut section);
        section.unknown_keys();
    }

    /// Returns the names of the keys in the document, in the order in which they are written.
    pub fn names(&self) -> Vec<String> {
        let entries = self.table.into_iter().flat_map(|table| table.iter());
        let mut names: Vec<_> = entries
            .map(|(key, _)| (key.span().start, key.get_ref().to_string()))
            .collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns whether there is a value under this key.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
            || self.environment.values.contains_key(&self.path_of(key))
    }

    /// Reads the value of a key into `target`, which stays as it is without one.
    pub fn key<T: ConfigValue>(&mut self, key: &str, target: &mut T) {
        // No form but plain text takes this, so that the refusal names the form. Every
        // implementation of `ConfigValue` must keep to that.
        let form = T::read(Raw::Text("\0")).err().unwrap_or_default();
        self.read(key, target, form, |_| true);
    }

    /// Reads the value of a key, which must lie within bounds.
    pub fn within<T: ConfigValue + PartialOrd>(
        &mut self,
        key: &str,
        target: &mut T,
        bounds: RangeInclusive<T>,
    ) {
        let (low, high) = (bounds.start().show(), bounds.end().show());
        let form = format!("a value from {low} to {high}");
        self.read(key, target, form, |value| bounds.contains(value));
    }

    /// Notes that the value of a key of this section is wrong.
    pub fn problem(&mut self, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        let place = self.place(key);
        let problem = ConfigProblem::new(place, self.path_of(key), found, expected);
        self.findings.problems.push(problem);
    }

    /// Notes that an entry of the table under a key is wrong, at its own place.
    pub(super) fn wrong_entry(&mut self, key: &str, entry: WrongEntry) {
        // A variable has no spans: its entries stand where the variable does.
        let own = entry.span.zip(self.document);
        let place = own.map(|(span, document)| document.place(&span));
        let place = place.or_else(|| self.place(key));
        // An entry without a name that may be shown counts for the whole table: what is written
        // there may be a secret by mistake.
        let name = entry.name.map(|name| format!(".{name}"));
        let key = self.path_of(key) + &name.unwrap_or_default();
        let problem = ConfigProblem::new(place, key, entry.found, entry.expected);
        self.findings.problems.push(problem);
    }

    /// Notes that this section as a whole is wrong, at the place where it begins.
    pub fn wrong(&mut self, found: impl Into<String>, expected: impl Into<String>) {
        let problem = ConfigProblem::new(self.header.clone(), self.path_of(""), found, expected);
        self.findings.problems.push(problem);
    }

    /// Notes that a key is wrong as such, at its place. The message does not name it.
    pub fn refuse(&mut self, key: &str, found: String, expected: &str) {
        // So that it is not reported as unknown, too.
        self.skip(key);
        let problem = ConfigProblem::new(self.place(key), self.path_of(""), found, expected);
        self.findings.problems.push(problem);
    }

    /// Takes a key for known without reading it.
    pub fn skip(&mut self, key: &str) {
        self.keys.push(key.to_owned());
    }

    /// Notes that a key is absent, at the place of its section.
    pub fn missing(&mut self, key: &str) {
        let place = self.table.and(self.header.clone());
        let expected = format!("`{key}`, which is required");
        let problem = ConfigProblem::new(place, self.path_of(key), "nothing", expected);
        self.findings.problems.push(problem);
    }

    /// Reads the value of a key; `form` describes the values that `fits` accepts.
    fn read<T: ConfigValue>(
        &mut self,
        key: &str,
        target: &mut T,
        form: String,
        fits: impl Fn(&T) -> bool,
    ) {
        let path = self.path_of(key);
        self.keys.push(key.to_owned());
        // Before the value is looked for: keys that are not written are known, too.
        self.findings.known.push(path.clone());
        self.findings.facts.push(KeyFacts {
            default: target.show(),
            accepts: form.clone(),
        });
        let (environment, table) = (self.environment, self.table);
        let raw = match environment.values.get(&path) {
            Some((_, value)) => Raw::Text(value),
            None => match table.and_then(|table| table.get(key)) {
                Some(value) => Raw::Toml(value.get_ref()),
                // Neither written: the default stays, and the key has no place.
                None => return,
            },
        };
        match T::read(raw) {
            Err(expected) => {
                // A table says which of its entries is wrong; anything else is one value.
                let wrong = T::wrong_entries(raw);
                if wrong.is_empty() {
                    self.problem(key, raw.shown(), expected);
                }
                wrong
                    .into_iter()
                    .for_each(|entry| self.wrong_entry(key, entry));
            }
            Ok(value) if fits(&value) => *target = value,
            Ok(_) => self.problem(key, raw.shown(), form),
        }
        // Also for a value that is wrong: other problems of the key are placed there.
        if let Some(place) = self.place(key) {
            self.findings.places.insert(path, place);
        }
    }

    /// Returns a key with its sections. An empty key stands for the section itself, hence the dot
    /// that is cut off.
    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
            .trim_end_matches('.')
            .to_owned()
    }

    /// Returns the place of a value: the environment goes before the document.
    fn place(&self, key: &str) -> Option<Place> {
        if let Some((place, _)) = self.environment.values.get(&self.path_of(key)) {
            return Some(place.clone());
        }
        let (key, _) = self.table?.get_key_value(key)?;
        Some(self.document?.place(&key.span()))
    }

    /// Reports the keys of the table that nobody asked for, each with the nearest known one or with
    /// all of them.
    fn unknown_keys(&mut self) {
        for name in self.names() {
            if self.keys.contains(&name) {
                continue;
            }
            let keys = self.keys.iter().map(String::as_str);
            let keys: Vec<&str> = keys.filter(|key| is_safe(&self.path_of(key))).collect();
            let nearest = nearest(&name, keys.iter().copied());
            let hint = nearest.map(|known| format!("`{known}` (the nearest)"));
            let expected = hint.unwrap_or_else(|| {
                let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
                format!("one of {}", keys.join(", "))
            });
            self.problem(&name, "an unknown key", expected);
        }
    }

    /// Reports unknown variables, after everything was asked for. Their values are not shown, since
    /// one that was meant for another program may be a secret.
    fn unknown_variables(&mut self) {
        let values = &self.environment.values;
        // A flag is always known: its command says for which key it stands.
        for (key, (place, _)) in values
            .iter()
            .filter(|(key, _)| !self.findings.known.contains(key))
        {
            let known = self.findings.known.iter().map(String::as_str);
            let nearest = nearest(key, known.filter(|key| is_safe(key)));
            let expected = match nearest {
                Some(known) => format!("{} (the nearest)", variable(known)),
                None => format!("{PREFIX}SECTION__KEY with a section and key of the configuration"),
            };
            let problem = ConfigProblem::new(Some(place.clone()), key, "an unknown key", expected);
            self.findings.problems.push(problem);
        }
        // These stand for no key at all, so only their names are compared.
        for name in &self.environment.strangers {
            let known = self.findings.known.iter().filter(|key| is_safe(key));
            let known: Vec<String> = known.map(|key| variable(key)).collect();
            let place = Some(Place::Variable(name.clone()));
            let expected = variables::expected(name, &known);
            let problem = ConfigProblem::new(place, "", "an unknown variable", expected);
            self.findings.problems.push(problem);
        }
    }
}

/// Returns whether a message may propose this key.
fn is_safe(path: &str) -> bool {
    !UNSAFE.contains(&path)
}

#[cfg(test)]
mod tests;
