//! Pure. The kinds of values in a configuration: how each is read, from TOML or from the
//! environment, and how it is shown.

use super::units::{self, Size};
use crate::network::{self, Network};
use crate::route::{Directives, NameTemplate, Rate, Source, names};
use http::Method;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A kind of value.
pub trait ConfigValue: Sized {
    /// Reads the value, or returns the expectation for the message.
    fn read(raw: Raw<'_>) -> Result<Self, String>;

    /// Returns the value as a message shows it.
    fn show(&self) -> String;
}

/// One value as it was written.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// In a document.
    Toml(&'a DeValue<'a>),
    /// In the environment: always text.
    Text(&'a str),
}

impl<'a> Raw<'a> {
    /// Returns the value if it is text.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Toml(_) => None,
        }
    }

    fn integer(self) -> Option<u64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Integer(number)) => {
                u64::from_str_radix(number.as_str(), number.radix()).ok()
            }
            Self::Toml(_) => None,
        }
    }

    /// Returns advice for a quantity; a number without quotes lacks its unit too.
    fn advice(self) -> &'static str {
        match self {
            Self::Toml(DeValue::Integer(_) | DeValue::Float(_)) => units::advice("1"),
            _ => self.text().map_or("", units::advice),
        }
    }

    /// Returns the value as a message shows it.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => units::quoted(text),
            Self::Toml(DeValue::String(text)) => units::quoted(text),
            Self::Toml(DeValue::Integer(number)) => number.to_string(),
            Self::Toml(DeValue::Float(number)) => number.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            Self::Toml(DeValue::Datetime(_)) => "a date or time".to_owned(),
            Self::Toml(DeValue::Array(elements)) => {
                let elements: Vec<_> = elements
                    .iter()
                    .take(8)
                    .map(|e| Raw::Toml(e.get_ref()).shown())
                    .collect();
                format!("[{}]", elements.join(", "))
            }
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        }
    }
}

impl ConfigValue for bool {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Toml(DeValue::Boolean(value)) => Ok(*value),
            Raw::Text(text) => text.trim().parse().map_err(|_| "true or false".to_owned()),
            Raw::Toml(_) => Err("true or false, without quotes".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for u32 {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        integer(raw)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for usize {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        integer(raw)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The expectation where any text will do.
const TEXT: &str = "text in quotes";

/// Reads a value that is written as text; `expected` says what is, where `parse` refuses it.
fn parsed<T, E: Into<String>>(
    raw: Raw<'_>,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: impl FnOnce() -> E,
) -> Result<T, String> {
    raw.text().and_then(parse).ok_or_else(|| expected().into())
}

/// Reads a number; the binary, octal and hexadecimal forms of TOML are numbers too.
fn integer<T: TryFrom<u64>>(raw: Raw<'_>) -> Result<T, String> {
    let number = raw.integer().and_then(|number| number.try_into().ok());
    number.ok_or_else(|| "a whole number of 0 or more".to_owned())
}

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

impl ConfigValue for String {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, |text| Some(text.to_owned()), || TEXT)
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

impl ConfigValue for Box<str> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        String::read(raw).map(Into::into)
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

impl ConfigValue for PathBuf {
    /// No file has an empty name or one with a NUL.
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let path = |text: &str| {
            let is_path = !text.is_empty() && !text.contains('\0');
            is_path.then(|| text.into())
        };
        parsed(raw, path, || "the path of a file or directory")
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string_lossy())
    }
}

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

impl ConfigValue for Network {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        parsed(raw, |text| text.parse().ok(), || network::NETWORK)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for Method {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let method = |text: &str| known.contains(&text).then(|| text.parse().ok())?;
        parsed(raw, method, || "GET, POST, PUT, PATCH or DELETE")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for NameTemplate {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        names::parse(raw.text().ok_or(TEXT)?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for Source {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        names::parse_placeholder(raw.text().ok_or(TEXT)?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string())
    }
}

/// In the environment an empty value stands for an absent one.
impl<T: ConfigValue> ConfigValue for Option<T> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
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

/// In the environment the elements of a list are separated by commas.
impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Toml(DeValue::Array(elements)) => {
                let elements = elements
                    .iter()
                    .map(|element| T::read(Raw::Toml(element.get_ref())));
                elements
                    .collect::<Result<_, _>>()
                    .map_err(|expected| format!("a list: {expected}"))
            }
            Raw::Toml(_) => Err("a list in brackets".to_owned()),
            Raw::Text(text) => {
                let elements = text
                    .split(',')
                    .map(str::trim)
                    .filter(|element| !element.is_empty());
                elements
                    .map(|element| T::read(Raw::Text(element)))
                    .collect::<Result<_, _>>()
                    .map_err(|expected| format!("a list separated by commas: {expected}"))
            }
        }
    }

    fn show(&self) -> String {
        let elements: Vec<String> = self.iter().map(ConfigValue::show).collect();
        format!("[{}]", elements.join(", "))
    }
}

impl ConfigValue for Directives {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let known = [Self::Shorter, Self::Upstream, Self::Operator];
        one_of(raw, &known, directives)
    }

    fn show(&self) -> String {
        directives(*self).to_owned()
    }
}

fn directives(value: Directives) -> &'static str {
    match value {
        Directives::Shorter => "shorter",
        Directives::Upstream => "upstream",
        Directives::Operator => "operator",
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(
    raw: Raw<'_>,
    known: &[T],
    word: fn(T) -> &'static str,
) -> Result<T, String> {
    let mut values = known.iter().copied();
    let value = values.find(|value| raw.text() == Some(word(*value)));
    value.ok_or_else(|| {
        let words: Vec<_> = known
            .iter()
            .map(|value| units::quoted(word(*value)))
            .collect();
        format!("one of {}", words.join(", "))
    })
}
