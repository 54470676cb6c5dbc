//! Which build this is.

use std::sync::LazyLock;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, if the build said so in the environment variable
/// `SEGMENT_GATEWAY_COMMIT`. A build does not look for itself: an archive has no history, and a
/// tree with changes is no commit.
pub const COMMIT: &str = match option_env!("SEGMENT_GATEWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Both, for people.
pub fn of_this_build() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT})"));
    TEXT.as_str()
}
