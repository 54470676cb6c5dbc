//! Random sequences of changes, applied to both journals, leave them equal. The disk is closed and
//! opened in between.

use super::{accept, at, credential, end, key, new_id, write};
use crate::credential::Credential;

use super::memory::Memory;
use crate::journal::{
    Change, Filter, Journal, OwnerFilter, Record, Remembered, State, WriteId, WriteOwner,
};
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap};

const STATES: [State; 6] = [
    State::Queued,
    State::Dispatched,
    State::Succeeded,
    State::Failed,
    State::Unknown,
    State::Cancelled,
];

/// A change of a write that is there, was refused, or never was.
fn change(dice: &mut Rng, ids: &mut Vec<WriteId>) -> Change {
    let id = dice.choice(&*ids).copied().unwrap_or_else(new_id);
    let millis = dice.u16(..50);
    match dice.u8(..15) {
        0..4 => {
            let record = Record {
                key: dice.bool().then(|| [dice.u8(..6); 16]),
                request: vec![dice.u8(..); dice.usize(..6_000)].into(),
                ..write(dice.u8(..3))
            };
            ids.push(record.id);
            let again = Record {
                id,
                ..record.clone()
            };
            accept(if dice.u8(..10) == 0 { &again } else { &record })
        }
        4 | 5 => Change::Dispatch(id, at(millis)),
        6 => Change::Requeue(id),
        7 => Change::Rebind {
            id,
            credential: credential(dice.u8(..3)),
            key: dice.bool().then(|| [dice.u8(..6); 16]),
            request: vec![dice.u8(..); dice.usize(..600)].into(),
        },
        12 => Change::Withdraw(id),
        13 => Change::Refused(credential(dice.u8(..6)), at(millis)),
        14 => Change::Admitted(credential(dice.u8(..6))),
        8 => Change::Belongs(credential(dice.u8(..6)), [dice.u8(..); 16]),
        _ => end(id, STATES[dice.usize(2..6)], millis),
    }
}

/// How many writes of which credential have ended; their bytes differ, because a seal has some.
fn writes(remembered: HashMap<Credential, Remembered>) -> BTreeMap<Credential, u64> {
    let remembered = remembered.into_iter();
    remembered.map(|(of, it)| (of, it.writes)).collect()
}

async fn compare(model: &Memory, disk: &Journal, ids: &[WriteId]) {
    for id in ids {
        let (a, b) = (model.get(*id), disk.get(*id).await);
        assert_eq!(a, b, "{id}");
    }
    assert_eq!(model.unfinished(), disk.unfinished().await);
    assert_eq!(model.refused(), disk.refused().await);
    assert_eq!(model.newest(), disk.newest().await);
    let (a, b) = (model.remembered(), disk.remembered().await);
    assert_eq!(writes(a.unwrap()), writes(b.unwrap()));
    for n in 0..6 {
        let of = credential(n % 3);
        let (a, b) = (model.find(of, [n; 16]), disk.find(of, [n; 16]).await);
        assert_eq!(a, b, "{n}");
        let of_n = credential(n);
        assert_eq!(model.workspace(of_n), disk.workspace(of_n).await, "{n}");
        for state in STATES {
            let filter = Filter {
                owners: match n % 4 {
                    0 => OwnerFilter::Sharing(of),
                    1 => OwnerFilter::All,
                    client => OwnerFilter::One(WriteOwner {
                        credential: of,
                        client: (client == 2).then(|| "hr-sync".into()),
                    }),
                },
                operation: None,
                state: (n > 1).then_some(state),
                after: ids.get(usize::from(n) * 7).copied(),
            };
            let most = usize::from(n) * 3;
            let (a, b) = (
                model.list(filter.clone(), most),
                disk.list(filter.clone(), most).await,
            );
            assert_eq!(a, b, "{filter:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_journals_follow_one_model() {
    for seed in 0..12 {
        let mut dice = Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let model = Memory::default();
        let mut disk = Journal::open(&path, key()).unwrap();
        let mut ids = Vec::new();
        let (mut kept, mut all) = (0, 0);
        for step in 0..80 {
            // Several at once share transactions.
            let together = dice.usize(1..5);
            let mut commits = Vec::new();
            for _ in 0..together {
                let count = dice.usize(1..4);
                let changes = (0..count).map(|_| change(&mut dice, &mut ids));
                commits.push(changes.collect::<Vec<Change>>());
            }
            let begun: Vec<_> = commits
                .iter()
                .map(|one| (model.commit(one.clone()), disk.commit(one.clone())))
                .collect();
            for (expected, got) in begun {
                let (expected, got) = (expected, got.await);
                assert_eq!(got, expected, "seed {seed}, step {step}: {commits:?}");
                all += 1;
                kept += usize::from(got.is_ok());
            }
            if dice.u8(..30) == 0 {
                let before = at(dice.u16(..50));
                assert_eq!(disk.forget(before).await, model.forget(before));
                let of = dice.bool().then(|| credential(dice.u8(..3)));
                let least = Remembered {
                    writes: dice.u64(..4),
                    bytes: 0,
                };
                let before = at(dice.u16(..50));
                let expected = model.forget_oldest(of, least, before).unwrap();
                let got = disk.forget_oldest(of, least, before).await.unwrap();
                assert_eq!(got.writes, expected.writes);
                compare(&model, &disk, &ids).await;
            }
            if dice.u8(..40) == 0 {
                drop(disk);
                disk = Journal::open(&path, key()).unwrap();
            }
        }
        compare(&model, &disk, &ids).await;
        assert!(kept > all / 10 && kept < all, "{kept} of {all} were kept");
    }
}
