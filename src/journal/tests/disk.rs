//! What only a journal on disk can do: outlast its process, be damaged, be full, keep secrets.

use super::{SECRET, accept, at, bare, end, key, write};
use crate::journal::{Change, Filter, Journal, JournalError, OpenError, Record, SealingKey, State};
use rusqlite::types::Value;
use std::path::{Path, PathBuf};
use std::task::{Context, Waker};

/// A folder for a journal, and where that is.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    (folder, path)
}

fn open(path: &Path) -> Journal {
    Journal::open(path, key()).unwrap()
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// Some writes, in every state, in a file that was closed.
async fn filled(path: &Path) -> Vec<Record> {
    let disk = open(path);
    let writes: Vec<Record> = (0..40).map(|n| write(n % 3)).collect();
    for (n, record) in writes.iter().enumerate() {
        let mut changes = vec![accept(record)];
        if n % 2 == 0 {
            changes.push(Change::Dispatch(record.id, at(1)));
        }
        if n % 4 == 0 {
            changes.push(end(record.id, State::Succeeded, 2));
        }
        disk.commit(changes).await.unwrap();
    }
    let mut kept = Vec::new();
    for record in &writes {
        kept.push(disk.get(record.id).await.unwrap().unwrap());
    }
    kept
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_there_after_a_restart() {
    let (_folder, path) = place();
    let kept = filled(&path).await;
    for _ in 0..2 {
        let disk = open(&path);
        for record in &kept {
            let got = disk.get(record.id).await.unwrap();
            assert_eq!(got.as_ref(), Some(record));
        }
        let listed = disk.list(Filter::default(), 100).await.unwrap();
        assert_eq!(listed, kept.iter().map(bare).collect::<Vec<_>>());
    }
}

/// A copy of the files at the moment when a commit is answered is what a kill would leave.
#[tokio::test(start_paused = true)]
async fn what_was_answered_is_in_the_files() {
    let (_folder, path) = place();
    let disk = open(&path);
    for n in 0..20 {
        let record = write(n);
        disk.commit(vec![accept(&record)]).await.unwrap();
        let (_other, copy) = place();
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(log_of(&path), log_of(&copy)).unwrap();
        let restarted = open(&copy);
        assert_eq!(restarted.get(record.id).await.unwrap(), Some(record));
        let unfinished = restarted.unfinished().await.unwrap();
        assert_eq!(unfinished.len(), usize::from(n) + 1);
    }
}

#[test]
fn the_settings_are_in_force() {
    let (_folder, path) = place();
    for _ in 0..2 {
        let disk = open(&path);
        let connection = disk.hold();
        for (name, expected) in [
            ("journal_mode", "wal"),
            ("locking_mode", "exclusive"),
            ("synchronous", "2"),
            ("secure_delete", "1"),
            ("mmap_size", "0"),
            ("temp_store", "2"),
            ("trusted_schema", "0"),
            ("cell_size_check", "1"),
            ("page_size", "4096"),
            ("user_version", "1"),
        ] {
            let value = connection.pragma_query_value(None, name, |row| row.get::<_, Value>(0));
            let expected = match expected.parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Text(expected.into()),
            };
            assert_eq!(value, Ok(expected), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_are_written_together() {
    let (_folder, path) = place();
    let disk = open(&path);
    let there = write(0);
    disk.commit(vec![accept(&there)]).await.unwrap();
    assert_eq!(disk.transactions(), 1);

    let writes: Vec<Record> = (0..64).map(write).collect();
    let held = disk.hold();
    let mut answers = Vec::new();
    for (n, record) in writes.iter().enumerate() {
        let mut changes = vec![accept(record)];
        // Some of them are refused, after a part of them was done.
        if n % 8 == 3 {
            changes.push(accept(&there));
        }
        answers.push((n, disk.commit(changes)));
    }
    drop(held);
    for (n, answer) in answers {
        let refused = n % 8 == 3;
        let expected = if refused {
            Err(JournalError::Taken)
        } else {
            Ok(())
        };
        assert_eq!(answer.await, expected, "{n}");
        let kept = disk.get(writes[n].id).await.unwrap();
        assert_eq!(kept.is_some(), !refused, "{n}");
    }
    assert!(
        disk.transactions() <= 3,
        "{} transactions",
        disk.transactions()
    );
    assert_eq!(disk.unfinished().await.unwrap().len(), 1 + 64 - 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_share_transactions() {
    let (_folder, path) = place();
    let disk = open(&path);
    let tasks: Vec<_> = (0..64)
        .map(|n| tokio::spawn(disk.commit(vec![accept(&write(n))])))
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(
        disk.transactions() < 64,
        "{} transactions",
        disk.transactions()
    );
    assert_eq!(disk.unfinished().await.unwrap().len(), 64);
}

/// Nobody hears of a commit before it is kept, however many share the transaction.
#[tokio::test(start_paused = true)]
async fn a_commit_is_not_answered_before_its_transaction() {
    let (_folder, path) = place();
    let disk = open(&path);
    let held = disk.hold();
    let mut answer = disk.commit(vec![accept(&write(1))]);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        assert!(answer.as_mut().poll(&mut context).is_pending());
        std::thread::yield_now();
    }
    assert_eq!(disk.transactions(), 0);
    drop(held);
    answer.await.unwrap();
    assert_eq!(disk.transactions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_and_goes_on() {
    let (_folder, path) = place();
    let disk = open(&path);
    let small = |n| Record {
        request: vec![n; 10].into(),
        ..write(n)
    };
    let [first, second, third] = [1, 2, 3].map(small);
    let large = Record {
        request: vec![1; 1 << 20].into(),
        ..write(4)
    };
    disk.commit(vec![accept(&first)]).await.unwrap();
    limit(&disk, 30);
    // The large one is one of three that share a transaction, and alone in having no room.
    let held = disk.hold();
    let answers = [&second, &large, &third].map(|record| disk.commit(vec![accept(record)]));
    drop(held);
    let [a, b, c] = answers;
    assert_eq!(a.await, Ok(()));
    assert_eq!(b.await, Err(JournalError::Full));
    assert_eq!(c.await, Ok(()));
    let kept = [first, second, third];
    assert_eq!(disk.unfinished().await.unwrap(), kept);

    let both = vec![end(kept[0].id, State::Failed, 1), accept(&large)];
    assert_eq!(disk.commit(both).await, Err(JournalError::Full));
    assert_eq!(
        disk.unfinished().await.unwrap(),
        kept,
        "whole or not at all"
    );

    limit(&disk, 100_000);
    disk.commit(vec![accept(&large)]).await.unwrap();
    drop(disk);
    assert_eq!(open(&path).unfinished().await.unwrap().len(), 4);
}

/// As if the disk had so many pages.
fn limit(disk: &Journal, pages: u32) {
    let connection = disk.hold();
    connection
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_file_tells_what_was_sealed() {
    let (folder, path) = place();
    let made = SealingKey::beside(&path).unwrap();
    let disk = Journal::open(&path, made).unwrap();
    let records = [write(1), write(2)];
    for record in &records {
        disk.commit(vec![accept(record)]).await.unwrap();
    }
    let id = records[0].id;
    disk.commit(vec![end(id, State::Succeeded, 2)])
        .await
        .unwrap();
    let search = |word: &[u8]| {
        let mut found = false;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            found |= bytes.windows(word.len()).any(|part| part == word);
        }
        found
    };
    assert!(
        log_of(&path).exists() && search(id.bytes()),
        "it is searched"
    );
    for word in [SECRET, "SECRET", "/invites", "201 Bearer"] {
        assert!(!search(word.as_bytes()), "{word}");
    }
    // What was erased is not even there in sealed form, once the log is in the file.
    let sealed: Vec<u8> = disk
        .hold()
        .query_row("SELECT request FROM writes WHERE state = 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(search(&sealed));
    let other = records[1].id;
    disk.commit(vec![end(other, State::Cancelled, 2)])
        .await
        .unwrap();
    drop(disk);
    assert!(!log_of(&path).exists());
    assert!(!search(&sealed) && search(other.bytes()));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn files_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = place();
    let disk = Journal::open(&path, SealingKey::beside(&path).unwrap()).unwrap();
    disk.commit(vec![accept(&write(1))]).await.unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .inspect(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        })
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    let expected = [
        "journal.count",
        "journal.db",
        "journal.db-wal",
        "journal.key",
        "journal.lock",
    ];
    assert_eq!(names, expected);
}

/// A blob that was moved to another write, or to another column, does not open.
#[tokio::test(start_paused = true)]
async fn a_seal_cannot_be_moved() {
    let moves = [
        "UPDATE writes SET request = (SELECT request FROM writes WHERE id = ?2) WHERE id = ?1",
        "UPDATE writes SET answer = (SELECT request FROM writes WHERE id = ?1) WHERE id = ?1",
        "UPDATE writes SET request = x'' WHERE id = ?1 AND ?2 NOT NULL",
        "UPDATE writes SET state = 9 WHERE id = ?1 AND ?2 NOT NULL",
    ];
    for sql in moves {
        let (_folder, path) = place();
        let disk = open(&path);
        let [a, b] = [write(1), write(2)];
        let changes = vec![accept(&a), accept(&b)];
        disk.commit(changes).await.unwrap();
        let mut ids = vec![*a.id.bytes(), *b.id.bytes()];
        ids.truncate(if sql.contains("?2") { 2 } else { 1 });
        let changed = disk
            .hold()
            .execute(sql, rusqlite::params_from_iter(ids))
            .unwrap();
        assert_eq!(changed, 1);
        let Err(JournalError::Broken(why)) = disk.get(a.id).await else {
            panic!("it opened after {sql}")
        };
        assert!(
            why.contains(&a.id.to_string()) && why.contains("damaged"),
            "{why}"
        );
        assert_eq!(disk.get(b.id).await.unwrap(), Some(b));
    }
}

/// The files beside a journal, itself included, and what is in them; not its lock.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with("journal.lock"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Opens it in vain: nothing is changed, and one line says what to do.
fn refused(path: &Path, key: SealingKey) -> OpenError {
    let before = files(path);
    let error = Journal::open(path, key).unwrap_err();
    assert!(before == files(path), "{error} changed a file");
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    assert!(!text.contains('\n') && text.contains("; "), "{text}");
    error
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_another_key_or_version_is_left_alone() {
    let (_folder, path) = place();
    filled(&path).await;
    let other = SealingKey::new(&[8; 32]).unwrap();
    assert!(matches!(refused(&path, other), OpenError::WrongKey(_)));
    let set = |name: &str, value: i64| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, name, value).unwrap();
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0));
        assert_eq!(mode, Ok(String::from("delete")));
    };
    set("user_version", 2);
    assert!(matches!(refused(&path, key()), OpenError::Newer(_, 2)));
    set("user_version", 0);
    assert!(matches!(refused(&path, key()), OpenError::Damaged(..)));
    set("user_version", 1);
    open(&path);
    set("application_id", 1);
    assert!(matches!(refused(&path, key()), OpenError::Damaged(..)));
}

/// With the log of a kill still there, which is not written into the file either.
#[tokio::test(start_paused = true)]
async fn a_refused_journal_keeps_its_log() {
    let (_folder, path) = place();
    let (_other, copy) = place();
    let disk = open(&path);
    let record = write(1);
    disk.commit(vec![accept(&record)]).await.unwrap();
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(log_of(&path), log_of(&copy)).unwrap();
    let other = SealingKey::new(&[8; 32]).unwrap();
    assert!(matches!(refused(&copy, other), OpenError::WrongKey(_)));

    let whole = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, "").unwrap();
    assert!(matches!(refused(&copy, key()), OpenError::Damaged(..)));
    std::fs::remove_file(&copy).unwrap();
    assert!(matches!(refused(&copy, key()), OpenError::Damaged(..)));

    std::fs::write(&copy, whole).unwrap();
    assert_eq!(open(&copy).get(record.id).await.unwrap(), Some(record));
}

#[tokio::test(start_paused = true)]
async fn one_process_has_it() {
    let (_folder, path) = place();
    let disk = open(&path);
    assert!(matches!(refused(&path, key()), OpenError::InUse(_)));
    // Nor does another program get in, by SQLite's own lock.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let got = other.query_row("SELECT count(*) FROM writes", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(
        got.unwrap_err().sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy)
    );
    disk.commit(vec![accept(&write(1))]).await.unwrap();
    drop(disk);
    drop(other);

    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = Journal::open(&path, key()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    drop(other);
    assert_eq!(open(&path).unfinished().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_journal_is_not_made_one() {
    let (_folder, path) = place();
    for bytes in [&b""[..], b"x", &[b'x'; 5_000], b"SQLite format 3\0"] {
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&path, key());
        assert!(matches!(error, OpenError::Damaged(..)), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(refused(&path, key()), OpenError::Damaged(..)));
    let nowhere = path.join("nowhere").join("journal.db");
    let error = Journal::open(&nowhere, key()).unwrap_err();
    assert!(matches!(error, OpenError::Denied(..)), "{error}");
    assert!(error.to_string().contains("let this user"), "{error}");
}

/// A user who may do everything is not denied anything, and sees nothing of this.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_file_that_may_not_be_written_is_said_to_be() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = place();
    filled(&path).await;
    for mode in [0o000, 0o400] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        if std::fs::OpenOptions::new().append(true).open(&path).is_ok() {
            return;
        }
        let error = Journal::open(&path, key()).unwrap_err();
        assert!(matches!(error, OpenError::Denied(..)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_cut_is_refused() {
    let (_folder, path) = place();
    filled(&path).await;
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 50, 100, 511, 512, 4_095, 4_096, 5_000, 3 * 4_096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path, key());
        assert!(matches!(error, OpenError::Damaged(..)), "{length}: {error}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(refused(&path, key()), OpenError::Damaged(..)));
    std::fs::write(&path, &whole).unwrap();
    open(&path);
}

/// Wherever a page is overwritten or a byte changes, opening or reading says so or what is sealed
/// is as it was: no secret is ever another one.
#[tokio::test(start_paused = true)]
async fn damage_is_said_and_never_believed() {
    let (_folder, path) = place();
    let kept = filled(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let mut dice = fastrand::Rng::with_seed(7);
    let (mut at_opening, mut at_reading) = (0, 0);
    for round in 0..300 {
        let mut bad = whole.clone();
        let place = dice.usize(..bad.len());
        match round % 3 {
            // The head of a page, where its structure is.
            0 => bad[place / 4_096 * 4_096..][..8].fill(0xff),
            _ => bad[place] ^= 1 << dice.u8(..8),
        }
        std::fs::write(&path, &bad).unwrap();
        let disk = match Journal::open(&path, key()) {
            Ok(disk) => disk,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                at_opening += 1;
                let left = std::fs::read(&path).unwrap();
                assert!(left == bad, "{error} changed the file");
                continue;
            }
        };
        let _ = disk.unfinished().await;
        for record in &kept {
            match disk.get(record.id).await {
                Err(_) => at_reading += 1,
                Ok(None) => {}
                Ok(Some(got)) => {
                    assert_eq!(got.id, record.id);
                    assert_eq!(got.request, record.request, "byte {place}");
                    assert!(got.answer.is_none() || got.answer == record.answer);
                }
            }
        }
    }
    assert!(
        at_opening > 50 && at_reading > 10,
        "{at_opening} {at_reading}"
    );
}

/// A runtime that ends before the writer ran leaves nobody waiting, and another one goes on.
#[test]
fn another_runtime_goes_on() {
    let (_folder, path) = place();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let disk = open(&path);
    let first = runtime();
    let [a, b] = [write(1), write(2)];
    let entered = first.enter();
    let answer = disk.commit(vec![accept(&a)]);
    drop(entered);
    drop(first);
    let second = runtime();
    let answer = second.block_on(answer);
    let kept = second.block_on(async {
        disk.commit(vec![accept(&b)]).await.unwrap();
        disk.unfinished().await.unwrap()
    });
    let expected = if answer.is_ok() { vec![a, b] } else { vec![b] };
    assert_eq!(kept, expected);
}

/// A journal of the first gateways has no summaries and no table of refused credentials.
#[tokio::test(start_paused = true)]
async fn what_was_added_to_the_format_since_is_added_to_a_journal_that_is_there() {
    let (_folder, path) = place();
    let mut kept = filled(&path).await;
    let older = rusqlite::Connection::open(&path).unwrap();
    older
        .execute_batch(
            "ALTER TABLE writes DROP COLUMN summary; ALTER TABLE writes DROP COLUMN client;
            DROP TABLE refused;",
        )
        .unwrap();
    drop(older);
    for _ in 0..2 {
        let disk = open(&path);
        for record in &mut kept {
            record.summary = bytes::Bytes::new();
            record.client = None;
            assert_eq!(disk.get(record.id).await.unwrap().as_ref(), Some(&*record));
        }
    }
    let disk = open(&path);
    let new = write(1);
    let refused = Change::Refused(new.credential, at(3));
    disk.commit(vec![accept(&new), refused]).await.unwrap();
    assert_eq!(disk.get(new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(disk.refused().await.unwrap(), [(new.credential, at(3))]);
}

/// Also one of the first gateways, one with the log of a kill, and an empty one that takes any key.
#[tokio::test(start_paused = true)]
async fn inspecting_a_journal_changes_nothing() {
    let inspect = |path: &Path, key: SealingKey| {
        let before = files(path);
        let found = crate::journal::inspect(path, Some(&key));
        assert!(before == files(path), "it changed a file");
        found
    };
    let other = || SealingKey::new(&[9; 32]).unwrap();
    let (_folder, path) = place();
    drop(open(&path));
    inspect(&path, other()).unwrap();
    filled(&path).await;
    inspect(&path, key()).unwrap();
    let wrong = inspect(&path, other()).unwrap_err();
    assert!(matches!(wrong, OpenError::WrongKey(_)));
    let disk = open(&path);
    disk.commit(vec![accept(&write(1))]).await.unwrap();
    let (_killed, copy) = copy_of(&path);
    inspect(&copy, key()).unwrap();
    std::fs::remove_file(log_of(&copy)).unwrap();
    let lost = inspect(&copy, key()).unwrap_err();
    assert!(matches!(lost, OpenError::Lost(..)), "{lost}");
    let used = inspect(&path, key()).unwrap_err();
    assert!(matches!(used, OpenError::InUse(_)));
    drop(disk);
    let older = rusqlite::Connection::open(&path).unwrap();
    older
        .execute_batch(
            "ALTER TABLE writes DROP COLUMN summary; ALTER TABLE writes DROP COLUMN client;
            DROP TABLE refused;",
        )
        .unwrap();
    drop(older);
    inspect(&path, key()).unwrap();
    // One that is not there is not made.
    let (_nowhere, path) = place();
    inspect(&path, key()).unwrap();
}

fn copy_of(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let (folder, copy) = place();
    for ending in ["db", "db-wal", "count"] {
        let from = path.with_extension(ending);
        std::fs::copy(from, copy.with_extension(ending)).unwrap();
    }
    (folder, copy)
}

/// SQLite says nothing of it.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_gone_cut_or_damaged_is_noticed() {
    let (_folder, path) = place();
    let disk = open(&path);
    for n in 0..20 {
        disk.commit(vec![accept(&write(n))]).await.unwrap();
    }
    // As a kill leaves it, it is whole.
    let (_other, copy) = copy_of(&path);
    assert_eq!(open(&copy).unfinished().await.unwrap().len(), 20);
    let length = std::fs::metadata(log_of(&path)).unwrap().len();
    for damage in ["gone", "cut", "flipped"] {
        let (_other, copy) = copy_of(&path);
        let log = log_of(&copy);
        match damage {
            "gone" => std::fs::remove_file(&log).unwrap(),
            "cut" => {
                let file = std::fs::OpenOptions::new().write(true).open(&log);
                file.unwrap().set_len(length - 4_096).unwrap();
            }
            _ => {
                let mut bytes = std::fs::read(&log).unwrap();
                let at = bytes.len() / 2;
                bytes[at] ^= 4;
                std::fs::write(&log, bytes).unwrap();
            }
        }
        let error = Journal::open(&copy, key()).unwrap_err();
        assert!(
            matches!(error, OpenError::Lost(_, 1..)),
            "{damage}: {error}"
        );
        assert!(error.to_string().contains("journal.count"), "{error}");
        // What it says to do helps.
        std::fs::remove_file(copy.with_extension("count")).unwrap();
        assert!(
            open(&copy).unfinished().await.unwrap().len() < 20,
            "{damage}"
        );
        open(&copy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_of_commits_that_is_older_says_nothing() {
    let (_folder, path) = place();
    let disk = open(&path);
    disk.commit(vec![accept(&write(0))]).await.unwrap();
    let older = std::fs::read(path.with_extension("count")).unwrap();
    disk.commit(vec![accept(&write(1))]).await.unwrap();
    // A loss of power takes what was not synced.
    let (_other, copy) = copy_of(&path);
    // The last one was half written.
    let half = [&b"SGJcount"[..], &[0xff; 16]].concat();
    for count in [&older[..], &[], b"no number of commits.....", &half] {
        std::fs::write(copy.with_extension("count"), count).unwrap();
        assert_eq!(open(&copy).unfinished().await.unwrap().len(), 2);
    }
}

/// The request of the only write, in sealed form.
fn sealed_request(disk: &Journal) -> Vec<u8> {
    let connection = disk.hold();
    let sql = "SELECT request FROM writes";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn has(path: &Path, sealed: &[u8]) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(sealed.len()).any(|window| window == sealed)
}

/// Whoever has the key must not find the token of a write that has ended or was withdrawn.
#[tokio::test(start_paused = true)]
async fn the_log_is_emptied_when_it_is_quiet_after_an_end() {
    let succeeded = |id| end(id, State::Succeeded, 2);
    for ends in [succeeded, Change::Withdraw] {
        let (_folder, path) = place();
        let disk = open(&path);
        // Each time anew.
        for _ in 0..2 {
            let record = write(0);
            disk.commit(vec![accept(&record)]).await.unwrap();
            let sealed = sealed_request(&disk);
            assert!(has(&log_of(&path), &sealed));
            disk.commit(vec![ends(record.id)]).await.unwrap();
            assert!(has(&log_of(&path), &sealed), "it is still there");
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            emptied(&path).await;
            assert!(!has(&path, &sealed));
            let sql = "DELETE FROM writes";
            disk.hold().execute(sql, []).unwrap();
        }
        // What comes later is kept as before.
        disk.commit(vec![accept(&write(1))]).await.unwrap();
        let (_other, copy) = copy_of(&path);
        assert_eq!(open(&copy).unfinished().await.unwrap().len(), 1);
    }
}

/// Waits until the log is empty: the paused clock stands while another thread empties it.
async fn emptied(path: &Path) {
    for _ in 0..1_000 {
        if std::fs::metadata(log_of(path)).unwrap().len() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("the log is not emptied");
}

/// A kill leaves the log with what a write was to send that had ended a moment ago.
#[tokio::test(start_paused = true)]
async fn the_log_that_a_kill_left_is_emptied_at_the_start() {
    let (_folder, path) = place();
    let disk = open(&path);
    let record = write(0);
    disk.commit(vec![accept(&record)]).await.unwrap();
    let sealed = sealed_request(&disk);
    disk.commit(vec![end(record.id, State::Succeeded, 2)])
        .await
        .unwrap();
    let (_killed, copy) = copy_of(&path);
    assert!(has(&log_of(&copy), &sealed));
    let disk = open(&copy);
    assert!(!has(&log_of(&copy), &sealed) && !has(&copy, &sealed));
    assert!(disk.get(record.id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_journal_can_be_sealed_under_another_key() {
    let (_folder, path) = place();
    let kept = filled(&path).await;
    let other = || SealingKey::new(&[9; 32]).unwrap();
    let wrong = crate::journal::rekey(&path, &other(), &key());
    assert!(matches!(wrong, Err(OpenError::WrongKey(_))));
    let sealed = crate::journal::rekey(&path, &key(), &other()).unwrap();
    assert_eq!(sealed, kept.len());
    let refused = Journal::open(&path, key()).unwrap_err();
    assert!(refused.to_string().contains("journal rekey"), "{refused}");
    let disk = Journal::open(&path, other()).unwrap();
    for record in &kept {
        assert_eq!(disk.get(record.id).await.unwrap().as_ref(), Some(record));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_journal_takes_another_key() {
    let (_folder, path) = place();
    drop(open(&path));
    let other = || SealingKey::new(&[9; 32]).unwrap();
    let disk = Journal::open(&path, other()).unwrap();
    disk.commit(vec![accept(&write(0))]).await.unwrap();
    drop(disk);
    assert!(matches!(
        Journal::open(&path, key()),
        Err(OpenError::WrongKey(_))
    ));
    assert_eq!(
        Journal::open(&path, other())
            .unwrap()
            .unfinished()
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn writes_of_credentials_that_were_hashed_under_another_key_are_not_served() {
    let (_folder, path) = place();
    let hashed = |n| key().with_credentials([n; 16]);
    // An earlier version does not say, and an empty journal takes any.
    drop(open(&path));
    drop(Journal::open(&path, hashed(1)).unwrap());
    let disk = Journal::open(&path, hashed(2)).unwrap();
    disk.commit(vec![accept(&write(0))]).await.unwrap();
    drop(disk);
    let looked = crate::journal::inspect(&path, Some(&hashed(1)))
        .unwrap_err()
        .to_string();
    assert!(looked.contains("credential-hash.key"), "{looked}");
    let opened = Journal::open(&path, hashed(1));
    assert!(matches!(opened, Err(OpenError::OtherCredentials(_))));
    // Sealed under another key they are still the same credentials.
    let other = SealingKey::new(&[9; 32]).unwrap();
    crate::journal::rekey(&path, &key(), &other).unwrap();
    let opened = Journal::open(&path, other.with_credentials([1; 16]));
    assert!(matches!(opened, Err(OpenError::OtherCredentials(_))));
    let other = SealingKey::new(&[9; 32]).unwrap().with_credentials([2; 16]);
    Journal::open(&path, other).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_an_earlier_version_takes_the_key_of_its_credentials_at_first() {
    let (_folder, path) = place();
    filled(&path).await;
    Journal::open(&path, key().with_credentials([1; 16])).unwrap();
    let opened = Journal::open(&path, key().with_credentials([2; 16]));
    assert!(matches!(opened, Err(OpenError::OtherCredentials(_))));
}
