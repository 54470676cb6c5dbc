//! Pure. Why an import stops before its end, in words for the user.

use std::fmt;

/// The reason for which an import stops before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopCause {
    /// A signal.
    Interrupted,
    /// The gateway or the API does not accept the token. The gateway's words.
    TokenRefused(String),
    /// The row of this line went through at once.
    NotDeferred {
        /// The line of the row.
        line: usize,
        /// Whether the gateway is in shadow mode.
        is_shadowed: bool,
    },
    /// The gateway does not answer, or accepts nothing. Why.
    Unavailable(String),
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::TokenRefused(words) => write!(f, "the token is not accepted: {words}"),
            Self::NotDeferred {
                line,
                is_shadowed: true,
            } => write!(
                f,
                "the gateway is in shadow mode and defers no write: the row of line {line} was sent at \
                 once. Set mode = \"enforce\", take that row out of the file, and run the command again"
            ),
            Self::NotDeferred { line, .. } => write!(
                f,
                "the gateway does not defer writes: the row of line {line} was sent at once. Set \
                 state.directory in its configuration, so that writes survive a crash. Keys that were \
                 used before are forgotten then: take that row out of the file, and run the command \
                 again"
            ),
            Self::Unavailable(why) => write!(f, "the gateway is not available: {why}"),
        }
    }
}
