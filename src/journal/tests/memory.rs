//! The model that the journal is compared with.

use crate::credential::Credential;
use crate::journal::OwnerFilter;
use crate::journal::record::{millis, time};
use crate::journal::{
    Change, Filter, JournalError, KeyHash, Record, Remembered, State, WorkspaceHash, WriteId,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// Keeps writes in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    writes: BTreeMap<WriteId, Record>,
    workspaces: HashMap<Credential, WorkspaceHash>,
    refused: BTreeMap<Credential, SystemTime>,
}

/// What a commit has changed: what was there before.
type Undo = Vec<Before>;

#[derive(Debug)]
enum Before {
    Write(WriteId, Option<Box<Record>>),
    Workspace(Credential, Option<WorkspaceHash>),
    Refused(Credential, Option<SystemTime>),
}

impl Kept {
    fn commit(&mut self, changes: Vec<Change>) -> Result<(), JournalError> {
        let mut undo = Undo::new();
        let result = changes
            .into_iter()
            .try_for_each(|change| self.apply(change, &mut undo));
        if result.is_err() {
            for before in undo.into_iter().rev() {
                self.put_back(before);
            }
        }
        result
    }

    fn put_back(&mut self, before: Before) {
        match before {
            Before::Write(id, Some(record)) => drop(self.writes.insert(id, *record)),
            Before::Write(id, None) => drop(self.writes.remove(&id)),
            Before::Workspace(of, Some(hash)) => drop(self.workspaces.insert(of, hash)),
            Before::Workspace(of, None) => drop(self.workspaces.remove(&of)),
            Before::Refused(of, Some(since)) => drop(self.refused.insert(of, since)),
            Before::Refused(of, None) => drop(self.refused.remove(&of)),
        }
    }

    fn apply(&mut self, change: Change, undo: &mut Undo) -> Result<(), JournalError> {
        match change {
            Change::Accept(record) => self.accept(*record, undo),
            Change::Requeue(id) => {
                self.unended(id, undo)?.state = State::Queued;
                Ok(())
            }
            Change::Dispatch(id, at) => {
                let record = self.unended(id, undo)?;
                record.state = State::Dispatched;
                record.attempts = record.attempts.saturating_add(1);
                record.dispatched = Some(whole(at));
                Ok(())
            }
            Change::End {
                id,
                state,
                at,
                answer,
            } => {
                let record = self.unended(id, undo)?;
                record.state = state;
                record.ended = Some(whole(at));
                record.answer = answer;
                record.request = Bytes::new();
                Ok(())
            }
            Change::Rebind {
                id,
                credential,
                key,
                request,
            } => {
                let under_key = key.and_then(|key| self.find(credential, key));
                let is_taken = under_key.is_some_and(|other| other.id != id);
                let record = self.unended(id, undo)?;
                if is_taken {
                    return Err(JournalError::Taken);
                }
                (record.credential, record.key) = (credential, key);
                record.request = request;
                Ok(())
            }
            Change::Withdraw(id) => {
                self.unended(id, undo)?;
                self.writes.remove(&id);
                Ok(())
            }
            Change::Belongs(credential, workspace) => {
                let before = self.workspaces.insert(credential, workspace);
                undo.push(Before::Workspace(credential, before));
                Ok(())
            }
            Change::Refused(credential, since) => {
                let before = self.refused.get(&credential).copied();
                undo.push(Before::Refused(credential, before));
                self.refused.entry(credential).or_insert(whole(since));
                Ok(())
            }
            Change::Admitted(credential) => {
                let before = self.refused.remove(&credential);
                undo.push(Before::Refused(credential, before));
                Ok(())
            }
        }
    }

    fn accept(&mut self, record: Record, undo: &mut Undo) -> Result<(), JournalError> {
        let under_key = |key| self.find(record.credential, key).is_some();
        if self.writes.contains_key(&record.id) || record.key.is_some_and(under_key) {
            return Err(JournalError::Taken);
        }
        undo.push(Before::Write(record.id, None));
        let record = Record {
            accepted: whole(record.accepted),
            dispatched: record.dispatched.map(whole),
            ended: record.ended.map(whole),
            ..record
        };
        self.writes.insert(record.id, record);
        Ok(())
    }

    fn unended(&mut self, id: WriteId, undo: &mut Undo) -> Result<&mut Record, JournalError> {
        let record = self.writes.get_mut(&id).ok_or(JournalError::Absent)?;
        if record.state.has_ended() {
            return Err(JournalError::Absent);
        }
        undo.push(Before::Write(id, Some(Box::new(record.clone()))));
        Ok(record)
    }

    fn find(&self, credential: Credential, key: KeyHash) -> Option<&Record> {
        self.writes
            .values()
            .find(|record| record.credential == credential && record.key == Some(key))
    }
}

/// What is kept of a write that has ended, in bytes.
fn kept_bytes(record: &Record) -> u64 {
    let answer = record.answer.as_ref().map_or(0, Bytes::len);
    (answer + record.summary.len()) as u64
}

fn shows(filter: &Filter, record: &Record) -> bool {
    let is_owner = match &filter.owners {
        OwnerFilter::All => true,
        OwnerFilter::Sharing(credential) => *credential == record.credential,
        OwnerFilter::One(owner) => {
            (owner.credential, &owner.client) == (record.credential, &record.client)
        }
    };
    is_owner
        && filter
            .operation
            .as_ref()
            .is_none_or(|operation| *operation == record.operation)
        && filter.state.is_none_or(|state| state == record.state)
        && filter.after.is_none_or(|after| after < record.id)
}

/// The time as the one on disk keeps it.
fn whole(at: SystemTime) -> SystemTime {
    time(millis(at))
}

impl Memory {
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        self.kept.lock().commit(changes)
    }

    pub(super) fn get(&self, id: WriteId) -> Result<Option<Record>, JournalError> {
        Ok(self.kept.lock().writes.get(&id).cloned())
    }

    pub(super) fn find(
        &self,
        credential: Credential,
        key: KeyHash,
    ) -> Result<Option<Record>, JournalError> {
        Ok(self.kept.lock().find(credential, key).cloned())
    }

    pub(super) fn list(&self, filter: Filter, most: usize) -> Result<Vec<Record>, JournalError> {
        let kept = self.kept.lock();
        let shown = kept.writes.values().filter(|record| shows(&filter, record));
        let bare = shown.take(most).map(|record| Record {
            request: Bytes::new(),
            answer: None,
            ..record.clone()
        });
        Ok(bare.collect())
    }

    pub(super) fn unfinished(&self) -> Result<Vec<Record>, JournalError> {
        let kept = self.kept.lock();
        let unfinished = kept
            .writes
            .values()
            .filter(|record| !record.state.has_ended());
        Ok(unfinished.cloned().collect())
    }

    pub(super) fn newest(&self) -> Result<Option<WriteId>, JournalError> {
        let newest = self.kept.lock().writes.last_key_value().map(|(id, _)| *id);
        Ok(newest)
    }

    pub(super) fn workspace(
        &self,
        credential: Credential,
    ) -> Result<Option<WorkspaceHash>, JournalError> {
        Ok(self.kept.lock().workspaces.get(&credential).copied())
    }

    pub(super) fn refused(&self) -> Result<Vec<(Credential, SystemTime)>, JournalError> {
        let kept = self.kept.lock();
        Ok(kept.refused.iter().map(|(of, at)| (*of, *at)).collect())
    }

    pub(super) fn remembered(&self) -> Result<HashMap<Credential, Remembered>, JournalError> {
        let mut remembered: HashMap<Credential, Remembered> = HashMap::new();
        let kept = self.kept.lock();
        for record in kept.writes.values().filter(|it| it.ended.is_some()) {
            let of = remembered.entry(record.credential).or_default();
            of.add(kept_bytes(record));
        }
        Ok(remembered)
    }

    pub(super) fn forget_oldest(
        &self,
        of: Option<Credential>,
        least: Remembered,
        ended_before: SystemTime,
    ) -> Result<Remembered, JournalError> {
        let mut kept = self.kept.lock();
        let before = whole(ended_before);
        let records = kept.writes.values();
        let mut oldest: Vec<_> = records
            .filter(|record| of.is_none_or(|of| of == record.credential))
            .filter_map(|record| Some((record.ended?, record.id, kept_bytes(record))))
            .filter(|(ended, ..)| *ended < before)
            .collect();
        oldest.sort_unstable();
        let mut forgotten = Remembered::default();
        for (_, id, bytes) in oldest {
            if forgotten.reaches(&least) {
                break;
            }
            kept.writes.remove(&id);
            forgotten.add(bytes);
        }
        Ok(forgotten)
    }

    pub(super) fn forget(&self, ended_before: SystemTime) -> Result<u64, JournalError> {
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        let all = kept.writes.len();
        let before = whole(ended_before);
        kept.writes
            .retain(|_, record| record.ended.is_none_or(|ended| ended >= before));
        let writes = &kept.writes;
        let has_any = |of: Credential| writes.values().any(|record| record.credential == of);
        kept.workspaces.retain(|credential, _| has_any(*credential));
        kept.refused.retain(|credential, _| has_any(*credential));
        Ok((all - kept.writes.len()) as u64)
    }
}
