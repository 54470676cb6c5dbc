//! Which build this is.

use std::sync::LazyLock;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, as `build.rs` found it; `unknown` if it could not, as in
/// most debug builds.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// Both, for people.
pub fn of_this_build() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT})"));
    TEXT.as_str()
}
