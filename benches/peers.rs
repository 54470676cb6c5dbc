//! Bench: the gateway beside nginx, HAProxy and bare hyper; see `comparison/mod.rs` for the method
//! and the options.
//!
//! ```sh
//! cargo bench --bench peers               # about six minutes
//! cargo bench --bench peers -- --quick    # to see that it works; the figures are rough
//! ```

mod comparison;

use std::process::ExitCode;

fn main() -> ExitCode {
    comparison::main(false)
}
