//! The tables of the journal on disk, and every statement about them.
//!
//! Summaries, requests and answers go in and come out sealed; the rest is as in [`Record`], times
//! in milliseconds. The last two stand at the end of a row, so that a list reads past none of them.

use super::Fault;
use crate::credential::Credential;
use crate::journal::seal::Kind;
use crate::journal::{
    Change, Filter, JournalError, Key, KeyHash, Record, Remembered, State, WorkspaceHash, WriteId,
    millis, not_an_end, time,
};
use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params, params_from_iter};
use std::collections::HashMap;
use std::time::SystemTime;

/// Version 1 of the format.
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

/// What was added to the format since; versions before read past it.
const SINCE: &str = "CREATE TABLE IF NOT EXISTS refused (credential BLOB PRIMARY KEY,
    since INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

const ALL: &str = "SELECT id, credential, operation, key, fingerprint, state, attempts, accepted,
    dispatched, ended, summary, request, answer FROM writes";
const BARE: &str = "SELECT id, credential, operation, key, fingerprint, state, attempts, accepted,
    dispatched, ended, summary FROM writes";

/// Adds what a journal does not have that was made before it belonged to the format.
pub(super) fn complete(connection: &Connection) -> rusqlite::Result<()> {
    if connection.prepare("SELECT summary FROM writes").is_err() {
        connection.execute_batch("ALTER TABLE writes ADD COLUMN summary BLOB")?;
    }
    connection.execute_batch(SINCE)
}

/// Where the number of commits is.
const COMMITS: &str = "commits";

/// How many transactions have kept commits; none were counted by earlier versions.
pub(super) fn commits(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM about WHERE name = ?1";
    let kept = connection.query_row(sql, [COMMITS], |row| row.get::<_, [u8; 8]>(0));
    Ok(kept.optional()?.map_or(0, u64::from_be_bytes))
}

pub(super) fn set_commits(connection: &Connection, commits: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute(params![COMMITS, commits.to_be_bytes()])?;
    Ok(())
}

/// Whether there is no write.
pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM writes)", [], |row| {
        row.get(0)
    })
}

/// Seals every write under another key; how many.
pub(super) fn seal_anew(connection: &Connection, old: &Key, new: &Key) -> Result<usize, Fault> {
    let mut ids = connection.prepare("SELECT id FROM writes")?;
    let ids = ids.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
    let ids: Vec<_> = ids.collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        let id = WriteId::from_bytes(*id).map_err(|_| Fault::Damaged(None))?;
        let record = get(connection, old, id)?.ok_or(Fault::Damaged(Some(id)))?;
        let request = match record.request.is_empty() && record.state.has_ended() {
            true => Vec::new(),
            false => seal(new, id, Kind::Request, &record.request)?,
        };
        let answer = record.answer.as_ref();
        let answer = answer
            .map(|answer| seal(new, id, Kind::Answer, answer))
            .transpose()?;
        let summary = (!record.summary.is_empty())
            .then(|| seal(new, id, Kind::Summary, &record.summary))
            .transpose()?;
        let sql = "UPDATE writes SET request = ?2, answer = ?3, summary = ?4 WHERE id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![id.bytes(), request, answer, summary])?;
    }
    Ok(ids.len())
}

/// Changes a write that has not ended (the states below 2), or what is known of a credential.
pub(super) fn apply(connection: &Connection, key: &Key, change: &Change) -> Result<(), Fault> {
    match change {
        Change::Accept(record) => accept(connection, key, record),
        Change::Requeue(id) => {
            let sql = "UPDATE writes SET state = ?2 WHERE id = ?1 AND state < 2";
            let mut statement = connection.prepare_cached(sql)?;
            found(statement.execute(params![id.bytes(), State::Queued.number()])?)
        }
        Change::Dispatch(id, at) => {
            let sql = "UPDATE writes SET state = ?2, dispatched = ?3,
                attempts = min(attempts + 1, 4294967295) WHERE id = ?1 AND state < 2";
            let mut statement = connection.prepare_cached(sql)?;
            let state = State::Dispatched.number();
            found(statement.execute(params![id.bytes(), state, millis(*at)])?)
        }
        Change::End { state, .. } if !state.has_ended() => Err(Fault::Bug(not_an_end(*state))),
        Change::End {
            id,
            state,
            at,
            answer,
        } => {
            let answer = answer
                .as_ref()
                .map(|answer| seal(key, *id, Kind::Answer, answer))
                .transpose()?;
            let sql = "UPDATE writes SET state = ?2, ended = ?3, answer = ?4, request = x''
                WHERE id = ?1 AND state < 2";
            let mut statement = connection.prepare_cached(sql)?;
            found(statement.execute(params![id.bytes(), state.number(), millis(*at), answer])?)
        }
        Change::Rebind {
            id,
            credential,
            key: of,
            request,
        } => {
            let request = seal(key, *id, Kind::Request, request)?;
            let sql = "UPDATE writes SET credential = ?2, key = ?3, request = ?4
                WHERE id = ?1 AND state < 2";
            let mut statement = connection.prepare_cached(sql)?;
            let changed = statement.execute(params![id.bytes(), credential.bytes(), of, request]);
            found(changed.map_err(taken)?)
        }
        Change::Belongs(credential, workspace) => {
            let sql = "INSERT OR REPLACE INTO workspaces (credential, workspace) VALUES (?1, ?2)";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute(params![credential.bytes(), workspace])?;
            Ok(())
        }
        Change::Withdraw(id) => {
            let sql = "DELETE FROM writes WHERE id = ?1 AND state < 2";
            let mut statement = connection.prepare_cached(sql)?;
            found(statement.execute([id.bytes()])?)
        }
        Change::Refused(credential, since) => {
            let sql = "INSERT OR IGNORE INTO refused (credential, since) VALUES (?1, ?2)";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute(params![credential.bytes(), millis(*since)])?;
            Ok(())
        }
        Change::Admitted(credential) => {
            let sql = "DELETE FROM refused WHERE credential = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute([credential.bytes()])?;
            Ok(())
        }
    }
}

/// An index has another write where this one is to be.
fn taken(error: rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Fault::Refused(JournalError::Taken),
        _ => error.into(),
    }
}

fn accept(connection: &Connection, key: &Key, record: &Record) -> Result<(), Fault> {
    let request = seal(key, record.id, Kind::Request, &record.request)?;
    let answer = record
        .answer
        .as_ref()
        .map(|answer| seal(key, record.id, Kind::Answer, answer))
        .transpose()?;
    let summary = (!record.summary.is_empty())
        .then(|| seal(key, record.id, Kind::Summary, &record.summary))
        .transpose()?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO writes (id, credential, operation, key, fingerprint, state, attempts,
            accepted, dispatched, ended, summary, request, answer)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
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
        summary,
        request,
        answer,
    ]);
    inserted.map(|_| ()).map_err(taken)
}

fn found(changed: usize) -> Result<(), Fault> {
    match changed {
        0 => Err(Fault::Refused(JournalError::Absent)),
        _ => Ok(()),
    }
}

fn seal(key: &Key, id: WriteId, kind: Kind, plain: &[u8]) -> Result<Vec<u8>, Fault> {
    key.seal(id, kind, plain).map_err(|_| {
        Fault::Bug(JournalError::Broken(
            "the cipher of the journal failed; restart, and check the machine".into(),
        ))
    })
}

pub(super) fn get(
    connection: &Connection,
    key: &Key,
    id: WriteId,
) -> Result<Option<Record>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{ALL} WHERE id = ?1"))?;
    let mut rows = statement.query([id.bytes()])?;
    rows.next()?.map(|row| whole(row, key)).transpose()
}

pub(super) fn find(
    connection: &Connection,
    seal: &Key,
    credential: Credential,
    key: KeyHash,
) -> Result<Option<Record>, Fault> {
    let sql = format!("{ALL} WHERE credential = ?1 AND key = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([credential.bytes(), &key])?;
    rows.next()?.map(|row| whole(row, seal)).transpose()
}

pub(super) fn list(
    connection: &Connection,
    key: &Key,
    filter: Filter,
    most: usize,
) -> Result<Vec<Record>, Fault> {
    let bytes = |bytes: &[u8; 16]| Value::Blob(bytes.to_vec());
    let conditions = [
        (
            "credential = ?",
            filter.credential.map(|one| bytes(one.bytes())),
        ),
        (
            "operation = ?",
            filter.operation.map(|name| Value::Text(name.to_string())),
        ),
        (
            // Whoever asks for one credential reads past its own writes alone, not past all those
            // in this state: the plus keeps the index of states out of it.
            match filter.credential {
                Some(_) => "+state = ?",
                None => "state = ?",
            },
            filter.state.map(|state| Value::Integer(state.number())),
        ),
        ("id > ?", filter.after.map(|id| bytes(id.bytes()))),
    ];
    let mut sql = format!("{BARE} WHERE TRUE");
    let mut values = Vec::new();
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    }
    sql.push_str(" ORDER BY id LIMIT ?");
    values.push(Value::Integer(i64::try_from(most).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(bare(row, key)?);
    }
    Ok(records)
}

pub(super) fn unfinished(connection: &Connection, key: &Key) -> Result<Vec<Record>, Fault> {
    let sql = format!("{ALL} WHERE state IN (?1, ?2) ORDER BY id");
    let mut statement = connection.prepare_cached(&sql)?;
    let states = [State::Queued, State::Dispatched].map(State::number);
    let mut rows = statement.query(states)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(whole(row, key)?);
    }
    Ok(records)
}

pub(super) fn newest(connection: &Connection) -> Result<Option<WriteId>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM writes ORDER BY id DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let id = row.get(0).ok().and_then(|id| WriteId::from_bytes(id).ok());
    id.map(Some).ok_or(Fault::Damaged(None))
}

/// Forgets at most so many that ended before this.
pub(super) fn forget(connection: &Connection, before: i64, most: u32) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM writes WHERE rowid IN
            (SELECT rowid FROM writes WHERE ended < ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute(params![before, most])? as u64)
}

pub(super) fn workspace(
    connection: &Connection,
    credential: Credential,
) -> Result<Option<WorkspaceHash>, Fault> {
    let sql = "SELECT workspace FROM workspaces WHERE credential = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([credential.bytes()])?;
    let workspace = rows.next()?.map(|row| row.get(0)).transpose();
    workspace.map_err(|_| Fault::Damaged(None))
}

pub(super) fn refused(connection: &Connection) -> Result<Vec<(Credential, SystemTime)>, Fault> {
    let sql = "SELECT credential, since FROM refused ORDER BY credential";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((Credential::from_bytes(row.get(0)?), time(row.get(1)?)))
    })?;
    let refused: rusqlite::Result<Vec<_>> = rows.collect();
    refused.map_err(|_| Fault::Damaged(None))
}

/// Forgets what is known of credentials that have no writes.
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

/// Counts those that have ended among at most so many rows behind this one, by credential. The last
/// of them, unless there are no more.
pub(super) fn count_ended(
    connection: &Connection,
    after: i64,
    most: u32,
    counted: &mut HashMap<Credential, Remembered>,
) -> Result<Option<i64>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, credential, ended IS NOT NULL,
            ifnull(length(answer), 0) + ifnull(length(summary), 0)
            FROM writes WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, most])?;
    let (mut last, mut seen) = (None, 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        last = Some(row.get(0)?);
        if row.get(2)? {
            let credential = row.get(1).map_err(|_| Fault::Damaged(None))?;
            let of = counted.entry(Credential::from_bytes(credential));
            of.or_default().add(size(row.get(3)?));
        }
    }
    Ok(last.filter(|_| seen == most))
}

/// A length that SQLite tells.
fn size(length: i64) -> u64 {
    u64::try_from(length).unwrap_or(0)
}

/// The rows of at most so many writes that ended before this, of one credential or of all, and
/// their bytes; the first that ended first.
pub(super) fn oldest(
    connection: &Connection,
    of: Option<Credential>,
    before: i64,
    most: u32,
) -> Result<Vec<(i64, u64)>, Fault> {
    let of_one = of.map_or("", |_| "AND credential = ?3");
    let mut statement = connection.prepare_cached(&format!(
        "SELECT rowid, ifnull(length(answer), 0) + ifnull(length(summary), 0) FROM writes
            WHERE ended < ?1 {of_one} ORDER BY ended, id LIMIT ?2"
    ))?;
    let mut values = vec![Value::Integer(before), Value::Integer(most.into())];
    values.extend(of.map(|of| Value::Blob(of.bytes().to_vec())));
    let rows = statement.query_map(params_from_iter(values), |row| {
        Ok((row.get(0)?, size(row.get(1)?)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Forgets the first of these rows until that is enough; whether it is, or there were none.
pub(super) fn forget_these(
    connection: &Connection,
    rows: &[(i64, u64)],
    least: &Remembered,
    forgotten: &mut Remembered,
) -> Result<bool, Fault> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached("DELETE FROM writes WHERE rowid = ?1")?;
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

/// A row of [`ALL`].
fn whole(row: &Row<'_>, key: &Key) -> Result<Record, Fault> {
    let record = bare(row, key)?;
    let damaged = |_| Fault::Damaged(Some(record.id));
    let request = match row
        .get_ref(11)?
        .as_blob()
        .map_err(|_| Fault::Damaged(Some(record.id)))?
    {
        [] if record.state.has_ended() => Bytes::new(),
        sealed => key
            .open(record.id, Kind::Request, sealed)
            .map_err(damaged)?,
    };
    let sealed: Option<Vec<u8>> = row.get(12)?;
    let answer = sealed
        .map(|sealed| key.open(record.id, Kind::Answer, &sealed))
        .transpose()
        .map_err(damaged)?;
    Ok(Record {
        request,
        answer,
        ..record
    })
}

/// A row of [`BARE`], or the beginning of one of [`ALL`].
fn bare(row: &Row<'_>, key: &Key) -> Result<Record, Fault> {
    let id = row.get(0).ok().and_then(|id| WriteId::from_bytes(id).ok());
    let id = id.ok_or(Fault::Damaged(None))?;
    let read = || -> rusqlite::Result<Option<Record>> {
        let Some(state) = State::of_number(row.get(5)?) else {
            return Ok(None);
        };
        let operation: String = row.get(2)?;
        Ok(Some(Record {
            id,
            credential: Credential::from_bytes(row.get(1)?),
            operation: operation.into(),
            key: row.get(3)?,
            fingerprint: row.get(4)?,
            summary: match row.get::<_, Option<Vec<u8>>>(10)? {
                None => Bytes::new(),
                Some(sealed) => match key.open(id, Kind::Summary, &sealed) {
                    Ok(summary) => summary,
                    Err(_) => return Ok(None),
                },
            },
            request: Bytes::new(),
            state,
            attempts: row.get(6)?,
            accepted: time(row.get(7)?),
            dispatched: row.get::<_, Option<i64>>(8)?.map(time),
            ended: row.get::<_, Option<i64>>(9)?.map(time),
            answer: None,
        }))
    };
    // Values of another kind or length than were written.
    read().ok().flatten().ok_or(Fault::Damaged(Some(id)))
}

impl State {
    /// As it is kept: never to be changed within a version of the format.
    fn number(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::Dispatched => 1,
            Self::Succeeded => 2,
            Self::Failed => 3,
            Self::Unknown => 4,
            Self::Cancelled => 5,
        }
    }

    fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}
