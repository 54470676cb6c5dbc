//! The command line of segment-gateway.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    segment_gateway::cli::run(segment_gateway::cli::Cli::parse())
}
