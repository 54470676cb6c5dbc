//! A journal that ends with its process: for tests, and the model that the one on disk is compared
//! with.

use super::{
    Change, Filter, Journal, JournalError, KeyHash, Later, Record, Remembered, State,
    WorkspaceHash, WriteId, millis, not_an_end, time,
};
use crate::credential::Credential;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::Arc;
use std::time::SystemTime;

/// Keeps writes in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    writes: BTreeMap<WriteId, Record>,
    workspaces: HashMap<Credential, WorkspaceHash>,
    refused: BTreeMap<Credential, SystemTime>,
    /// How many of the next commits find no room.
    failing: usize,
}

/// What a commit has changed: what was there before.
type Undo = Vec<Before>;

#[derive(Debug)]
enum Before {
    Write(WriteId, Option<Box<Record>>),
    Workspace(Credential, Option<WorkspaceHash>),
    Refused(Credential, Option<SystemTime>),
}

impl Memory {
    /// What a crash would leave at this moment.
    pub fn copy(&self) -> Self {
        let here = self.kept.lock();
        let kept = Kept {
            writes: here.writes.clone(),
            workspaces: here.workspaces.clone(),
            refused: here.refused.clone(),
            failing: 0,
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
        }
    }

    /// Lets the next commits fail as if the disk were full.
    pub fn fail_next(&self, commits: usize) {
        self.kept.lock().failing = commits;
    }
}

impl Kept {
    fn commit(&mut self, changes: Vec<Change>) -> Result<(), JournalError> {
        if self.failing > 0 {
            self.failing -= 1;
            return Err(JournalError::Full);
        }
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
            Change::End { state, .. } if !state.has_ended() => Err(not_an_end(state)),
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

impl Filter {
    fn shows(&self, record: &Record) -> bool {
        self.credential.is_none_or(|of| of == record.credential)
            && self
                .operation
                .as_ref()
                .is_none_or(|operation| *operation == record.operation)
            && self.state.is_none_or(|state| state == record.state)
            && self.after.is_none_or(|after| after < record.id)
    }
}

/// The time as the one on disk keeps it.
fn whole(at: SystemTime) -> SystemTime {
    time(millis(at))
}

fn later<T: Send + 'static>(result: Result<T, JournalError>) -> Later<'static, T> {
    Box::pin(ready(result))
}

impl Journal for Memory {
    fn commit(&self, changes: Vec<Change>) -> Later<'static, ()> {
        later(self.kept.lock().commit(changes))
    }

    fn get(&self, id: WriteId) -> Later<'static, Option<Record>> {
        later(Ok(self.kept.lock().writes.get(&id).cloned()))
    }

    fn find(&self, credential: Credential, key: KeyHash) -> Later<'static, Option<Record>> {
        later(Ok(self.kept.lock().find(credential, key).cloned()))
    }

    fn list(&self, filter: Filter, most: usize) -> Later<'static, Vec<Record>> {
        let kept = self.kept.lock();
        let shown = kept.writes.values().filter(|record| filter.shows(record));
        let bare = shown.take(most).map(|record| Record {
            request: Bytes::new(),
            answer: None,
            ..record.clone()
        });
        later(Ok(bare.collect()))
    }

    fn unfinished(&self) -> Later<'static, Vec<Record>> {
        let kept = self.kept.lock();
        let unfinished = kept
            .writes
            .values()
            .filter(|record| !record.state.has_ended());
        later(Ok(unfinished.cloned().collect()))
    }

    fn newest(&self) -> Later<'static, Option<WriteId>> {
        let newest = self.kept.lock().writes.last_key_value().map(|(id, _)| *id);
        Box::pin(ready(Ok(newest)))
    }

    fn workspace(&self, credential: Credential) -> Later<'static, Option<WorkspaceHash>> {
        later(Ok(self.kept.lock().workspaces.get(&credential).copied()))
    }

    fn refused(&self) -> Later<'static, Vec<(Credential, SystemTime)>> {
        let kept = self.kept.lock();
        later(Ok(kept.refused.iter().map(|(of, at)| (*of, *at)).collect()))
    }

    fn remembered(&self) -> Later<'static, HashMap<Credential, Remembered>> {
        let mut remembered: HashMap<Credential, Remembered> = HashMap::new();
        let kept = self.kept.lock();
        for record in kept.writes.values().filter(|it| it.ended.is_some()) {
            let of = remembered.entry(record.credential).or_default();
            of.add(kept_bytes(record));
        }
        later(Ok(remembered))
    }

    fn forget_oldest(
        &self,
        of: Option<Credential>,
        least: Remembered,
        ended_before: SystemTime,
    ) -> Later<'static, Remembered> {
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
        later(Ok(forgotten))
    }

    fn forget(&self, ended_before: SystemTime) -> Later<'static, u64> {
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
        later(Ok((all - kept.writes.len()) as u64))
    }
}
