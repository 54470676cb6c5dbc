//! Every statement that reads the journal.
//!
//! Sealed columns are opened here, the others returned as in [`Record`]. Requests and responses
//! stand at the end of a row, so that SQLite does not read them for a list. A row that makes no
//! sense is reported as damaged and never guessed.
//!
//! Nothing here writes. Each function runs while its caller has the one connection locked, so a
//! slow one delays every commit. That is why lists are limited and why counting goes in pieces.
//!
//! Statements are cached by their text. Every text is fixed, or put together from few parts.

use super::error::Fault;
use super::record::{Filter, KeyHash, OwnerFilter, Record, Remembered, State, WorkspaceHash, time};
use super::seal::{SealedPart, SealingKey};
use super::write_id::WriteId;
use crate::credential::Credential;
use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use std::collections::HashMap;
use std::time::SystemTime;

/// Where the table `about` has the number of commits.
pub(super) const COMMITS: &str = "commits";

/// All columns. [`whole`] and [`bare`] read them by their places.
const ALL: &str = "SELECT id, credential, operation, key, fingerprint, state, attempts, accepted,
    dispatched, ended, summary, client, request, answer FROM writes";
/// The columns of a list: the first of [`ALL`].
const BARE: &str = "SELECT id, credential, operation, key, fingerprint, state, attempts, accepted,
    dispatched, ended, summary, client FROM writes";

/// Returns the number of transactions that have kept commits. Earlier versions counted none.
pub(super) fn commits(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM about WHERE name = ?1";
    let kept = connection.query_row(sql, [COMMITS], |row| row.get::<_, [u8; 8]>(0));
    Ok(kept.optional()?.map_or(0, u64::from_be_bytes))
}

/// Returns whether there is no write. Such a journal takes any key: nothing in it is sealed.
pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM writes)", [], |row| {
        row.get(0)
    })
}

/// Returns a write with everything that is kept of it, or `None` if there is none of this id.
///
/// Damage is an error and never `None`, which would say that the write was never accepted.
pub(super) fn get(
    connection: &Connection,
    key: &SealingKey,
    id: WriteId,
) -> Result<Option<Record>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{ALL} WHERE id = ?1"))?;
    let mut rows = statement.query([id.bytes()])?;
    rows.next()?.map(|row| whole(row, key)).transpose()
}

/// Returns the write of a credential under a key; an index makes sure that there is only one.
///
/// The write may have ended. It is found until it is forgotten, which is how a repeated request
/// gets the first response.
pub(super) fn find(
    connection: &Connection,
    seal: &SealingKey,
    credential: Credential,
    key: KeyHash,
) -> Result<Option<Record>, Fault> {
    let sql = format!("{ALL} WHERE credential = ?1 AND key = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([credential.bytes(), &key])?;
    rows.next()?.map(|row| whole(row, seal)).transpose()
}

/// Returns at most `most` writes that match, without requests and responses, in the order of their
/// ids.
///
/// The statement is put together from the conditions that are given, in a fixed order, so that
/// there are few texts to compile and to keep. Values are always bound, never written into the
/// text.
pub(super) fn list(
    connection: &Connection,
    key: &SealingKey,
    filter: Filter,
    most: usize,
) -> Result<Vec<Record>, Fault> {
    // Ids and hashes are compared as they are stored: as bytes.
    let bytes = |bytes: &[u8; 16]| Value::Blob(bytes.to_vec());
    let (credential, client) = match filter.owners {
        OwnerFilter::All => (None, None),
        OwnerFilter::Sharing(credential) => (Some(credential), None),
        OwnerFilter::One(owner) => {
            let client = owner.client.map(|name| Value::Text(name.to_string()));
            (Some(owner.credential), Some(client.unwrap_or(Value::Null)))
        }
    };
    let conditions = [
        ("credential = ?", credential.map(|one| bytes(one.bytes()))),
        ("client IS ?", client),
        (
            "operation = ?",
            filter.operation.map(|name| Value::Text(name.to_string())),
        ),
        (
            // The plus keeps the index of states out of a query for one credential, which then
            // scans that credential's writes and not all those in this state.
            match credential {
                Some(_) => "+state = ?",
                None => "state = ?",
            },
            filter.state.map(|state| Value::Integer(state.number())),
        ),
        // Ids grow in the order of acceptance, so the last id of one page continues the list.
        // Writes accepted meanwhile come behind it.
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

/// Returns the writes that have not ended, in the order of their ids, with their requests. All of
/// them are in memory at once, which their callers bound when they accept.
///
/// Called when the gateway starts. One damaged row fails the whole call, because a write that is
/// left out would be lost in silence.
pub(super) fn unfinished(connection: &Connection, key: &SealingKey) -> Result<Vec<Record>, Fault> {
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

/// Returns the newest id, which is the greatest, because ids grow. Fails if it is none: continuing
/// from a wrong one could give an id twice.
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

/// Returns the workspace of a credential, or `None` if it was never recorded or is forgotten.
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

/// Returns the credentials that the API rejects, and since when, in the order of their hashes.
pub(super) fn refused(connection: &Connection) -> Result<Vec<(Credential, SystemTime)>, Fault> {
    let sql = "SELECT credential, since FROM refused ORDER BY credential";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((Credential::from_bytes(row.get(0)?), time(row.get(1)?)))
    })?;
    let refused: rusqlite::Result<Vec<_>> = rows.collect();
    refused.map_err(|_| Fault::Damaged(None))
}

/// Counts writes that have ended, by credential, among at most `most` rows behind `after`. Returns
/// the last of those rows, or `None` if there are no more.
///
/// Counted in pieces, so that commits get in between. A write that ends meanwhile in a row that was
/// counted already is missed, so the sum is a lower bound until the next count.
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
    // Rows that have not ended count as seen, but not as ended.
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
    // A piece that is not full was the last.
    Ok(last.filter(|_| seen == most))
}

/// Returns a length as SQLite has it, which is never negative.
fn size(length: i64) -> u64 {
    u64::try_from(length).unwrap_or(0)
}

/// Returns the rows of at most `most` writes that ended before this, of one credential or of all,
/// and their bytes. The first that ended comes first, and of those that ended together the first
/// accepted.
///
/// Only rows and sizes are read, no contents. The size is what `count_ended` adds up, so that both
/// sums agree.
pub(super) fn oldest(
    connection: &Connection,
    of: Option<Credential>,
    before: i64,
    most: u32,
) -> Result<Vec<(i64, u64)>, Fault> {
    // Two texts of the statement, so that each uses the index that serves it.
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

/// Reads a row of [`ALL`]. An empty request of an ended write was erased; of any other write it is
/// damage, because even an empty one has a seal.
fn whole(row: &Row<'_>, key: &SealingKey) -> Result<Record, Fault> {
    // The small columns come first. Their id is needed to open the sealed ones, and to report which
    // write is damaged.
    let record = bare(row, key)?;
    let damaged = |_| Fault::Damaged(Some(record.id));
    let request = match row
        .get_ref(12)?
        .as_blob()
        .map_err(|_| Fault::Damaged(Some(record.id)))?
    {
        [] if record.state.has_ended() => Bytes::new(),
        sealed => key
            .open(record.id, SealedPart::Request, sealed)
            .map_err(damaged)?,
    };
    let sealed: Option<Vec<u8>> = row.get(13)?;
    let answer = sealed
        .map(|sealed| key.open(record.id, SealedPart::Answer, &sealed))
        .transpose()
        .map_err(damaged)?;
    Ok(Record {
        request,
        answer,
        ..record
    })
}

/// Reads a row of [`BARE`], or the beginning of one of [`ALL`]. Request and response are left
/// empty.
///
/// An id that cannot be read leaves nothing to name, so the damage is reported without one.
fn bare(row: &Row<'_>, key: &SealingKey) -> Result<Record, Fault> {
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
            client: row.get::<_, Option<String>>(11)?.map(Into::into),
            operation: operation.into(),
            key: row.get(3)?,
            fingerprint: row.get(4)?,
            summary: match row.get::<_, Option<Vec<u8>>>(10)? {
                None => Bytes::new(),
                Some(sealed) => match key.open(id, SealedPart::Summary, &sealed) {
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
    // Fails for values of another type or length than were written.
    read().ok().flatten().ok_or(Fault::Damaged(Some(id)))
}
