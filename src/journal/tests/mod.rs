//! One contract for every journal, a model that both follow, and what only a disk can do.

mod contract;
mod disk;
mod memory;
mod model;

use super::record::time;
use super::{Change, Journal, Record, SealingKey, State, WriteId, WriteIds};
use crate::credential::Credential;
use bytes::Bytes;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Never to be found in a file.
const SECRET: &str = "Bearer sgp_SECRET";

fn key() -> SealingKey {
    SealingKey::new(&[7; 32]).unwrap()
}

fn credential(n: u8) -> Credential {
    Credential::from_bytes([n; 16])
}

/// So many milliseconds after some day.
fn at(millis: u16) -> SystemTime {
    time(1_700_000_000_000 + i64::from(millis))
}

fn new_id() -> WriteId {
    static IDS: OnceLock<WriteIds> = OnceLock::new();
    IDS.get_or_init(WriteIds::default).next(at(0))
}

/// A new write of this credential.
fn write(of: u8) -> Record {
    Record {
        id: new_id(),
        credential: credential(of),
        client: (of % 2 == 1).then(|| "hr-sync".into()),
        operation: "create-invites".into(),
        key: None,
        fingerprint: [of; 32],
        summary: format!("POST /invites {SECRET}").into(),
        request: format!("POST /invites {SECRET}").into(),
        state: State::Queued,
        attempts: 0,
        accepted: at(of.into()),
        dispatched: None,
        ended: None,
        answer: None,
    }
}

fn accept(record: &Record) -> Change {
    Change::Accept(Box::new(record.clone()))
}

fn end(id: WriteId, state: State, millis: u16) -> Change {
    Change::End {
        id,
        state,
        at: at(millis),
        answer: Some(Bytes::from(format!("201 {SECRET}"))),
    }
}

/// As a list shows it.
fn bare(record: &Record) -> Record {
    Record {
        request: Bytes::new(),
        answer: None,
        ..record.clone()
    }
}

/// A burst of writes must not hold memory for as long as the process lives.
#[tokio::test(start_paused = true)]
async fn a_journal_in_memory_gives_back_what_it_forgets() {
    let journal = Journal::in_memory().unwrap();
    let pages = || {
        let sql = "PRAGMA page_count";
        let count = journal.hold().query_row(sql, [], |row| row.get(0));
        count.unwrap()
    };
    let empty: u32 = pages();
    for n in 0..200 {
        let mut record = write(n % 3);
        record.request = vec![n; 8_192].into();
        let ended = end(record.id, State::Succeeded, 2);
        journal.commit(vec![accept(&record)]).await.unwrap();
        assert!(pages() > empty);
        journal.commit(vec![ended]).await.unwrap();
    }
    assert_eq!(journal.forget(at(60_000)).await.unwrap(), 200);
    assert_eq!(pages(), empty);
}
