use super::*;
use crate::audit::{Audit, AuditEvent, AuditFileSpec, AuditStatus, SubjectForm};
use crate::clock::Clock;
use std::fs;
use tempfile::TempDir;

fn key() -> AuditKey {
    AuditKey::new(&[1; 32])
}

fn spec(folder: &TempDir, largest: u64) -> AuditFileSpec {
    AuditFileSpec {
        path: folder.path().join("audit.log"),
        key: key(),
        form: SubjectForm::Plain,
        largest,
        kept: 3,
    }
}

fn open(folder: &TempDir, largest: u64) -> Audit {
    Audit::open(spec(folder, largest), false, Clock::system()).unwrap()
}

fn token(name: &str) -> AuditEvent {
    AuditEvent::Token {
        name: name.into(),
        state: "replaced",
    }
}

/// Records events one by one, each in a write of its own.
async fn record(audit: &Audit, count: usize) {
    for n in 0..count {
        audit
            .record_synced(vec![token(&format!("t{n}"))])
            .await
            .unwrap();
    }
}

fn log(folder: &TempDir) -> Vec<PathBuf> {
    files(&folder.path().join("audit.log")).unwrap()
}

fn verified(folder: &TempDir) -> Result<VerifiedLog, String> {
    verify(&log(folder), &key(), None).map_err(|fault| fault.to_string())
}

fn status(audit: &Audit) -> AuditStatus {
    audit.status().unwrap()
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts_and_rotated_files() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=4_u64 {
        let audit = open(&folder, 2_000);
        record(&audit, 10).await;
        let whole = verified(&folder).unwrap();
        assert_eq!(whole.head, status(&audit).head);
        assert_eq!(whole.head.seq, round * 10);
        assert_eq!(status(&audit).records["token"], 10);
    }
    let whole = verified(&folder).unwrap();
    assert!(
        whole.first > 1 && whole.records == 41 - whole.first,
        "{whole:?}"
    );
    assert_eq!(log(&folder).len(), 4, "three rotated files are kept");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&log(&folder)[0]).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    // Without the current file, the next one continues the newest rotated one.
    fs::remove_file(folder.path().join("audit.log")).unwrap();
    let before = verified(&folder).unwrap().head.seq;
    record(&open(&folder, 2_000), 1).await;
    assert_eq!(verified(&folder).unwrap().head.seq, before + 1);
}

#[tokio::test]
async fn each_fault_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder, 1 << 20);
    record(&audit, 6).await;
    let head = status(&audit).head;
    drop(audit);
    let path = folder.path().join("audit.log");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let put = |lines: &[&str]| fs::write(&path, lines.join("\n") + "\n").unwrap();
    let swapped = lines[2].replace("t2", "t9");
    for (changed, place, what) in [
        (
            [lines[0], lines[1], &swapped, lines[3]].to_vec(),
            3,
            "was changed",
        ),
        (
            [lines[0], lines[1], lines[3]].to_vec(),
            3,
            "record 3 is missing",
        ),
        (
            [lines[0], lines[4]].to_vec(),
            2,
            "records 2 to 4 are missing",
        ),
        (
            [lines[0], lines[2], lines[1]].to_vec(),
            2,
            "record 2 is missing",
        ),
        (
            [lines[0], lines[1], lines[1]].to_vec(),
            3,
            "record 2 is repeated",
        ),
        ([lines[0], "{}"].to_vec(), 2, "not a record"),
    ] {
        put(&changed);
        let fault = verified(&folder).unwrap_err();
        let expected = format!("{}:{place}: ", path.display());
        assert!(
            fault.starts_with(&expected) && fault.contains(what),
            "{fault}"
        );
    }
    // The newest ones are missed by whoever has seen a head.
    put(&lines[..4]);
    assert_eq!(verified(&folder).unwrap().head.seq, 4);
    let cut = verify(&log(&folder), &key(), Some(&head))
        .unwrap_err()
        .to_string();
    assert!(
        cut.contains("record 6 of --head is missing: the log has 1 to 4"),
        "{cut}"
    );
    put(&lines);
    assert_eq!(
        verify(&log(&folder), &key(), Some(&head)).unwrap().head,
        head
    );
    let other = ChainHead { seq: 3, ..head };
    let other = verify(&log(&folder), &key(), Some(&other)).unwrap_err();
    assert_eq!(other.line, 3);
}

#[tokio::test]
async fn half_a_line_is_cut_off_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    record(&open(&folder, 1 << 20), 3).await;
    let path = folder.path().join("audit.log");
    let whole = fs::read(&path).unwrap();
    for torn in [1, 10, 200] {
        let half = [&whole[..], &whole[..torn]].concat();
        fs::write(&path, half).unwrap();
        let found = verified(&folder).unwrap();
        assert!(found.is_torn && found.records == 3, "{found:?}");
        drop(open(&folder, 1 << 20));
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    fs::write(&path, &whole[..10]).unwrap();
    record(&open(&folder, 1 << 20), 1).await;
    assert_eq!(
        verified(&folder).unwrap().head.seq,
        1,
        "nothing whole was there"
    );
}

#[test]
fn a_log_that_cannot_be_continued_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |spec: AuditFileSpec| Audit::open(spec, false, Clock::system()).unwrap_err();
    let path = folder.path().join("audit.log");
    fs::write(&path, "not a record\n").unwrap();
    let why = refused(spec(&folder, 1 << 20));
    assert!(why.contains("move the file away"), "{why}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a record\n");
    fs::remove_file(&path).unwrap();
    let _owner = open(&folder, 1 << 20);
    let why = refused(spec(&folder, 1 << 20));
    assert!(why.contains("in use by another gateway"), "{why}");
    let missing = AuditFileSpec {
        path: folder.path().join("none/audit.log"),
        ..spec(&folder, 1 << 20)
    };
    assert!(refused(missing).contains("No such file"));
}

/// The disk fails where the full file cannot be moved away.
#[tokio::test]
async fn what_cannot_be_written_waits_and_what_finds_no_room_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder, 1);
    record(&audit, 1).await;
    let in_the_way = folder.path().join("audit-1.log");
    fs::create_dir(&in_the_way).unwrap();
    fs::write(in_the_way.join("x"), "").unwrap();
    let synced = || audit.record_synced(vec![token("synced")]);
    assert!(synced().await.is_err());
    assert!(audit.is_failing() && synced().await.is_err());
    const MANY: usize = 10_500;
    for n in 0..MANY {
        audit.record(token(&n.to_string()));
    }
    let lost = status(&audit).lost;
    assert!(lost >= 500 && lost < MANY as u64, "{lost}");
    fs::remove_dir_all(&in_the_way).unwrap();
    while audit.is_failing() {
        tokio::task::yield_now().await;
    }
    audit.flush().await;
    let whole = verified(&folder).unwrap();
    let (mut kinds, mut counted) = (Vec::new(), 0);
    for_each_line(&log(&folder), |_, _, line| {
        let record: serde_json::Value = serde_json::from_slice(line).unwrap();
        kinds.push(record["kind"].as_str().unwrap().to_owned());
        counted += record["count"].as_u64().unwrap_or(0);
        Ok(())
    })
    .unwrap();
    assert_eq!(counted, lost, "what is lost stands in the log");
    let tokens = kinds.iter().filter(|kind| *kind == "token").count();
    assert_eq!(tokens as u64 + lost, 1 + MANY as u64);
    assert_eq!(whole.records, kinds.len() as u64);
}

#[tokio::test]
async fn a_full_disk_is_an_error_for_whoever_waits_for_it() {
    let spec = AuditFileSpec {
        path: "/dev/full".into(),
        key: key(),
        form: SubjectForm::Plain,
        largest: 1 << 20,
        kept: 0,
    };
    let audit = Audit::open(spec, true, Clock::system()).unwrap();
    assert!(audit.record_synced(vec![token("t")]).await.is_err());
    assert!(audit.is_failing());
}
