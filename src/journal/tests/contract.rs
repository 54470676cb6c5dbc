//! What every journal does. Each function runs over the one in memory and the one on disk.

use super::{SECRET, accept, at, bare, credential, end, new_id, write};
use crate::journal::{
    Change, Filter, Journal, JournalError, OwnerFilter, Record, Remembered, State,
};
use bytes::Bytes;
use std::time::Duration;

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(&crate::journal::Journal::in_memory().unwrap()).await;
            })*
        }
        mod disk {

            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("journal.db");
                super::$name(&crate::journal::Journal::open(&path, crate::journal::tests::key()).unwrap()).await;
            })*
        }
    };
}

contract! {
    a_write_lives_from_acceptance_to_its_end,
    what_has_ended_is_not_changed,
    a_name_is_given_once,
    a_commit_is_kept_whole_or_not_at_all,
    unfinished_writes_are_in_the_order_of_acceptance,
    a_list_shows_what_is_asked_for,
    what_ended_long_ago_is_forgotten,
    values_come_back_as_they_were,
    a_dropped_future_takes_nothing_back,
    nothing_shows_a_secret,
    a_write_is_handed_to_another_credential,
    what_is_known_of_a_credential_lasts_as_long_as_its_writes,
    a_withdrawn_write_was_never_there,
    a_refused_credential_is_remembered_with_the_first_time,
    the_oldest_of_one_or_of_all_are_forgotten_and_no_more_than_has_to_be,
}

async fn kept(journal: &Journal, record: &Record) {
    journal.commit(vec![accept(record)]).await.unwrap();
}

async fn get(journal: &Journal, record: &Record) -> Option<Record> {
    journal.get(record.id).await.unwrap()
}

async fn a_write_lives_from_acceptance_to_its_end(journal: &Journal) {
    let mut expected = write(1);
    let id = expected.id;
    assert_eq!(get(journal, &expected).await, None);
    kept(journal, &expected).await;
    assert_eq!(get(journal, &expected).await.as_ref(), Some(&expected));

    journal
        .commit(vec![Change::Dispatch(id, at(5))])
        .await
        .unwrap();
    (expected.state, expected.attempts) = (State::Dispatched, 1);
    expected.dispatched = Some(at(5));
    assert_eq!(get(journal, &expected).await.as_ref(), Some(&expected));

    journal.commit(vec![Change::Requeue(id)]).await.unwrap();
    expected.state = State::Queued;
    assert_eq!(get(journal, &expected).await.as_ref(), Some(&expected));

    let changes = vec![Change::Dispatch(id, at(7)), end(id, State::Succeeded, 9)];
    journal.commit(changes).await.unwrap();
    (expected.state, expected.attempts) = (State::Succeeded, 2);
    (expected.dispatched, expected.ended) = (Some(at(7)), Some(at(9)));
    expected.request = Bytes::new();
    expected.answer = Some(format!("201 {SECRET}").into());
    assert_eq!(get(journal, &expected).await.as_ref(), Some(&expected));
    assert_eq!(journal.unfinished().await.unwrap(), []);
}

async fn what_has_ended_is_not_changed(journal: &Journal) {
    let ends = [
        State::Succeeded,
        State::Failed,
        State::Unknown,
        State::Cancelled,
    ];
    let absent = new_id();
    for state in ends {
        let record = write(1);
        kept(journal, &record).await;
        journal
            .commit(vec![end(record.id, state, 9)])
            .await
            .unwrap();
        let ended = get(journal, &record).await;
        for id in [record.id, absent] {
            for change in [
                Change::Requeue(id),
                Change::Dispatch(id, at(1)),
                end(id, State::Failed, 2),
            ] {
                let refused = journal.commit(vec![change.clone()]).await;
                assert_eq!(refused, Err(JournalError::Absent), "{state:?} {change:?}");
            }
        }
        assert_eq!(get(journal, &record).await, ended);
    }
    let record = write(1);
    kept(journal, &record).await;
    for state in [State::Queued, State::Dispatched] {
        let refused = journal.commit(vec![end(record.id, state, 9)]).await;
        assert!(matches!(refused, Err(JournalError::Broken(_))), "{state:?}");
    }
    assert_eq!(get(journal, &record).await, Some(record));
}

async fn a_name_is_given_once(journal: &Journal) {
    let keyed = |of: u8, key: Option<u8>| Record {
        key: key.map(|key| [key; 16]),
        ..write(of)
    };
    let first = keyed(1, Some(1));
    kept(journal, &first).await;
    let same_id = Record {
        id: first.id,
        ..keyed(2, Some(2))
    };
    for (other, expected) in [
        (same_id, Err(JournalError::Taken)),
        (keyed(1, Some(1)), Err(JournalError::Taken)),
        (keyed(1, Some(2)), Ok(())),
        (keyed(2, Some(1)), Ok(())),
        (keyed(1, None), Ok(())),
        (keyed(1, None), Ok(())),
    ] {
        let got = journal.commit(vec![accept(&other)]).await;
        assert_eq!(got, expected, "{other:?} {:?}", other.key);
    }
    for (of, key, expected) in [(1, 1, true), (1, 2, true), (2, 1, true), (2, 2, false)] {
        let found = journal.find(credential(of), [key; 16]).await.unwrap();
        assert_eq!(found.is_some(), expected, "{of} {key}");
        assert!(found.is_none_or(|found| found.credential == credential(of)));
    }
    let found = journal.find(credential(1), [1; 16]).await.unwrap();
    assert_eq!(found, Some(first));
}

async fn a_commit_is_kept_whole_or_not_at_all(journal: &Journal) {
    let [there, a, b] = [(); 3].map(|()| write(1));
    kept(journal, &there).await;
    for last in [
        accept(&there),
        Change::Requeue(new_id()),
        end(a.id, State::Queued, 1),
    ] {
        let changes = vec![
            accept(&a),
            Change::Dispatch(there.id, at(3)),
            end(there.id, State::Unknown, 4),
            accept(&b),
            last,
        ];
        journal.commit(changes).await.unwrap_err();
        let unfinished = journal.unfinished().await.unwrap();
        assert_eq!(unfinished, std::slice::from_ref(&there));
    }
    journal.commit(vec![]).await.unwrap();
    journal.commit(vec![accept(&a), accept(&b)]).await.unwrap();
    assert_eq!(journal.unfinished().await.unwrap(), [there, a, b]);
}

async fn unfinished_writes_are_in_the_order_of_acceptance(journal: &Journal) {
    let writes: Vec<Record> = (0..20).map(write).collect();
    // Two commits may overtake each other on their way.
    for record in writes.iter().rev() {
        kept(journal, record).await;
    }
    for record in writes.iter().step_by(3) {
        let changes = vec![Change::Dispatch(record.id, at(1))];
        journal.commit(changes).await.unwrap();
    }
    for record in writes.iter().step_by(4) {
        let changes = vec![end(record.id, State::Failed, 2)];
        journal.commit(changes).await.unwrap();
    }
    let unfinished = journal.unfinished().await.unwrap();
    let ids: Vec<_> = unfinished.iter().map(|record| record.id).collect();
    let expected = writes.iter().enumerate().filter(|(n, _)| n % 4 != 0);
    assert_eq!(ids, expected.map(|(_, one)| one.id).collect::<Vec<_>>());
}

async fn a_list_shows_what_is_asked_for(journal: &Journal) {
    let writes: Vec<Record> = (0..12).map(|n| write(n % 3)).collect();
    for record in &writes {
        kept(journal, record).await;
    }
    journal
        .commit(vec![end(writes[4].id, State::Cancelled, 1)])
        .await
        .unwrap();
    let filter = |of: Option<u8>, state, after: Option<usize>| Filter {
        owners: of.map_or(OwnerFilter::All, |of| OwnerFilter::Sharing(credential(of))),
        operation: None,
        state,
        after: after.map(|n| writes[n].id),
    };
    let cancelled = Some(State::Cancelled);
    let queued = Some(State::Queued);
    let everything: Vec<usize> = (0..12).collect();
    let named = |name: &str| Filter {
        operation: Some(name.into()),
        ..Filter::default()
    };
    for (filter, most, expected) in [
        (named(&writes[0].operation), 100, everything.as_slice()),
        (named("another"), 100, &[]),
        (Filter::default(), 100, everything.as_slice()),
        (Filter::default(), 2, &[0, 1]),
        (Filter::default(), 0, &[]),
        (filter(None, None, Some(9)), 100, &[10, 11]),
        (filter(None, None, Some(11)), 100, &[]),
        (filter(Some(1), None, None), 100, &[1, 4, 7, 10]),
        (filter(Some(1), None, Some(1)), 2, &[4, 7]),
        (filter(Some(9), None, None), 100, &[]),
        (filter(None, cancelled, None), 100, &[4]),
        (filter(Some(1), queued, None), 100, &[1, 7, 10]),
        (filter(Some(1), cancelled, Some(4)), 100, &[]),
        (filter(Some(2), queued, Some(3)), 2, &[5, 8]),
    ] {
        let listed = journal.list(filter.clone(), most).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|record| record.id).collect();
        let expected: Vec<_> = expected.iter().map(|n| writes[*n].id).collect();
        assert_eq!(ids, expected, "{filter:?} {most}");
        for record in listed {
            let whole = journal.get(record.id).await.unwrap().unwrap();
            assert_eq!(record, bare(&whole), "without what is secret");
        }
    }
}

async fn what_ended_long_ago_is_forgotten(journal: &Journal) {
    let writes: Vec<Record> = (0..5)
        .map(|n| Record {
            key: Some([n; 16]),
            ..write(1)
        })
        .collect();
    for (n, record) in writes.iter().enumerate() {
        kept(journal, record).await;
        if n < 4 {
            let change = end(record.id, State::Succeeded, n as u16);
            journal.commit(vec![change]).await.unwrap();
        }
    }
    for (before, expected) in [(0, 0), (2, 2), (2, 0), (4, 2), (u16::MAX, 0)] {
        let forgotten = journal.forget(at(before)).await.unwrap();
        assert_eq!(forgotten, expected, "before {before}");
    }
    assert_eq!(journal.unfinished().await.unwrap(), writes[4..]);
    assert_eq!(get(journal, &writes[0]).await, None);
    // Its key is free again.
    let again = Record {
        key: Some([0; 16]),
        ..write(1)
    };
    kept(journal, &again).await;
}

async fn values_come_back_as_they_were(journal: &Journal) {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let strange = Record {
        operation: "".into(),
        key: Some([0; 16]),
        fingerprint: [0xff; 32],
        summary: Bytes::new(),
        request: Bytes::new(),
        attempts: u32::MAX,
        accepted: epoch,
        dispatched: Some(epoch + Duration::from_millis(1)),
        ended: Some(epoch),
        answer: Some(Bytes::new()),
        state: State::Dispatched,
        ..write(0)
    };
    let large = Record {
        operation: "größe".into(),
        request: vec![0xa5; 3 << 20].into(),
        answer: Some(vec![0; 100_000].into()),
        ..write(0)
    };
    for record in [&strange, &large] {
        kept(journal, record).await;
        assert_eq!(get(journal, record).await.as_ref(), Some(record));
    }
    let change = Change::Dispatch(strange.id, at(1));
    journal.commit(vec![change]).await.unwrap();
    let attempts = get(journal, &strange).await.unwrap().attempts;
    assert_eq!(attempts, u32::MAX, "it does not begin anew");
    let fine = Record {
        accepted: at(3) + Duration::from_micros(999),
        ..write(0)
    };
    kept(journal, &fine).await;
    assert_eq!(get(journal, &fine).await.unwrap().accepted, at(3));
}

async fn a_dropped_future_takes_nothing_back(journal: &Journal) {
    let [a, b] = [(); 2].map(|()| write(1));
    drop(journal.commit(vec![accept(&a)]));
    // What is committed later is kept later.
    kept(journal, &b).await;
    assert_eq!(journal.unfinished().await.unwrap(), [a, b]);
}

async fn nothing_shows_a_secret(journal: &Journal) {
    let record = Record {
        answer: Some(SECRET.into()),
        ..write(1)
    };
    kept(journal, &record).await;
    let taken = journal.commit(vec![accept(&record)]).await.unwrap_err();
    let change = end(record.id, State::Failed, 1);
    let bug = end(record.id, State::Queued, 1);
    let error = journal.commit(vec![bug]).await.unwrap_err();
    let shown = format!("{journal:?} {record:?} {change:?} {taken:?} {taken} {error:?} {error}");
    assert!(
        !shown.contains("SECRET") && !shown.contains("83, 69, 67"),
        "{shown}"
    );
}

fn rebind(record: &Record, of: u8, key: Option<u8>) -> Change {
    Change::Rebind {
        id: record.id,
        credential: credential(of),
        key: key.map(|key| [key; 16]),
        request: format!("{SECRET} of {of}").into(),
    }
}

async fn a_write_is_handed_to_another_credential(journal: &Journal) {
    let keyed = |of: u8, key: u8| Record {
        key: Some([key; 16]),
        ..write(of)
    };
    let (mut moved, theirs) = (keyed(1, 1), keyed(2, 2));
    kept(journal, &moved).await;
    kept(journal, &theirs).await;
    for (change, expected) in [
        (rebind(&moved, 2, Some(2)), Err(JournalError::Taken)),
        (rebind(&write(1), 2, None), Err(JournalError::Absent)),
        (rebind(&theirs, 2, Some(2)), Ok(())),
        (rebind(&moved, 2, Some(1)), Ok(())),
    ] {
        assert_eq!(
            journal.commit(vec![change.clone()]).await,
            expected,
            "{change:?}"
        );
    }
    moved.credential = credential(2);
    moved.request = format!("{SECRET} of 2").into();
    assert_eq!(get(journal, &moved).await.as_ref(), Some(&moved));
    assert_eq!(journal.find(credential(1), [1; 16]).await.unwrap(), None);
    let found = journal.find(credential(2), [1; 16]).await.unwrap();
    assert_eq!(found.as_ref(), Some(&moved));
    journal
        .commit(vec![end(moved.id, State::Failed, 1)])
        .await
        .unwrap();
    let late = journal.commit(vec![rebind(&moved, 3, None)]).await;
    assert_eq!(late, Err(JournalError::Absent));
}

async fn what_is_known_of_a_credential_lasts_as_long_as_its_writes(journal: &Journal) {
    let workspace = async |of: u8| journal.workspace(credential(of)).await.unwrap();
    let belongs = |of: u8, to: u8| Change::Belongs(credential(of), [to; 16]);
    assert_eq!(workspace(1).await, None);
    let record = write(1);
    kept(journal, &record).await;
    let changes = vec![belongs(1, 7), belongs(2, 8), belongs(1, 9)];
    journal.commit(changes).await.unwrap();
    assert_eq!(
        (workspace(1).await, workspace(2).await),
        (Some([9; 16]), Some([8; 16]))
    );
    let refused = vec![belongs(1, 1), Change::Requeue(new_id())];
    journal.commit(refused).await.unwrap_err();
    assert_eq!(workspace(1).await, Some([9; 16]));
    journal.forget(at(0)).await.unwrap();
    assert_eq!(
        (workspace(1).await, workspace(2).await),
        (Some([9; 16]), None)
    );
    let ended = vec![end(record.id, State::Cancelled, 1)];
    journal.commit(ended).await.unwrap();
    journal.forget(at(2)).await.unwrap();
    assert_eq!(workspace(1).await, None);
}

async fn a_withdrawn_write_was_never_there(journal: &Journal) {
    let record = Record {
        key: Some([1; 16]),
        ..write(1)
    };
    kept(journal, &record).await;
    let withdraw = || journal.commit(vec![Change::Withdraw(record.id)]);
    assert_eq!(withdraw().await, Ok(()));
    assert_eq!(get(journal, &record).await, None);
    assert_eq!(withdraw().await, Err(JournalError::Absent));
    // Its key is free, and what has ended stays.
    kept(journal, &record).await;
    let ended = vec![end(record.id, State::Failed, 1)];
    journal.commit(ended).await.unwrap();
    assert_eq!(withdraw().await, Err(JournalError::Absent));
    assert!(get(journal, &record).await.is_some());
}

async fn a_refused_credential_is_remembered_with_the_first_time(journal: &Journal) {
    let refused = async || journal.refused().await.unwrap();
    let since = |of: u8, millis| Change::Refused(credential(of), at(millis));
    for of in [1, 2] {
        kept(journal, &write(of)).await;
    }
    let changes = vec![since(2, 5), since(1, 7), since(2, 9), since(3, 1)];
    journal.commit(changes).await.unwrap();
    let rolled_back = vec![Change::Admitted(credential(1)), Change::Withdraw(new_id())];
    journal.commit(rolled_back).await.unwrap_err();
    let [one, two, three] = [(1, 7), (2, 5), (3, 1)].map(|(of, ms)| (credential(of), at(ms)));
    assert_eq!(refused().await, [one, two, three]);
    // As long as it has writes.
    journal.forget(at(0)).await.unwrap();
    assert_eq!(refused().await, [one, two]);
    let admitted = vec![Change::Admitted(credential(2)), since(2, 11)];
    journal.commit(admitted).await.unwrap();
    assert_eq!(refused().await, [one, (credential(2), at(11))]);
}

async fn the_oldest_of_one_or_of_all_are_forgotten_and_no_more_than_has_to_be(journal: &Journal) {
    // Of two credentials in turn; the last one has not ended.
    let writes: Vec<Record> = (0..10).map(|n| write(n % 2)).collect();
    for (n, record) in writes.iter().enumerate() {
        kept(journal, record).await;
        if n < 9 {
            // The order is that of the ends.
            let ended = end(record.id, State::Succeeded, 20 - n as u16);
            journal.commit(vec![ended]).await.unwrap();
        }
    }
    let left = async || {
        let mut left = Vec::new();
        for (n, record) in writes.iter().enumerate() {
            if get(journal, record).await.is_some() {
                left.push(n);
            }
        }
        left
    };
    let count = async |of| {
        let remembered = journal.remembered().await.unwrap();
        remembered.get(&credential(of)).map_or(0, |it| it.writes)
    };
    assert_eq!((count(0).await, count(1).await), (5, 4));
    let some = |writes, bytes| Remembered { writes, bytes };
    let forget = |of, least, millis| journal.forget_oldest(of, least, at(millis));
    let none = forget(None, some(1, 0), 12).await.unwrap();
    assert_eq!(
        (none, left().await.len()),
        (some(0, 0), 10),
        "all ended later"
    );
    let one = forget(Some(credential(1)), some(2, 0), 99).await.unwrap();
    assert_eq!(
        (one.writes, left().await),
        (2, vec![0, 1, 2, 3, 4, 6, 8, 9])
    );
    let size = one.bytes / 2;
    let all = forget(None, some(0, size + 1), 99).await.unwrap();
    assert_eq!((all.writes, left().await), (2, vec![0, 1, 2, 3, 4, 9]));
    let rest = forget(None, some(99, 0), 18).await.unwrap();
    assert_eq!((rest.writes, left().await), (2, vec![0, 1, 2, 9]));
    assert_eq!((count(0).await, count(1).await), (2, 1));
}
