//! Which segments retention deletes, and what it leaves on disk. The clock is an argument: it may jump.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::types::NO_TIMESTAMP;

/// Segments of two batches with one record each; `timestamps` are those of the segments.
fn log_with(path: &Path, timestamps: &[TimestampMs], change: impl FnOnce(&mut TopicConfig)) -> Log {
    let size = batch(1, 100, NOW).size_bytes() as i32;
    let config = config(|c| {
        c.segment_bytes = 2 * size;
        change(c);
    });
    let mut log = open_with(path, &config);
    for timestamp in timestamps {
        append(&mut log, batch(1, 100, *timestamp - 1));
        append(&mut log, batch(1, 100, *timestamp));
    }
    log
}

fn delete_all(log: &mut Log, high_watermark: Offset, now_ms: TimestampMs) -> Vec<DeletedSegment> {
    let mut all = Vec::new();
    loop {
        let step = log.delete_old_segments(high_watermark, now_ms).unwrap();
        if step.is_empty() {
            return all;
        }
        all.extend(step);
    }
}

/// Base offsets of what goes, and the log start offset after it.
fn check(
    timestamps: &[TimestampMs],
    change: impl FnOnce(&mut TopicConfig),
    now_ms: TimestampMs,
    wanted: &[Offset],
) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_with(dir.path(), timestamps, change);
    let end = log.next_offset();
    let bytes = log.size_bytes();
    let deleted = delete_all(&mut log, end, now_ms);
    let bases: Vec<_> = deleted.iter().map(|segment| segment.base_offset).collect();
    assert_eq!(bases, wanted);
    let start = wanted.last().map_or(0, |base| base + 2);
    assert_eq!((log.log_start_offset(), log.next_offset()), (start, end));
    let gone: u64 = deleted.iter().map(|segment| segment.size_bytes).sum();
    assert_eq!(log.size_bytes(), bytes - gone);
    assert_eq!(read_all(&log, start).len() as i64, end - start);
}

#[test]
fn old_and_surplus_segments_go() {
    let three = [NOW, NOW + 100, NOW + 200];
    let keep = |c: &mut TopicConfig| c.retention_ms = 1000;
    check(&three, keep, NOW + 1000, &[]);
    check(&three, keep, NOW + 1001, &[0]);
    check(&three, keep, NOW + 1101, &[0, 2]);
    // The active segment as well: it is rolled first.
    check(&three, keep, NOW + 1201, &[0, 2, 4]);
    // A segment in front with a later timestamp holds the older ones behind it.
    check(&[NOW + 500, NOW, NOW + 500], keep, NOW + 1400, &[]);
    // The clock went back, or a producer's is ahead.
    check(&three, keep, NOW - 5000, &[]);
    check(&three, keep, TimestampMs::MAX, &[0, 2, 4]);
    check(&three, |c| c.retention_ms = -1, TimestampMs::MAX, &[]);
    check(&three, |c| c.retention_ms = 0, NOW + 1, &[0]);
    let bytes = |segments: i64| 2 * segments * batch(1, 100, NOW).size_bytes() as i64;
    let size = |keep: i64| {
        move |c: &mut TopicConfig| {
            c.retention_ms = -1;
            c.retention_bytes = keep;
        }
    };
    check(&three, size(bytes(3)), NOW, &[]);
    check(&three, size(bytes(2) + 1), NOW, &[]);
    check(&three, size(bytes(2)), NOW, &[0]);
    check(&three, size(bytes(1)), NOW, &[0, 2]);
    check(&three, size(0), NOW, &[0, 2, 4]);
    check(&three, size(-1), NOW, &[]);
    // Only the policy `delete` deletes.
    for (compact, delete, wanted) in [
        (true, true, &[0, 2, 4][..]),
        (true, false, &[]),
        (false, false, &[]),
    ] {
        let policy = |c: &mut TopicConfig| {
            keep(c);
            c.retention_bytes = 0;
            c.cleanup_policy.compact = compact;
            c.cleanup_policy.delete = delete;
        };
        check(&three, policy, NOW + 9000, wanted);
    }
}

#[test]
fn nothing_above_the_high_watermark_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_with(dir.path(), &[NOW, NOW, NOW], |c| c.retention_ms = 0);
    for (high_watermark, start) in [(1, 0), (2, 2), (3, 2), (5, 4), (6, 6)] {
        delete_all(&mut log, high_watermark, NOW + 9);
        assert_eq!(log.log_start_offset(), start, "{high_watermark}");
    }
    assert_eq!((log.segments_count(), log.size_bytes()), (1, 0));
    assert!(delete_all(&mut log, 6, NOW + 9).is_empty());
    assert_eq!(append(&mut log, batch(1, 1, NOW)).first_offset, 6);
}

#[test]
fn records_without_timestamps_age_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|c| c.retention_ms = 60_000));
    append(&mut log, batch(1, 10, NO_TIMESTAMP));
    let file = dir.path().join("topic-0/00000000000000000000.log");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW as u64);
    fs::File::open(file)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert!(log.delete_old_segments(1, NOW + 60_000).unwrap().is_empty());
    let deleted = log.delete_old_segments(1, NOW + 60_001).unwrap();
    assert_eq!(
        deleted[0].to_string(),
        format!(
            "deleting segment LogSegment(baseOffset=0, size={}, lastModifiedTime={NOW}, largestRecordTimestamp=-1) due to \
             log retention time 60000ms breach based on the last modified time of the segment",
            batch(1, 10, NOW).size_bytes()
        )
    );
}

#[test]
fn a_step_is_bounded_and_changed_configs_count_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_with(dir.path(), &[NOW; 20], |c| c.retention_ms = -1);
    assert!(log.delete_old_segments(40, NOW + 9).unwrap().is_empty());
    let mut changed = TopicConfig::clone(log.config());
    changed.retention_ms = 0;
    log.update_config(Arc::new(changed));
    let step = log.delete_old_segments(40, NOW + 9).unwrap().len();
    assert!((1..20).contains(&step), "{step}");
    assert_eq!(log.log_start_offset(), 2 * step as i64);
    delete_all(&mut log, 40, NOW + 9);
    assert_eq!(log.log_start_offset(), 40);
}

/// Seen with Apache Kafka 4.3.1: after DeleteRecords up to the end, ListOffsets -3 still names a record that is gone.
#[test]
fn the_largest_timestamp_is_found_below_the_log_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_with(dir.path(), &[NOW, NOW - 1, NOW - 2], |_| {});
    let end = log.next_offset();
    log.increment_log_start_offset(end, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    let found = newest(&log).unwrap();
    assert_eq!((found.offset, found.timestamp), (1, NOW));
    assert_eq!(first_at(&log, 0, end), None);
}

#[test]
fn what_delete_records_left_goes_with_the_next_check() {
    let dir = tempfile::tempdir().unwrap();
    let empty_policy = |c: &mut TopicConfig| c.cleanup_policy.delete = false;
    let mut log = log_with(dir.path(), &[NOW, NOW, NOW], empty_policy);
    log.increment_log_start_offset(4, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    assert_eq!(log.segments_count(), 3);
    let deleted = delete_all(&mut log, 6, NOW);
    assert_eq!(deleted.len(), 2);
    assert_eq!(deleted[0].reason, DeletionReason::LogStartOffset(4));
    // All of it: an active segment is not closed for that.
    log.increment_log_start_offset(6, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    assert!(delete_all(&mut log, 6, NOW).is_empty());
    assert_eq!((log.segments_count(), log.log_start_offset()), (1, 6));
}

#[test]
fn deleted_files_keep_a_suffix_and_a_restart_finds_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_with(dir.path(), &[NOW, NOW + 5000, NOW + 5000], |c| {
        c.retention_ms = 1000;
    });
    append(&mut log, produced(7, 0, 0, 1));
    delete_all(&mut log, 7, NOW + 2000);
    let mut names: Vec<String> = log
        .take_deleted_files()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let name = |kind: &str| format!("00000000000000000000.{kind}.deleted");
    assert_eq!(names, [name("index"), name("log"), name("timeindex")]);
    assert_eq!(log.leader_epochs().entries(), [(0, 2)]);
    let config = log.config().clone();
    stop_cleanly(log);
    let mut log = open_with(dir.path(), &config);
    assert_eq!((log.log_start_offset(), log.next_offset()), (2, 7));
    // The largest timestamp comes from the time index now.
    assert!(delete_all(&mut log, 7, NOW + 6000).is_empty());
    assert_eq!(delete_all(&mut log, 7, NOW + 6001).len(), 3);
    assert_eq!((log.log_start_offset(), log.next_offset()), (7, 7));
    let again = produced(7, 0, 0, 1);
    let answer = log.append_as_leader(&[again], 0, NOW).unwrap();
    assert!(
        answer[0].as_ref().unwrap().duplicate,
        "producer state outlives its records"
    );
}
