//! Pure. What is wrong with a configuration: where, what was found, what is expected.

use std::fmt;
use std::sync::Arc;

/// One mistake, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The place of the value; `None` where nothing was written and a default is meant.
    pub place: Option<Place>,
    /// The key with its sections, e.g. `upstream.url`; empty for a whole file. Not shown beside a
    /// flag.
    pub key: String,
    /// The finding.
    pub found: String,
    /// The expectation.
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

/// The place at which a value was written.
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
    /// Returns the rank of a problem in reading order: a file from top to bottom, the environment,
    /// flags, then what was not written.
    fn position(place: Option<&Self>) -> (u8, usize) {
        match place {
            Some(Self::Line(_, line)) => (0, *line),
            Some(Self::Variable(_)) => (1, 0),
            Some(Self::Flag(_)) => (2, 0),
            None => (3, 0),
        }
    }
}

/// Sorts the problems of one file and of the environment into reading order.
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
        // Who gave a flag is answered with the flag alone.
        let is_flag = matches!(self.place, Some(Place::Flag(_)));
        if !self.key.is_empty() && !is_flag {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}
