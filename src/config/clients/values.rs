//! Pure. Texts of the file of clients: names, and lists of them.
//!
//! Each element keeps its place, so that a mistake in the middle of a list is reported where it is.
//! A text that may be a secret is never shown.

use crate::config::units;
use crate::config::value::{ConfigValue, Raw, WrongEntry};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// The form of a list, for messages.
const LIST: &str = "a list of texts, such as `[\"iam-reads\", \"createInvites\"]`";
/// The most characters of an unexpected text that a message shows. A token or key is longer.
const MOST_SHOWN: usize = 32;

/// Returns a text as a message shows it. One that may be a secret is only counted.
pub fn shown(text: &str) -> String {
    let length = text.chars().count();
    let is_secret = text.starts_with("sgw_") || text.starts_with("sgp_");
    if length > MOST_SHOWN || is_secret {
        return format!("a text of {length} characters");
    }
    units::quoted(text)
}

/// A text with its place.
#[derive(Clone, Debug)]
pub struct Word {
    /// The text.
    pub text: Box<str>,
    /// Where it is written.
    pub span: Range<usize>,
}

/// A list of texts, each with its place.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<Word>);

impl ConfigValue for Words {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let Raw::Toml(DeValue::Array(elements)) = raw else {
            return Err(LIST.to_owned());
        };
        let word = |element: &Spanned<DeValue<'_>>| match element.get_ref() {
            DeValue::String(text) => Ok(Word {
                text: text.as_ref().into(),
                span: element.span(),
            }),
            _ => Err(LIST.to_owned()),
        };
        elements
            .iter()
            .map(word)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn show(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|word| shown(&word.text)).collect();
        format!("[{}]", words.join(", "))
    }

    fn wrong_entries(raw: Raw<'_>) -> Vec<WrongEntry> {
        // Instead of the value as it is written, which may be a key in the wrong place.
        let wrong = |span, found: &str| WrongEntry {
            name: None,
            span,
            found: found.to_owned(),
            expected: LIST.to_owned(),
        };
        match raw {
            Raw::Toml(DeValue::Array(elements)) => {
                let others = elements.iter();
                let others = others.filter(|one| !matches!(one.get_ref(), DeValue::String(_)));
                let others =
                    others.map(|one| wrong(Some(one.span()), "an element that is no text"));
                others.collect()
            }
            _ => vec![wrong(None, "a value that is no list")],
        }
    }
}

/// A text of which a message shows nothing that may be a secret.
#[derive(Clone, Debug, Default)]
pub struct Reference(pub Box<str>);

impl ConfigValue for Reference {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Toml(DeValue::String(text)) if !text.is_empty() => Ok(Self(text.as_ref().into())),
            _ => Err("a name in quotes".to_owned()),
        }
    }

    fn show(&self) -> String {
        shown(&self.0)
    }
}

/// Returns the texts alone.
pub fn texts(words: &Words) -> Vec<Box<str>> {
    words.0.iter().map(|word| word.text.clone()).collect()
}

/// Returns what is wrong with a text, at its place.
pub fn entry(word: &Word, found: impl Into<String>, expected: impl Into<String>) -> WrongEntry {
    placed(&word.span, found, expected)
}

/// Returns what is wrong with what is written at a place. The key of the table says the rest.
pub fn placed(
    span: &Range<usize>,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> WrongEntry {
    WrongEntry {
        name: None,
        span: Some(span.clone()),
        found: found.into(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_only_counted() {
        assert_eq!(shown("hr-sync"), "\"hr-sync\"");
        assert_eq!(shown("sgp_abc"), "a text of 7 characters");
        assert_eq!(shown("sgw_"), "a text of 4 characters");
        assert_eq!(shown(&"x".repeat(33)), "a text of 33 characters");
    }
}
