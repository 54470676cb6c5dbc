//! The arguments of `segment-gateway import`.
//!
//! Comments on the fields are the help of the command line, so explanations of the code here are
//! plain comments.

use super::client::checked_url;
use super::values::is_id;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The command and what it brings in.
#[derive(Args, Debug)]
pub(in crate::cli) struct ImportCommand {
    #[command(subcommand)]
    pub(super) what: ImportSource,
}

/// What is brought in, and from where.
#[derive(Debug, Subcommand)]
pub(super) enum ImportSource {
    /// Invite people to the workspace. Columns: email; role and resources, if permissions come with
    /// the invite; role2 and resources2, up to 9, for further ones.
    ///
    /// A role is an id, as GET /roles lists them. Resources are written TYPE:ID, such as
    /// SOURCE:abc, with spaces in between.
    Invites(Import),
    /// Add people to groups. Columns: email and group.
    Members {
        #[command(flatten)]
        import: Import,
        /// Id of the group for all rows, in place of the column group.
        #[arg(long, value_name = "ID", value_parser = group_id)]
        group: Option<String>,
    },
}

/// A file, and how it is imported.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// CSV file in UTF-8. Its first line names the columns. At most 100000 rows and 64 MiB.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// URL of the gateway.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = checked_url)]
    pub(super) gateway: String,
    /// File with the token of the API, or - for standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub(super) token_file: Option<PathBuf>,
    /// Write the outcome of each row to this file, as CSV. Only its owner can read it.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Check the file and say what would be sent. Nothing is sent.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Stop once all rows are handed over, without waiting for their outcomes.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Name of the run. A row that has ended keeps its outcome under this name. Under another one
    /// every row of the file is sent again, also the ones that succeeded.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) run: String,
    /// Character between two columns.
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = delimiter)]
    pub(super) delimiter: u8,
}

fn group_id(text: &str) -> Result<String, String> {
    match is_id(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the id of a group, as GET /groups lists them".to_owned()),
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("\\t", _) => Ok(b'\t'),
        (_, [one]) if one.is_ascii_punctuation() && *one != b'"' || *one == b'\t' => Ok(*one),
        _ => Err("expected one character, such as , or ; or \\t".to_owned()),
    }
}
