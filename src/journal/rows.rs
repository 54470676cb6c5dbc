//! The tables of the journal, and every statement that changes them.
//!
//! Summaries, requests and responses are sealed on the way in; the other columns are as in
//! [`Record`], times in milliseconds. A write that has ended (a state of 2 or more) is changed by
//! no statement here; it can only be forgotten.
//!
//! A statement about a write reports how many rows it changed, and that number is the check:
//! changing a write that is absent or has ended is an error, not ignored. Nothing here begins or
//! commits a transaction, except where forgetting needs one of its own. The writer gives each
//! commit a savepoint, within one transaction for the batch.

use super::error::{Fault, JournalError};
use super::query::{COMMITS, get};
use super::record::{Change, Record, Remembered, State, millis};
use super::seal::{SealedPart, SealingKey};
use super::write_id::WriteId;
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, ToSql, params};

/// Version 1 of the format. Columns are never renamed or reused, and a number of a state never
/// changes: an older gateway must be able to read past what is new.
///
/// - `about` has the keys' checks and the number of commits.
/// - `writes` has one row for each write. `request` and `answer` are last, see `query.rs`.
/// - `workspaces` has the workspace of each credential that has or had a write.
///
/// The indexes serve, in this order: an `Idempotency-Key` (unique within a credential), recovery
/// and lists by state, lists of one credential, and forgetting what has ended.
pub(super) const SCHEMA: &str = "
    CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE writes (
        id BLOB NOT NULL UNIQUE,
        credential BLOB NOT NULL,
        operation TEXT NOT NULL,
        key BLOB,
        fingerprint BLOB NOT NULL,
        state INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        accepted INTEGER NOT NULL,
        dispatched INTEGER,
        ended INTEGER,
        summary BLOB,
        request BLOB NOT NULL,
        answer BLOB
    ) STRICT;
    CREATE TABLE workspaces (credential BLOB PRIMARY KEY, workspace BLOB NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX writes_by_key ON writes (credential, key) WHERE key IS NOT NULL;
    CREATE INDEX writes_by_state ON writes (state, id);
    CREATE INDEX writes_by_credential ON writes (credential, id);
    CREATE INDEX writes_by_end ON writes (ended) WHERE ended IS NOT NULL;";

/// Additions to the format since then. Earlier versions ignore it.
const SINCE: &str = "CREATE TABLE IF NOT EXISTS refused (credential BLOB PRIMARY KEY,
    since INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/// The columns of `writes` that an earlier version may not have had. New journals get the last one
/// in this way too.
const ADDED: [(&str, &str); 2] = [("summary", "BLOB"), ("client", "TEXT")];

/// Executes a statement, which is compiled only once. Returns the number of changed rows.
fn execute(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(values)
}

/// Adds what the format did not have when the journal was made. Safe to repeat. The version of the
/// format stays, because an earlier gateway can still use the file.
///
/// Only additions that an earlier gateway passes over belong here: a nullable column, another
/// table.
pub(super) fn complete(connection: &Connection) -> rusqlite::Result<()> {
    for (column, kind) in ADDED {
        let sql = format!("SELECT {column} FROM writes");
        if connection.prepare(&sql).is_err() {
            connection.execute_batch(&format!("ALTER TABLE writes ADD COLUMN {column} {kind}"))?;
        }
    }
    connection.execute_batch(SINCE)
}

/// Sets the number of transactions that have kept commits. Part of each transaction, so that the
/// number in the file is never ahead of what it counts.
pub(super) fn set_commits(connection: &Connection, commits: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)";
    execute(connection, sql, params![COMMITS, commits.to_be_bytes()])?;
    Ok(())
}

/// Seals every write under another key. Returns the number of writes. Fails at the first one that
/// does not open under the old key; the caller rolls back.
pub(super) fn reseal(
    connection: &Connection,
    old: &SealingKey,
    new: &SealingKey,
) -> Result<usize, Fault> {
    let mut ids = connection.prepare("SELECT id FROM writes")?;
    let ids = ids.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
    let ids: Vec<_> = ids.collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        let id = WriteId::from_bytes(*id).map_err(|_| Fault::Damaged(None))?;
        // Only the ids of all writes are in memory at once. Of the contents, one write at a time
        // is.
        let record = get(connection, old, id)?.ok_or(Fault::Damaged(Some(id)))?;
        let Sealed {
            request,
            answer,
            summary,
        } = Sealed::of(new, &record)?;
        let sql = "UPDATE writes SET request = ?2, answer = ?3, summary = ?4 WHERE id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![id.bytes(), request, answer, summary])?;
    }
    Ok(ids.len())
}

/// Applies one change.
///
/// Every statement about a write names `state < 2`: it finds no write that has ended, so an end is
/// never changed. An error undoes nothing by itself; the caller rolls back.
pub(super) fn apply(
    connection: &Connection,
    key: &SealingKey,
    change: &Change,
) -> Result<(), Fault> {
    let run = |sql, values: &[&dyn ToSql]| execute(connection, sql, values);
    match change {
        Change::Accept(record) => accept(connection, key, record),
        // Keeps `dispatched` and the number of attempts: the attempt took place, even without
        // effect.
        Change::Requeue(id) => {
            let sql = "UPDATE writes SET state = ?2 WHERE id = ?1 AND state < 2";
            found(run(sql, params![id.bytes(), State::Queued.number()]))
        }
        // Committed before the attempt is sent. After a crash, a write in this state may have taken
        // effect.
        Change::Dispatch(id, at) => {
            // The count of attempts stays at the largest `u32`.
            let sql = "UPDATE writes SET state = ?2, dispatched = ?3,
                attempts = min(attempts + 1, 4294967295) WHERE id = ?1 AND state < 2";
            let state = State::Dispatched.number();
            found(run(sql, params![id.bytes(), state, millis(*at)]))
        }
        // Rejected before the statement, which would otherwise erase the request of a write that
        // goes on.
        Change::End { state, .. } if !state.has_ended() => Err(Fault::Bug(not_final(*state))),
        Change::End {
            id,
            state,
            at,
            answer,
        } => {
            let answer = seal_some(key, *id, SealedPart::Answer, answer.as_ref())?;
            // The request is erased: `secure_delete` overwrites its pages.
            let sql = "UPDATE writes SET state = ?2, ended = ?3, answer = ?4, request = x''
                WHERE id = ?1 AND state < 2";
            let state = state.number();
            found(run(sql, params![id.bytes(), state, millis(*at), answer]))
        }
        // The unique index refuses a key that the new owner already uses.
        Change::Rebind {
            id,
            credential,
            key: of,
            request,
        } => {
            let request = seal(key, *id, SealedPart::Request, request)?;
            let sql = "UPDATE writes SET credential = ?2, key = ?3, request = ?4
                WHERE id = ?1 AND state < 2";
            let owner = credential.bytes();
            found(run(sql, params![id.bytes(), owner, of, request]))
        }
        Change::Withdraw(id) => {
            let sql = "DELETE FROM writes WHERE id = ?1 AND state < 2";
            found(run(sql, params![id.bytes()]))
        }
        // What is known of a credential has no state and is never absent.
        Change::Belongs(credential, workspace) => {
            let sql = "INSERT OR REPLACE INTO workspaces (credential, workspace) VALUES (?1, ?2)";
            run(sql, params![credential.bytes(), workspace])?;
            Ok(())
        }
        Change::Refused(credential, since) => {
            // The first time stays.
            let sql = "INSERT OR IGNORE INTO refused (credential, since) VALUES (?1, ?2)";
            run(sql, params![credential.bytes(), millis(*since)])?;
            Ok(())
        }
        // Changes nothing if the credential was not refused.
        Change::Admitted(credential) => {
            let sql = "DELETE FROM refused WHERE credential = ?1";
            run(sql, params![credential.bytes()])?;
            Ok(())
        }
    }
}

/// Recognises that an index has another write in the place of this one: the only constraint that a
/// caller can violate.
fn taken(error: rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Fault::Refused(JournalError::Taken),
        _ => error.into(),
    }
}

/// Requires that a statement has found its write, and no other one in its new place.
///
/// The error does not tell an absent write from one that has ended: neither can be changed.
fn found(changed: rusqlite::Result<usize>) -> Result<(), Fault> {
    match changed.map_err(taken)? {
        0 => Err(Fault::Refused(JournalError::Absent)),
        _ => Ok(()),
    }
}

/// Adds a write as the record has it, in whatever state.
fn accept(connection: &Connection, key: &SealingKey, record: &Record) -> Result<(), Fault> {
    let sealed = Sealed::of(key, record)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO writes (id, credential, operation, key, fingerprint, state, attempts,
            accepted, dispatched, ended, summary, client, request, answer)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let inserted = statement.execute(params![
        record.id.bytes(),
        record.credential.bytes(),
        &*record.operation,
        record.key,
        record.fingerprint,
        record.state.number(),
        record.attempts,
        millis(record.accepted),
        record.dispatched.map(millis),
        record.ended.map(millis),
        sealed.summary,
        record.client.as_deref(),
        sealed.request,
        sealed.answer,
    ]);
    inserted.map(|_| ()).map_err(taken)
}

/// The error of an end in a state that is none. The type of a change does not exclude it.
fn not_final(state: State) -> JournalError {
    JournalError::Broken(format!(
        "a write cannot end as {state:?}; this is a bug of the gateway, please report it"
    ))
}

/// The secrets of a record, sealed under a key. Each is bound to the write and to its part of it,
/// so that one copied into another column or row does not open.
struct Sealed {
    /// Empty if the request of a write that has ended was erased. Otherwise never, because even an
    /// empty request has a seal.
    request: Vec<u8>,
    /// `None` until the write ends, and for an end without a response.
    answer: Option<Vec<u8>>,
    /// `None` for a write of an earlier version, which had no summary.
    summary: Option<Vec<u8>>,
}

impl Sealed {
    /// Seals all parts of a record.
    fn of(key: &SealingKey, record: &Record) -> Result<Self, Fault> {
        let summary = Some(&record.summary).filter(|summary| !summary.is_empty());
        let is_erased = record.request.is_empty() && record.state.has_ended();
        Ok(Self {
            request: match is_erased {
                true => Vec::new(),
                false => seal(key, record.id, SealedPart::Request, &record.request)?,
            },
            answer: seal_some(key, record.id, SealedPart::Answer, record.answer.as_ref())?,
            summary: seal_some(key, record.id, SealedPart::Summary, summary)?,
        })
    }
}

/// Seals a part that a write may not have.
fn seal_some(
    key: &SealingKey,
    id: WriteId,
    part: SealedPart,
    plain: Option<&Bytes>,
) -> Result<Option<Vec<u8>>, Fault> {
    plain.map(|plain| seal(key, id, part, plain)).transpose()
}

/// Seals a part of a write. Fails only if the cipher does, which is no fault of the data.
fn seal(key: &SealingKey, id: WriteId, part: SealedPart, plain: &[u8]) -> Result<Vec<u8>, Fault> {
    key.seal(id, part, plain).map_err(|_| {
        Fault::Bug(JournalError::Broken(
            "the cipher of the journal failed; restart, and check the machine".into(),
        ))
    })
}

/// Forgets at most `most` writes that ended before this, in no particular order. Returns how many:
/// fewer than `most` means that none is left.
///
/// The caller repeats it in pieces, so that commits get in between.
pub(super) fn forget(connection: &Connection, before: i64, most: u32) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM writes WHERE rowid IN
            (SELECT rowid FROM writes WHERE ended < ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute(params![before, most])? as u64)
}

/// Forgets the workspaces and rejections of credentials that have no writes.
///
/// A credential with any write keeps both, even if all of its writes have ended.
pub(super) fn forget_credentials(connection: &Connection) -> Result<(), Fault> {
    for table in ["workspaces", "refused"] {
        let mut statement = connection.prepare_cached(&format!(
            "DELETE FROM {table} WHERE NOT EXISTS
                (SELECT 1 FROM writes WHERE writes.credential = {table}.credential)"
        ))?;
        statement.execute([])?;
    }
    Ok(())
}

/// Forgets the first of these rows until that is enough. Returns whether it is, or there were none.
pub(super) fn forget_these(
    connection: &Connection,
    rows: &[(i64, u64)],
    least: &Remembered,
    forgotten: &mut Remembered,
) -> Result<bool, Fault> {
    // `unchecked` only means that the compiler does not see it: the caller holds the connection.
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached("DELETE FROM writes WHERE rowid = ?1")?;
    // Taken over only once the transaction is committed.
    let mut sum = *forgotten;
    for (row, bytes) in rows {
        if sum.reaches(least) {
            break;
        }
        statement.execute([row])?;
        sum.add(*bytes);
    }
    drop(statement);
    transaction.commit()?;
    *forgotten = sum;
    Ok(rows.is_empty() || sum.reaches(least))
}
