//! Pure. What is wrong with a configuration: where, what was found, what is expected.

use std::fmt;
use std::sync::Arc;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it was found; `None` where nothing was written and a default is meant.
    pub place: Option<Place>,
    /// The key with its sections, e.g. `upstream.url`; empty for a whole file.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What is expected.
    pub expected: String,
}

impl ConfigProblem {
    /// Returns the problem of one key.
    pub(super) fn new(
        place: Option<Place>,
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            place,
            key: key.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, counted from 1; 0 is the file as a whole.
    Line(Arc<str>, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl Place {
    /// Sorts problems as people go through them: a file from top to bottom, then the environment.
    fn position(place: Option<&Self>) -> (u8, usize) {
        match place {
            Some(Self::Line(_, line)) => (0, *line),
            Some(Self::Variable(_)) => (1, 0),
            Some(Self::Flag(_)) => (2, 0),
            None => (3, 0),
        }
    }
}

/// Puts the problems of one file, and of the environment over it, into the order of reading.
pub fn sort(problems: &mut [ConfigProblem]) {
    problems.sort_by_key(|problem| Place::position(problem.place.as_ref()));
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, 0) => f.write_str(file),
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}
