//! Pure. Values that are one of a few words.

use super::value::{ConfigValue, Raw, one_of};
use crate::clients::CredentialMode;
use crate::route::Directives;

/// Makes an enum whose variants are written as words in a configuration.
macro_rules! words {
    ($(
        $(#[$about:meta])*
        $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )+ }
    )+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$doc])* $variant, )+
        }

        impl $name {
            /// All values, in the order in which messages list them.
            pub const ALL: &[Self] = &[$( Self::$variant ),+];

            /// Returns the word of the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }
        }

        impl ConfigValue for $name {
            fn read(raw: Raw<'_>) -> Result<Self, String> {
                one_of(raw, Self::ALL, Self::as_str)
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )+ };
}

words! {
    /// Whether the gateway applies its decisions.
    Mode {
        /// It does: limits are enforced, reads come from the cache.
        Enforce = "enforce",
        /// It forwards everything at once and reports what it would have done.
        Shadow = "shadow",
    }

    /// Whether a listener asks clients for a certificate.
    ClientAuth {
        /// It does not.
        None = "none",
        /// It does, and accepts clients without one.
        Optional = "optional",
        /// It does, and rejects clients without one.
        Required = "required",
    }

    /// When the audit log has a write.
    AuditWhen {
        /// Once it has ended.
        After = "after",
        /// Before it is sent as well, on the disk.
        Before = "before",
    }

    /// How people and things appear in the audit log.
    AuditSubjects {
        /// By name.
        Plain = "plain",
        /// By a hash of the name.
        Hashed = "hashed",
    }

    /// The form of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }

    /// The level from which log lines are written, the quietest first.
    LogLevel {
        /// Something is lost or about to be.
        Error = "error",
        /// Something is worse than it should be.
        Warn = "warn",
        /// A state has changed.
        Info = "info",
        /// What happens to each request.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }

    /// Which requests have a line in the access log.
    LogAccess {
        /// Those that went upstream, were rejected or failed.
        Upstream = "upstream",
        /// Everything, responses from the cache included.
        All = "all",
    }
}

impl LogLevel {
    /// Returns whether there are lines about each request.
    pub fn tells_of_requests(self) -> bool {
        matches!(self, Self::Debug | Self::Trace)
    }
}

impl LogLevel {
    /// Returns the level that a configuration calls `word`.
    pub fn named(word: &str) -> Option<Self> {
        let mut levels = Self::ALL.iter().copied();
        levels.find(|level| level.as_str() == word)
    }
}

/// Whose tokens requests are sent with.
impl ConfigValue for CredentialMode {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let known = [Self::Own, Self::Both, Self::Managed];
        one_of(raw, &known, Self::as_str)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// The rule for lifetimes that the API and the route table both state.
impl ConfigValue for Directives {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        // The default comes first, and so it does in the message.
        let known = [Self::Shorter, Self::Upstream, Self::Operator];
        one_of(raw, &known, directives)
    }

    fn show(&self) -> String {
        directives(*self).to_owned()
    }
}

/// Returns the word of the configuration.
pub(super) fn directives(value: Directives) -> &'static str {
    match value {
        Directives::Shorter => "shorter",
        Directives::Upstream => "upstream",
        Directives::Operator => "operator",
    }
}
