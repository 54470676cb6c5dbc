//! The names of the files in the state directory.
//!
//! A name stands here once. What the files contain is the business of those that open them.

/// The socket of operators, in the state directory.
pub const SOCKET: &str = "admin.sock";
pub(super) const LOCK: &str = "lock";
pub(super) const LEDGER: &str = "ledger";
pub(super) const REVOKED: &str = "revoked";
pub(super) const TOKENS: &str = "tokens.json";
pub(super) const KEY: &str = "credential-hash.key";
pub(super) const JOURNAL: &str = "journal.db";
pub(super) const JOURNAL_KEY: &str = "journal.key";
/// The names under which files are opened in it, here or by the ledger or the journal. What has
/// another name is left alone.
pub(super) const OWN: [&str; 18] = [
    LOCK,
    LEDGER,
    "ledger.new",
    REVOKED,
    "revoked.new",
    TOKENS,
    "tokens.json.new",
    KEY,
    "credential-hash.key.new",
    JOURNAL,
    "journal.db-wal",
    "journal.db-journal",
    "journal.new",
    "journal.new-wal",
    "journal.count",
    "journal.lock",
    JOURNAL_KEY,
    "journal.key.new",
];
