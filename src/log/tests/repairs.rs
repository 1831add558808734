//! Damaged, lost and unknown files beside the log files: each is repaired or left alone, and a warning says so.

use std::fs;

use super::*;

/// Twelve one-record batches, stopped in order: segments 0, 3 and 6 are closed, 9 is active, and all their index files look
/// alike.
fn stopped(path: &Path) -> Arc<TopicConfig> {
    let config = config(|c| {
        c.segment_bytes = 3 * batch(1, 100, NOW).size_bytes() as i32;
        c.index_interval_bytes = 0;
    });
    let mut log = open_with(path, &config);
    for i in 0..12 {
        append(&mut log, batch(1, 100, NOW + i));
    }
    stop_cleanly(log);
    config
}

fn index_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("topic-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with("index"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// That there is one warning, and that it has all of `words`.
fn assert_warned(warnings: &[String], words: &[&str]) {
    let [warning] = warnings else {
        panic!("expected one warning of {words:?}: {warnings:#?}");
    };
    let says_all = words.iter().all(|word| warning.contains(word));
    assert!(says_all, "{words:?}: {warning}");
}

#[test]
fn lost_index_files_are_built_again_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = stopped(dir.path());
    let before = index_files(dir.path());
    assert_eq!(before.len(), 8);
    for (path, _) in &before {
        fs::remove_file(path).unwrap();
        let (log, warned) = warnings(|| open_with(dir.path(), &config));
        assert_eq!(log.next_offset(), 12);
        assert_eq!(index_files(dir.path()), before);
        let segment = path.with_extension("log");
        assert_warned(
            &warned,
            &[segment.to_str().unwrap(), "lacks an index", "rebuilding"],
        );
        stop_cleanly(log);
    }
}

/// Of what is not seen at the start is told when somebody reads or searches the segment.
fn check_damage(base: Offset, kind: &str, damage: fn(&mut Vec<u8>), why: &str) {
    let read = |log: &Log| drop(read_all(log, 0));
    let search = |log: &Log| {
        let found = first_at(log, NOW + 10, 12).unwrap();
        assert_eq!((found.offset, found.timestamp), (10, NOW + 10));
    };
    for touch in [&read as &dyn Fn(&Log), &search] {
        let dir = tempfile::tempdir().unwrap();
        let config = stopped(dir.path());
        let before = index_files(dir.path());
        let path = dir.path().join(format!("topic-0/{base:020}.{kind}"));
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let (log, warned) = warnings(|| {
            let log = open_with(dir.path(), &config);
            touch(&log);
            log
        });
        assert_warned(&warned, &[&format!("{base:020}"), why, "rebuil"]);
        assert_eq!(index_files(dir.path()), before, "{base} {kind} {why}");
        assert_eq!(read_all(&log, 0).len(), 12);
        assert_eq!(newest(&log).unwrap().offset, 11);
    }
}

#[test]
fn damaged_index_files_are_built_again_when_they_are_first_read() {
    for base in [0, 9] {
        check_damage(
            base,
            "index",
            |bytes| bytes.truncate(15),
            "no multiple of 8",
        );
        check_damage(
            base,
            "index",
            |bytes| bytes[8] = 0x80,
            "below where it begins",
        );
        // Zeros as Kafka preallocates them.
        check_damage(
            base,
            "index",
            |bytes| bytes.extend([0; 8]),
            "below where it begins",
        );
        // The start looks at the end of the active segment.
        let why = if base == 0 {
            "batch is not"
        } else {
            "where its index leads"
        };
        check_damage(base, "index", |bytes| bytes[12] = 1, why);
        check_damage(
            base,
            "timeindex",
            |bytes| bytes.push(0),
            "no multiple of 12",
        );
        check_damage(base, "timeindex", Vec::clear, "is empty");
        // Years ahead, years ago, of an offset that is not there.
        check_damage(
            base,
            "timeindex",
            |bytes| bytes[14] ^= 0x40,
            "not its batch's",
        );
        check_damage(
            base,
            "timeindex",
            |bytes| bytes[15] ^= 0x08,
            "below where it begins",
        );
        check_damage(base, "timeindex", |bytes| bytes[23] = 99, "not its batch's");
    }
    // An entry in the middle of the active segment's, which is read whole.
    let swap = |bytes: &mut Vec<u8>| {
        let middle = bytes[..8].to_vec();
        bytes.splice(8..8, middle);
    };
    check_damage(9, "index", swap, "impossible entry 1");
}

#[test]
fn retention_goes_by_the_log_where_the_time_index_lies() {
    let dir = tempfile::tempdir().unwrap();
    let config = stopped(dir.path());
    let path = dir.path().join("topic-0/00000000000000000000.timeindex");
    let mut bytes = fs::read(&path).unwrap();
    // The last timestamp is that of a batch before it, decades ago.
    bytes.copy_within(12.., 0);
    for entry in [0, 12] {
        bytes[entry + 2] = 0;
    }
    fs::write(&path, bytes).unwrap();
    let mut log = open_with(dir.path(), &config);
    let (deleted, warned) = warnings(|| log.delete_old_segments(12, NOW + 1000).unwrap());
    assert_eq!(deleted, []);
    assert_warned(
        &warned,
        &["00000000000000000000.timeindex", "not its batch's"],
    );
}

#[test]
fn an_index_stays_where_its_log_is_damaged_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = stopped(dir.path());
    let partition = dir.path().join("topic-0");
    let log_file = partition.join("00000000000000000000.log");
    let mut bytes = fs::read(&log_file).unwrap();
    let second = bytes.len() / 3;
    bytes[second + 8] = 0x7f;
    fs::write(&log_file, bytes).unwrap();
    fs::write(partition.join("00000000000000000000.timeindex"), [1]).unwrap();
    let before = index_files(dir.path());
    let log = open_with(dir.path(), &config);
    let (slice, warned) = warnings(|| log.read(0, 1, 12, true).unwrap());
    assert!(!slice.is_empty());
    assert_warned(&warned, &["timeindex", "multiple of 12", "left as it is"]);
    assert_eq!(index_files(dir.path()), before);
}

#[test]
fn orphaned_index_files_are_removed_and_unknown_names_stay() {
    let dir = tempfile::tempdir().unwrap();
    let config = stopped(dir.path());
    let partition = dir.path().join("topic-0");
    for kind in ["index", "timeindex", "txnindex"] {
        let orphan = partition.join(format!("00000000000000000004.{kind}"));
        fs::write(&orphan, [0; 8]).unwrap();
        let (log, warned) = warnings(|| open_with(dir.path(), &config));
        assert_warned(&warned, &[orphan.to_str().unwrap(), "orphaned", "removed"]);
        assert!(!orphan.exists());
        stop_cleanly(log);
    }
    let unknown = [
        "topic-0/notes.txt",
        "topic-0/4.log",
        "README",
        "no partition",
    ];
    for name in unknown {
        let path = dir.path().join(name);
        match name {
            "no partition" => fs::create_dir(&path).unwrap(),
            _ => fs::write(&path, "?").unwrap(),
        }
        let (log, warned) = warnings(|| open_with(dir.path(), &config));
        let named = warned.iter().filter(|line| line.contains(name)).count();
        assert_eq!(named, 1, "{name}: {warned:#?}");
        assert!(path.exists() && log.next_offset() == 12);
        stop_cleanly(log);
    }
    for i in 0..20 {
        fs::write(partition.join(format!("{i}.bak")), "").unwrap();
    }
    let (_, warned) = warnings(|| open_with(dir.path(), &config));
    assert_eq!(warned.len(), 11, "{warned:#?}");
    assert!(warned[10].contains("more names"));
}

#[test]
fn a_damaged_checkpoint_counts_as_empty_and_says_what_follows() {
    let cases = [
        (
            Checkpoint::RecoveryPoint,
            "recovered from their first segment",
        ),
        (Checkpoint::LogStartOffset, "start with their first segment"),
        (Checkpoint::HighWatermark, "high watermarks"),
        (Checkpoint::Cleaner, "cleaned from their start"),
    ];
    for (kind, what) in cases {
        let dir = tempfile::tempdir().unwrap();
        let config = stopped(dir.path());
        fs::write(dir.path().join(kind.file_name()), "0\n2\ntopic 0 1\n").unwrap();
        let (log, warned) = warnings(|| open_with(dir.path(), &config));
        assert_warned(&warned, &[kind.file_name(), "counts as empty", what]);
        let tp = TopicPartition::new("topic", 0);
        assert_eq!(
            log.log_dir().recovery_point(&tp) > 0,
            kind != Checkpoint::RecoveryPoint
        );
        assert_eq!(read_all(&log, 0).len(), 12);
    }
}

#[test]
fn damaged_leader_epochs_and_topic_ids_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = stopped(dir.path());
    let partition = dir.path().join("topic-0");
    for name in ["leader-epoch-checkpoint", "partition.metadata"] {
        let path = partition.join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, "damaged").unwrap();
        let (log, warned) = warnings(|| open_with(dir.path(), &config));
        assert_warned(&warned, &[name, "damaged"]);
        assert_eq!(log.leader_epochs().entries(), [(0, 0)]);
        assert_eq!(log.topic_id(), Some(Uuid::from_u128(7)));
        assert_eq!(fs::read(&path).unwrap(), before);
        stop_cleanly(log);
    }
}
