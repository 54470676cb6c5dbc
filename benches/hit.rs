//! Bench: a cache hit beside a bare hyper server, over TLS with HTTP/1.1 and HTTP/2 beside one with
//! the same settings of TLS, with the key of a client, and beside a flood of unknown keys. These are
//! the rows about hits of the bench `peers`; see `comparison/mod.rs` for the method and the options.
//!
//! ```sh
//! cargo bench --bench hit                 # about four minutes
//! cargo bench --bench hit -- --quick      # to see that it works; the figures are rough
//! ```

mod comparison;

use std::process::ExitCode;

fn main() -> ExitCode {
    comparison::main(true)
}
