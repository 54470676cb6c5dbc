//! Pure. The kinds of values in a configuration: how each is read, from TOML or from the
//! environment, and how it is shown.
//!
//! TOML has types and the environment has none. Where they differ, TOML is strict (`true` without
//! quotes, a list in brackets), and the environment is read by the kind that the key has.
//!
//! Promises that a value is read in one form and never guessed: a number without a unit is no
//! duration, a word in another case is no word. A refusal says which form is expected, and the
//! message shows what was written.
//!
//! Bounds are not here. A kind says what a value may be at all; the row of a key in `keys.rs` says
//! how large.

use super::units::{self, Size};
use crate::network::{self, Network};
use crate::route::{NameTemplate, Rate, Source, template};
use http::Method;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A kind of value. Reading is pure: no file is opened and no name resolved, so a value that is
/// read may still be unusable.
pub trait ConfigValue: Sized {
    /// Reads the value, or returns the expectation for the message. Every kind but plain text must
    /// reject the text `\0`: `Section::key` reads it to learn the form.
    fn read(raw: Raw<'_>) -> Result<Self, String>;

    /// Returns the value as messages and the documentation of keys show it.
    fn show(&self) -> String;

    /// Returns what is wrong with single entries of a value that is a table. They are reported in
    /// place of the whole value.
    fn wrong_entries(_raw: Raw<'_>) -> Vec<WrongEntry> {
        Vec::new()
    }
}

/// A wrong entry of a table.
pub struct WrongEntry {
    /// The key of the entry, if the message may show it.
    pub name: Option<String>,
    /// The place in the document; `None` in the environment.
    pub span: Option<Range<usize>>,
    /// The finding.
    pub found: String,
    /// The expectation.
    pub expected: String,
}

/// One value as it was written. The two kinds are told apart because an error must name the
/// notation of the place: quotes and brackets mean nothing in a variable.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// In a document, with the type that its notation gives.
    Toml(&'a DeValue<'a>),
    /// In the environment: always text.
    Text(&'a str),
}

impl<'a> Raw<'a> {
    /// Returns the value if it is text. All that comes from the environment is.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Toml(_) => None,
        }
    }

    /// Returns the value if it is a whole number of 0 or more that fits. A float is none, not even
    /// `1.0`.
    fn integer(self) -> Option<u64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Integer(number)) => {
                // The notation is kept as written, so its base must be given. A sign makes this
                // fail.
                u64::from_str_radix(number.as_str(), number.radix()).ok()
            }
            Self::Toml(_) => None,
        }
    }

    /// Returns advice for a quantity; a number without quotes lacks its unit too.
    fn advice(self) -> &'static str {
        match self {
            Self::Toml(DeValue::Integer(_) | DeValue::Float(_)) => units::advice("1"),
            // Text may lack its unit or have one that is not known; `units` says which.
            _ => self.text().map_or("", units::advice),
        }
    }

    /// Returns the value as a message shows it: on one line, and shortened. Keys never have secrets
    /// as values, only files with secrets, so this may go to a log.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => units::quoted(text),
            Self::Toml(DeValue::String(text)) => units::quoted(text),
            Self::Toml(DeValue::Integer(number)) => number.to_string(),
            Self::Toml(DeValue::Float(number)) => number.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            // TOML has dates without quotes. No key takes one.
            Self::Toml(DeValue::Datetime(_)) => "a date or time".to_owned(),
            Self::Toml(DeValue::Array(elements)) => {
                let elements: Vec<_> = elements
                    .iter()
                    // Enough to recognise the list. The message is not for copying it.
                    .take(8)
                    .map(|e| Raw::Toml(e.get_ref()).shown())
                    .collect();
                format!("[{}]", elements.join(", "))
            }
            // A section where a value is expected; its content would not help.
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        }
    }
}

/// A switch. Only `true` and `false`: `yes`, `on` and `1` mean different things in different files.
impl ConfigValue for bool {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Toml(DeValue::Boolean(value)) => Ok(*value),
            // Spaces are trimmed in the environment only: a shell or a manifest may leave some.
            Raw::Text(text) => text.trim().parse().map_err(|_| "true or false".to_owned()),
            // `"true"` in quotes is the likely mistake, so the message says what to leave out.
            Raw::Toml(_) => Err("true or false, without quotes".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A count. A value beyond the type is rejected like any other that is not expected, not cut.
impl ConfigValue for u32 {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        integer(raw)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A count of things in memory, such as requests or writes.
impl ConfigValue for usize {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        integer(raw)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The expectation where any text will do, and for a number or a table in place of a text with a
/// form of its own.
const TEXT: &str = "text in quotes";

/// Reads a value that is written as text. `expected` gives the expectation if there is no text, or
/// if `parse` rejects it.
fn parsed<T, E: Into<String>>(
    raw: Raw<'_>,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: impl FnOnce() -> E,
) -> Result<T, String> {
    raw.text().and_then(parse).ok_or_else(|| expected().into())
}

/// Reads a number; the binary, octal and hexadecimal forms of TOML are numbers too.
fn integer<T: TryFrom<u64>>(raw: Raw<'_>) -> Result<T, String> {
    // A value that is too large for the type gets the same message; the bounds of the key are
    // narrower.
    let number = raw.integer().and_then(|number| number.try_into().ok());
    number.ok_or_else(|| "a whole number of 0 or more".to_owned())
}

/// A time with its unit. A bare number is rejected, and the message proposes units.
impl ConfigValue for Duration {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, units::duration, || {
            format!("{}{}", units::DURATION, raw.advice())
        })
    }

    fn show(&self) -> String {
        units::show_duration(*self)
    }
}

/// A number of bytes with its unit, in powers of 1024.
impl ConfigValue for Size {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, units::size, || {
            format!("{}{}", units::SIZE, raw.advice())
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A number of requests and its window, as the API documents its limits.
impl ConfigValue for Rate {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, units::rate, || {
            format!("{}{}", units::RATE, raw.advice())
        })
    }

    fn show(&self) -> String {
        units::show_rate(*self)
    }
}

/// Any text, also an empty one. What it may contain is checked where its meaning is known.
impl ConfigValue for String {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, |text| Some(text.to_owned()), || TEXT)
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

/// Any text that is kept for long and never changed.
impl ConfigValue for Box<str> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        String::read(raw).map(Into::into)
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

/// A path, absolute or relative to the working directory. `~` and variables are not expanded.
impl ConfigValue for PathBuf {
    /// Reads the path. No file has an empty name or one with a NUL.
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let path = |text: &str| {
            // Whether there is such a file is found out by a probe, after everything was read.
            let is_path = !text.is_empty() && !text.contains('\0');
            is_path.then(|| text.into())
        };
        parsed(raw, path, || "the path of a file or directory")
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string_lossy())
    }
}

/// An address to listen on. Names of hosts are not accepted: they may resolve to several addresses,
/// or to others tomorrow.
impl ConfigValue for SocketAddr {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        const EXPECTED: &str =
            "an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`";
        parsed(raw, |text| text.parse().ok(), || EXPECTED)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A network of peers, or one address. Bits behind the prefix are rejected: they show that the
/// prefix or the address is a mistake.
impl ConfigValue for Network {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, |text| text.parse().ok(), || network::NETWORK)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A method that an operation may have. Methods are case-sensitive (RFC 9110, section 9.1). HEAD
/// and OPTIONS are missing: they follow fixed rules, and no operation is defined for them.
impl ConfigValue for Method {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        // The list decides. The parser alone would accept any token as a method.
        let method = |text: &str| known.contains(&text).then(|| text.parse().ok())?;
        parsed(raw, method, || "GET, POST, PUT, PATCH or DELETE")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A tag or an order key, in the syntax that `route/names.rs` defines.
impl ConfigValue for NameTemplate {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        // The parser knows best what is wrong, so its expectation becomes that of the message.
        template::parse(raw.text().ok_or(TEXT)?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A placeholder alone, for elements of a batch.
impl ConfigValue for Source {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        template::parse_placeholder(raw.text().ok_or(TEXT)?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string())
    }
}

/// A value that may be absent. Empty text stands for that, in a document and in the environment: so
/// a variable can take away what the document sets. An empty value of the kind itself is therefore
/// out of reach.
impl<T: ConfigValue> ConfigValue for Option<T> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        // Before the kind is asked: many of them reject empty text.
        if raw.text() == Some("") {
            Ok(None)
        } else {
            T::read(raw).map(Some)
        }
    }

    fn show(&self) -> String {
        self.as_ref()
            .map_or_else(|| "\"\"".to_owned(), ConfigValue::show)
    }
}

/// A list, in the order in which it is written. In the environment its elements are separated by
/// commas, so no element can contain one there. One element that is wrong makes the list wrong.
impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Toml(DeValue::Array(elements)) => {
                // Each element is a document's own value, so elements may be of any kind, lists
                // included.
                let elements = elements
                    .iter()
                    .map(|element| T::read(Raw::Toml(element.get_ref())));
                elements
                    .collect::<Result<_, _>>()
                    .map_err(|expected| format!("a list: {expected}"))
            }
            // One value without brackets is not taken for a list of one.
            Raw::Toml(_) => Err("a list in brackets".to_owned()),
            Raw::Text(text) => {
                // Spaces around a comma and a comma at the end are harmless. An empty variable is
                // an empty list.
                let elements = text
                    .split(',')
                    .map(str::trim)
                    .filter(|element| !element.is_empty());
                elements
                    .map(|element| T::read(Raw::Text(element)))
                    .collect::<Result<_, _>>()
                    .map_err(|expected| format!("a list (`a,b` in a variable): {expected}"))
            }
        }
    }

    fn show(&self) -> String {
        let elements: Vec<String> = self.iter().map(ConfigValue::show).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// Reads one of a few words, which must be written exactly as `word` gives them. A refusal lists
/// all of them, in the order of `known`.
pub(super) fn one_of<T: Copy>(
    raw: Raw<'_>,
    known: &[T],
    word: fn(T) -> &'static str,
) -> Result<T, String> {
    // In the environment as well, a space or a capital letter makes it another word.
    let mut values = known.iter().copied();
    let value = values.find(|value| raw.text() == Some(word(*value)));
    value.ok_or_else(|| {
        // Quoted, as a document has them.
        let words: Vec<_> = known
            .iter()
            .map(|value| units::quoted(word(*value)))
            .collect();
        format!("one of {}", words.join(", "))
    })
}
