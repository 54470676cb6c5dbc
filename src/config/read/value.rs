//! Pure. The kinds of values a configuration has: how each is read, from TOML or from the
//! environment, and how it is shown.

use super::Raw;
use crate::config::units::{self, Size};
use crate::config::{LogAccess, LogFormat, LogLevel, Mode, Network};
use crate::network;
use crate::route::{Directives, NameTemplate, Rate, Source, names};
use http::Method;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A kind of value.
pub trait Value: Sized {
    /// Reads the value, or says what is expected.
    fn read(raw: Raw<'_>) -> Result<Self, String>;

    /// The value in a message.
    fn show(&self) -> String;
}

impl<'a> Raw<'a> {
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

    /// Advice for a quantity: a number without quotes is bare too.
    fn advice(self) -> &'static str {
        match self {
            Self::Toml(DeValue::Integer(_) | DeValue::Float(_)) => units::advice("1"),
            _ => self.text().map_or("", units::advice),
        }
    }
}

impl Value for bool {
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

impl Value for u32 {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let number = raw.integer().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| "a whole number of 0 or more".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let number = raw.integer().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| "a whole number of 0 or more".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let duration = raw.text().and_then(units::duration);
        duration.ok_or_else(|| format!("{}{}", units::DURATION, raw.advice()))
    }

    fn show(&self) -> String {
        units::show_duration(*self)
    }
}

impl Value for Size {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let size = raw.text().and_then(units::size);
        size.ok_or_else(|| format!("{}{}", units::SIZE, raw.advice()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Rate {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        raw.text()
            .and_then(units::rate)
            .ok_or_else(|| format!("{}{}", units::RATE, raw.advice()))
    }

    fn show(&self) -> String {
        units::show_rate(*self)
    }
}

impl Value for String {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        raw.text()
            .map(str::to_owned)
            .ok_or_else(|| "text in quotes".to_owned())
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

impl Value for Box<str> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        String::read(raw).map(Into::into)
    }

    fn show(&self) -> String {
        units::quoted(self)
    }
}

impl Value for PathBuf {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let path = raw
            .text()
            .filter(|text| !text.is_empty() && !text.contains('\0'));
        path.map(Into::into)
            .ok_or_else(|| "the path of a file or directory".to_owned())
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string_lossy())
    }
}

impl Value for SocketAddr {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        const EXPECTED: &str =
            "an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`";
        raw.text()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| EXPECTED.to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Network {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let network = raw.text().and_then(|text| text.parse().ok());
        network.ok_or_else(|| network::NETWORK.to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Method {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let known = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        let method = known
            .into_iter()
            .find(|method| raw.text() == Some(method.as_str()));
        method.ok_or_else(|| "GET, POST, PUT, PATCH or DELETE".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for NameTemplate {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        names::parse(raw.text().ok_or("text in quotes")?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Source {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        names::parse_placeholder(raw.text().ok_or("text in quotes")?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        units::quoted(&self.to_string())
    }
}

/// In the environment an absent value is written as an empty one.
impl<T: Value> Value for Option<T> {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        if raw.text() == Some("") {
            Ok(None)
        } else {
            T::read(raw).map(Some)
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Value::show)
    }
}

/// In the environment the elements of a list are separated by commas.
impl<T: Value> Value for Vec<T> {
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
        let elements: Vec<String> = self.iter().map(Value::show).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// One of a few words.
macro_rules! words {
    ($kind:ty { $($word:literal => $value:path),+ $(,)? }) => {
        impl Value for $kind {
            fn read(raw: Raw<'_>) -> Result<Self, String> {
                match raw.text() {
                    $(Some($word) => Ok($value),)+
                    _ => Err(format!("one of {}", [$(concat!("\"", $word, "\"")),+].join(", "))),
                }
            }

            fn show(&self) -> String {
                match self {
                    $($value => $word,)+
                }
                .to_owned()
            }
        }
    };
}

words!(Directives {
    "shorter" => Directives::Shorter,
    "upstream" => Directives::Upstream,
    "operator" => Directives::Operator,
});
words!(Mode { "enforce" => Mode::Enforce, "shadow" => Mode::Shadow });
words!(LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });
words!(LogAccess { "upstream" => LogAccess::Upstream, "all" => LogAccess::All });
words!(LogLevel {
    "error" => LogLevel::Error,
    "warn" => LogLevel::Warn,
    "info" => LogLevel::Info,
    "debug" => LogLevel::Debug,
    "trace" => LogLevel::Trace,
});
