//! The configuration: checked as a whole, then plain data.
//!
//! [`load`] reads a TOML file, lays the environment over it, and returns either a [`Config`] in
//! which every value is within its bounds or all problems at once, each with its place, what was
//! found and what is expected. The parts of the program take the values that they need; none of
//! them reads files or the environment for settings by itself.
//!
//! Each key is one row in `keys.rs`, which `table.rs` expands. `check.rs` compares keys with each
//! other, `read.rs` walks documents, `value.rs` reads single values, `change.rs` says what a reload
//! takes over, `routes.rs` reads the route table, and `clients.rs` the file of clients.

mod change;
mod check;
mod clients;
mod credential_names;
mod file_text;
mod keys;
mod load;
mod problem;
mod read;
mod render;
mod route_document;
mod routes;
mod table;
pub mod units;
mod value;
mod words;

pub use change::ConfigChange;
pub use check::{contradictions, warnings};
pub use clients::{
    CLIENT_NAME, ClientDef, ClientsFile, KeyDef, OperationGroups, SHIPPED_GROUPS, expiry,
    is_client_name,
};
pub use keys::{Config, ConfigKey, is_loopback, keys};
pub use load::{
    EMBEDDED_ROUTES, Loaded, Unusable, ValueSource, admin_token_environment, environment,
    has_admin_token, journal_key_environment, load, load_usable, proxy_environment,
    state_directory_environment,
};
pub use problem::ConfigProblem;
pub use read::Flag;
pub use render::{render_route, render_routes};
pub use route_document::{route_document, routes_document};
pub use units::Size;
pub use words::{AuditSubjects, AuditWhen, ClientAuth, LogAccess, LogFormat, LogLevel, Mode};
