use super::*;
use crate::credential::Credential;
use crate::limit::evidence::InForce;
use crate::route::policy::Rate;
use record::RECORD;
use replay::ROUNDING;
use std::time::SystemTime;

const W: Duration = Duration::from_secs(60);
const WQ: Duration = Duration::from_secs(120);
const RATE: Rate = Rate {
    limit: 60,
    window: W,
};

fn charge(account: AccountId, hold: Duration, rate: impl Into<InForce>) -> Charge {
    Charge {
        account,
        hold,
        rate: rate.into(),
    }
}

impl From<Rate> for InForce {
    fn from(rate: Rate) -> Self {
        Self {
            rate,
            is_learned: false,
        }
    }
}

const KEEP: Duration = Duration::from_secs(300);
const SPEC: LedgerSpec = LedgerSpec {
    key_check: [9; 16],
    keep: KEEP,
    expected: false,
};

fn clock(up: u64) -> Clock {
    Clock::simulated(
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30),
        Duration::from_secs(up),
    )
}

fn open(path: &Path, clock: &Clock) -> Opened {
    Ledger::open(path, SPEC, clock.clone()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_the_slots_that_are_still_occupied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    assert!(opened.history.is_none(), "a new node knows nothing");
    let ledger = &mut opened.ledger;
    let done = ledger.sent(charge([1; 16], WQ, RATE), &[]);
    ledger.ended(done, charge([1; 16], W, RATE), KnownEffect::Final);
    let old = ledger.sent(charge([1; 16], WQ, RATE), &[]);
    ledger.ended(
        old,
        charge([1; 16], Duration::from_secs(3), RATE),
        KnownEffect::Final,
    );
    let never = ledger.sent(charge([1; 16], WQ, RATE), &[]);
    ledger.ended(
        never,
        charge([1; 16], Duration::ZERO, RATE),
        KnownEffect::Final,
    );
    ledger.sent(charge([2; 16], WQ, RATE), &[]);
    drop(opened);

    tokio::time::advance(Duration::from_secs(10)).await;
    let first = clock.now();
    for wait in [0, 7] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let opened = open(&path, &clock);
        let mut history = opened.history.unwrap();
        let ended = first + Duration::from_secs(50) + ROUNDING;
        assert_eq!(history.remove(&[1; 16]).unwrap().held, [ended]);
        // It ended with its process, at the first start after that at the latest.
        let under_way = first + WQ + ROUNDING;
        assert_eq!(history.remove(&[2; 16]).unwrap().held, [under_way]);
        assert!(history.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_rate_that_was_learned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    let learned = Rate {
        limit: 1_000,
        window: Duration::from_secs(3_600),
    };
    let first = opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
    opened.ledger.ended(
        first,
        charge([1; 16], learned.window, learned),
        KnownEffect::Final,
    );
    opened.ledger.write();
    drop(opened);
    assert_eq!(
        open(&path, &clock).history.unwrap()[&[1; 16]].rate.rate,
        learned
    );
}

/// The response that teaches a rate may be that of an earlier attempt than the last one sent.
#[tokio::test(start_paused = true)]
async fn a_learned_rate_outlives_later_attempts_that_are_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    let learned = Rate {
        limit: 30,
        window: Duration::from_secs(60),
    };
    let first = opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
    opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
    let taught = charge([1; 16], learned.window, learned);
    opened.ledger.ended(first, taught, KnownEffect::Final);
    opened.ledger.write();
    drop(opened);
    for _ in 0..2 {
        let opened = open(&path, &clock);
        let past = &opened.history.as_ref().unwrap()[&[1; 16]];
        assert_eq!(past.rate.rate, learned, "also when the file was rewritten");
        assert_eq!(past.held.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn another_boot_or_machine_is_a_new_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(50_000);
    let mut opened = open(&path, &clock);
    opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
    drop(opened);
    let bytes = std::fs::read(&path).unwrap();
    let here = Head {
        key_check: [9; 16],
        boot: clock.boot().unwrap().id,
    };
    let records = parse(&bytes, here).unwrap();
    let elsewhere = Head {
        boot: [1; 16],
        ..here
    };
    LedgerFile::rewrite(&path, elsewhere, KEEP, &records).unwrap();
    let opened = open(&path, &clock);
    assert!(opened.history.is_none() && opened.note.unwrap().contains("another one"));
    assert_eq!(open(&path, &clock).history, Some(PastUsage::new()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_believed_is_a_new_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
    drop(opened);
    let whole = std::fs::read(&path).unwrap();

    let mut torn = whole.clone();
    torn.extend_from_slice(&[1; 30]);
    std::fs::write(&path, &torn).unwrap();
    assert!(
        open(&path, &clock).history.is_some(),
        "a torn tail was never acted upon"
    );

    // Cut between two records, which are whole each, also before the end, and with one that is
    // there twice.
    let mut twice = whole.clone();
    twice.extend_from_within(RECORD..2 * RECORD);
    for bad in [&whole[..RECORD], &whole[..2 * RECORD], &whole[..30], &[]] {
        std::fs::write(&path, bad).unwrap();
        let opened = open(&path, &clock);
        assert!(opened.history.is_none() && opened.left.is_none());
        assert!(opened.note.unwrap().contains("cut short"));
    }
    std::fs::write(&path, &twice).unwrap();
    assert_eq!(open(&path, &clock).history.unwrap()[&[1; 16]].held.len(), 1);

    for damage in [5, 70, 140, 200, 300] {
        let mut bad = whole.clone();
        bad[damage] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let opened = open(&path, &clock);
        assert!(
            opened.history.is_none() && opened.left.is_none() && opened.note.is_some(),
            "byte {damage}"
        );
    }
    std::fs::write(&path, &whole).unwrap();
    let other = LedgerSpec {
        key_check: [8; 16],
        ..SPEC
    };
    let other = Ledger::open(&path, other, clock.clone()).unwrap();
    assert!(other.history.is_none() && other.note.unwrap().contains("another key"));
}

/// Each is whole, and one of them is not where it was written.
#[tokio::test(start_paused = true)]
async fn a_record_in_the_place_of_another_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    for account in [1, 2] {
        opened.ledger.sent(charge([account; 16], WQ, RATE), &[]);
    }
    drop(opened);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.copy_within(RECORD..2 * RECORD, 2 * RECORD);
    std::fs::write(&path, &bytes).unwrap();
    let opened = open(&path, &clock);
    assert!(opened.history.is_none() && opened.left.is_none());
    assert!(opened.note.unwrap().contains("damaged"));
}

#[tokio::test(start_paused = true)]
async fn the_file_is_compacted_and_loses_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    if let Some(file) = &mut opened.ledger.file {
        file.compact_at = 40;
    }
    for _ in 0..1000 {
        let attempt = opened.ledger.sent(charge([1; 16], WQ, RATE), &[]);
        let hold = Duration::from_millis(1);
        opened
            .ledger
            .ended(attempt, charge([1; 16], hold, RATE), KnownEffect::Final);
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    opened.ledger.sent(charge([3; 16], WQ, RATE), &[]);
    if let Some(file) = &mut opened.ledger.file {
        file.compact_at = 0;
    }
    opened.ledger.sent(charge([3; 16], WQ, RATE), &[]);
    assert!(std::fs::metadata(&path).unwrap().len() < 10 * RECORD as u64);
    assert_eq!(open(&path, &clock).history.unwrap()[&[3; 16]].held.len(), 2);
}

fn intent(clock: &Clock, write: Option<u8>, names: usize) -> Intent {
    Intent {
        credential: Credential::from_bytes([5; 16]),
        operation: [6; 8],
        everything: write.is_none(),
        write: write.map(|n| [n; 16]),
        first: clock.now(),
        names: Some((0..names).map(|n| [n as u8; 12]).collect()),
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_still_take_effect_is_known_at_each_start_until_it_no_longer_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    let ledger = &mut opened.ledger;
    let second = Duration::from_secs(1);
    let send =
        |ledger: &mut Ledger, intents: &[Intent]| ledger.sent(charge([1; 16], WQ, RATE), intents);
    // Without effect are one that was answered with 429, and one whose effect is known; the latter
    // is needed where it is durable. The others may still take effect.
    let writes = [
        (vec![intent(&clock, Some(8), 1)], KnownEffect::None),
        (vec![intent(&clock, None, 1)], KnownEffect::Final),
        (
            vec![intent(&clock, None, 0), intent(&clock, None, 3)],
            KnownEffect::Late,
        ),
        (vec![intent(&clock, None, 50)], KnownEffect::Late),
        (vec![intent(&clock, Some(7), 4)], KnownEffect::Final),
        (
            vec![intent(&clock, None, MOST_NAMES + 1)],
            KnownEffect::Late,
        ),
    ];
    for (intents, effect) in &writes {
        let attempt = send(ledger, intents);
        ledger.ended(attempt, charge([1; 16], second, RATE), *effect);
    }
    let under_way = intent(&clock, None, 5);
    send(ledger, std::slice::from_ref(&under_way));
    let ended = clock.now();
    drop(opened);

    let any = Intent {
        names: None,
        ..intent(&clock, None, 0)
    };
    let of = |intent: &Intent, ended, late| Left {
        intent: intent.clone(),
        ended,
        late,
    };
    tokio::time::advance(second * 10).await;
    let first_start = clock.now();
    let expected = [
        of(&writes[2].0[0], ended, true),
        of(&writes[2].0[1], ended, true),
        of(&writes[3].0[0], ended, true),
        of(&writes[4].0[0], ended, false),
        of(&any, ended, true),
        of(&under_way, first_start, true),
    ];
    for wait in [0, 20, 20] {
        tokio::time::advance(second * wait).await;
        assert_eq!(open(&path, &clock).left.unwrap(), expected, "after {wait}");
    }
    tokio::time::advance(KEEP - second * 40).await;
    assert_eq!(open(&path, &clock).left.unwrap(), expected[5..]);
    tokio::time::advance(second).await;
    assert_eq!(open(&path, &clock).left.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_gone_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let expected = LedgerSpec {
        expected: true,
        ..SPEC
    };
    let opened = Ledger::open(&path, expected, clock.clone()).unwrap();
    assert!(opened.history.is_none() && opened.left.is_none());
    assert!(opened.note.unwrap().contains("it is gone"));
    std::fs::remove_file(&path).unwrap();
    let opened = open(&path, &clock);
    assert_eq!((opened.left, opened.note), (Some(Vec::new()), None));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_written_is_believed_once_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let mut opened = open(&path, &clock);
    opened
        .ledger
        .sent(charge([1; 16], WQ, RATE), &[intent(&clock, None, 1)]);
    drop(opened);
    // As on a disk without room, a new file cannot be made.
    std::fs::create_dir(path.with_extension("new")).unwrap();
    let opened = open(&path, &clock);
    assert!(opened.unkept.is_some() && !opened.ledger.is_kept());
    assert_eq!(opened.history.unwrap()[&[1; 16]].held.len(), 1);
    assert_eq!(opened.left.unwrap().len(), 1);
    assert!(!path.exists(), "it no longer says all that is sent");
}

/// The end of an attempt may be lost by a kill until the next record. Then it counts as one in
/// flight, which is longer and never shorter.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_written_yet_costs_time_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let ends = [
        (KnownEffect::Final, false),
        (KnownEffect::None, true),
        (KnownEffect::Late, true),
    ];
    for (effect, is_written) in ends {
        let _ = std::fs::remove_file(&path);
        let mut ledger = open(&path, &clock).ledger;
        let attempt = ledger.sent(charge([1; 16], WQ, RATE), &[intent(&clock, None, 1)]);
        ledger.ended(attempt, charge([1; 16], W, RATE), effect);
        assert_eq!(ledger.is_behind(), !is_written, "{effect:?}");
        // A copy, as a process that is started after a kill finds it.
        let copy = dir.path().join("copy");
        let found = |ledger: &Ledger| {
            std::fs::copy(&path, &copy).unwrap();
            let opened = open(&copy, &clock);
            let held = opened.history.unwrap()[&[1; 16]].held[0] - clock.now() - ROUNDING;
            let left = opened.left.unwrap();
            let late = left.iter().filter(|left| left.late).count();
            (held, late, ledger.is_behind())
        };
        if !is_written {
            assert_eq!(found(&ledger), (WQ, 1, true));
            ledger.write();
        }
        let is_late = usize::from(effect == KnownEffect::Late);
        assert_eq!(found(&ledger), (W, is_late, false), "{effect:?}");
        // The next record takes an end along.
        ledger.ended(attempt, charge([1; 16], W, RATE), KnownEffect::Final);
        ledger.sent(charge([1; 16], WQ, RATE), &[]);
        assert!(!ledger.is_behind());
        assert_eq!(open(&path, &clock).history.unwrap()[&[1; 16]].held.len(), 2);
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let _opened = open(&path, &clock(1000));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A rate that answers have taught outlasts a restart after which no slot is occupied, for a week;
/// one that they have taken back does not.
#[tokio::test(start_paused = true)]
async fn what_was_learned_outlasts_quiet_windows_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let clock = clock(1000);
    let low = InForce {
        rate: Rate {
            limit: 2,
            window: W,
        },
        is_learned: true,
    };
    let mut opened = open(&path, &clock);
    for (account, learned) in [(1, true), (2, false), (3, true)] {
        let attempt = opened.ledger.sent(charge([account; 16], WQ, RATE), &[]);
        let rate = if learned { low } else { RATE.into() };
        opened
            .ledger
            .ended(attempt, charge([account; 16], W, rate), KnownEffect::Final);
    }
    let later = opened.ledger.sent(charge([3; 16], WQ, low), &[]);
    opened
        .ledger
        .ended(later, charge([3; 16], W, RATE), KnownEffect::Final);
    opened.ledger.write();
    drop(opened);
    let day = Duration::from_secs(86_400);
    for days in 1..=8 {
        tokio::time::advance(day).await;
        let history = open(&path, &clock).history.unwrap();
        if days >= 7 {
            assert!(history.is_empty(), "it is too old");
            continue;
        }
        let past = PastBudget {
            held: Vec::new(),
            rate: low,
        };
        assert_eq!(history, PastUsage::from([([1; 16], past)]));
    }
}
