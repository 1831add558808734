//! Whole cleanings of a log.

use super::*;
use crate::log::StartOffsetReason;

/// Small segments: two batches of one record each.
fn small() -> Arc<TopicConfig> {
    config(|c| {
        c.segment_bytes = 150;
        c.index_interval_bytes = 0;
        c.delete_retention_ms = 1000;
    })
}

fn put(log: &mut Log, key: &str, value: &str) {
    append(log, batch(0, &[(key, Some(value))]));
}

fn texts(log: &Log) -> Vec<String> {
    let text = |(offset, key, value): (Offset, String, Option<String>)| {
        format!("{offset}:{key}={}", value.unwrap_or("-".into()))
    };
    contents(log).into_iter().map(text).collect()
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for (key, value) in [
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("c", "1"),
        ("a", "3"),
        ("b", "2"),
        ("d", "1"),
    ] {
        put(&mut log, key, value);
    }
    let stats = clean_at(&mut log, NOW).unwrap();
    assert_eq!(texts(&log), ["3:c=1", "4:a=3", "5:b=2", "6:d=1"]);
    assert_eq!((stats.messages_read, stats.messages_written), (6, 3));
    assert_eq!(log.cleaner_checkpoint(), Some(6));
    assert_eq!((log.log_start_offset(), log.next_offset()), (0, 7));
    assert_eq!(clean_at(&mut log, NOW), None, "nothing is dirty now");
}

#[test]
fn clean_segments_are_cleaned_again_by_what_is_dirty() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for round in 0..5 {
        for key in ["a", "b", "c"] {
            put(&mut log, key, &round.to_string());
        }
        clean_at(&mut log, NOW);
    }
    assert_eq!(
        latest(&log),
        [("a", "4"), ("b", "4"), ("c", "4")]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    );
    assert!(contents(&log).len() <= 5, "{:?}", texts(&log));
}

#[test]
fn the_active_segment_and_what_is_not_stable_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    put(&mut log, "a", "1");
    put(&mut log, "a", "2");
    assert_eq!(clean_at(&mut log, NOW), None, "one segment, the active one");
    let builder = BatchBuilder::new().producer(1, 0, 0).transactional(true);
    append(&mut log, build(builder, &[("a", Some("3"))]));
    for value in ["4", "5", "6"] {
        put(&mut log, "a", value);
    }
    clean_at(&mut log, NOW);
    // Offset 2 is in an open transaction: the segment with it stays, and all behind.
    assert_eq!(texts(&log)[..2], ["1:a=2", "2:a=3"]);
    assert_eq!(log.cleaner_checkpoint(), Some(2));
}

#[test]
fn a_full_map_cleans_up_to_where_it_got() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..20 {
        put(&mut log, &format!("key{}", at % 10), &at.to_string());
    }
    let settings = CleanerSettings {
        dedupe_buffer_bytes: 24 * 5,
        ..SETTINGS
    };
    let before = latest(&log);
    let mut rounds = 0;
    while clean_with(&mut log, NOW, settings).is_some() {
        rounds += 1;
        assert_eq!(latest(&log), before);
    }
    assert!(rounds >= 3, "{rounds}");
    assert!(contents(&log).len() < 20);
}

#[test]
fn tombstones_go_when_their_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    put(&mut log, "a", "1");
    append(&mut log, batch(0, &[("a", None)]));
    put(&mut log, "b", "1");
    put(&mut log, "b", "2");
    put(&mut log, "c", "1");
    clean_at(&mut log, NOW);
    assert_eq!(texts(&log), ["1:a=-", "3:b=2", "4:c=1"]);
    for (now_ms, left) in [(NOW + 999, 1), (NOW + 1000, 0)] {
        for value in ["x", "y", "z"] {
            put(&mut log, "c", value);
        }
        clean_at(&mut log, now_ms).unwrap();
        let tombstones = contents(&log).iter().filter(|r| r.2.is_none()).count();
        assert_eq!(tombstones, left, "{:?}", texts(&log));
    }
}

#[test]
fn recent_segments_wait_for_the_lag() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|c| {
        c.segment_bytes = 150;
        c.min_compaction_lag_ms = 500;
    });
    let mut log = open(dir.path(), &config);
    for value in ["1", "2", "3", "4"] {
        put(&mut log, "a", value);
    }
    assert_eq!(clean_at(&mut log, NOW + 499), None);
    assert!(clean_at(&mut log, NOW + 501).is_some());
}

#[test]
fn logs_that_waited_too_long_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|c| {
        c.segment_bytes = 150;
        c.max_compaction_lag_ms = 500;
    });
    let mut log = open(dir.path(), &config);
    for key in ["a", "b", "c", "d"] {
        put(&mut log, key, "1");
    }
    let delay = |now_ms| log.log_to_clean(4, now_ms).unwrap().compaction_delay_ms;
    assert_eq!(delay(NOW + 500), 0);
    assert_eq!(delay(NOW + 700), 200);
}

#[test]
fn small_segments_become_one_and_files_of_the_old_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..9 {
        put(&mut log, &format!("key{at}"), "1");
    }
    for at in 0..8 {
        put(&mut log, &format!("key{at}"), "2");
    }
    let (segments, size) = (log.segments_count(), log.size_bytes());
    clean_at(&mut log, NOW).unwrap();
    put(&mut log, "x", "1");
    put(&mut log, "x", "1");
    clean_at(&mut log, NOW).unwrap();
    assert!(log.segments_count() < segments, "{}", log.segments_count());
    assert!(log.size_bytes() < size);
    let on_disk: u64 = std::fs::read_dir(dir.path().join("topic-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!(log.size_bytes(), on_disk);
    assert!(!log.take_deleted_files().is_empty());
}

#[test]
fn a_slice_that_was_read_before_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for value in ["1", "2", "3", "4", "5"] {
        put(&mut log, "a", value);
    }
    let slice = log.read(0, 1 << 20, 5, true).unwrap();
    let before = slice.read_bytes().unwrap();
    clean_at(&mut log, NOW).unwrap();
    for file in log.take_deleted_files() {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(slice.read_bytes().unwrap(), before);
    let after = log.read(0, 1 << 20, 5, true).unwrap().read_bytes().unwrap();
    let header = parse_header(&after).unwrap();
    assert_eq!(header.base_offset, 3, "the next that is there");
}

#[test]
fn a_cleaned_log_opens_again_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..30 {
        let builder = BatchBuilder::new().producer(1, 0, at);
        append(
            &mut log,
            build(builder, &[(&format!("k{}", at % 4), Some("v"))]),
        );
    }
    clean_at(&mut log, NOW).unwrap();
    let before = texts(&log);
    let epochs = log.leader_epochs().clone();
    drop(log);
    let mut log = open(dir.path(), &small());
    assert_eq!(texts(&log), before);
    assert_eq!(log.next_offset(), 30);
    assert_eq!(format!("{:?}", log.leader_epochs()), format!("{epochs:?}"));
    // The producer goes on where it was.
    let builder = BatchBuilder::new().producer(1, 0, 30);
    assert_eq!(append(&mut log, build(builder, &[("k", Some("v"))])), 30);
}

#[test]
fn the_producer_of_records_that_went_is_still_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    let builder = BatchBuilder::new().producer(9, 0, 0);
    append(&mut log, build(builder, &[("a", Some("1"))]));
    for value in ["2", "3", "4", "5"] {
        put(&mut log, "a", value);
    }
    clean_at(&mut log, NOW).unwrap();
    assert_eq!(texts(&log), ["3:a=4", "4:a=5"].map(String::from));
    let kept = batches(&log)[0].0;
    assert_eq!(
        (kept.producer_id, kept.records_count, kept.base_sequence),
        (9, 0, 0)
    );
}

#[test]
fn truncation_ends_a_cleaning_and_unmarks_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..10 {
        put(&mut log, "a", &at.to_string());
    }
    clean_at(&mut log, NOW).unwrap();
    assert_eq!(log.cleaner_checkpoint(), Some(8));
    for at in 10..14 {
        put(&mut log, "a", &at.to_string());
    }
    log.flush().unwrap();
    let range = log.log_to_clean(14, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, SETTINGS, NOW).unwrap();
    cleaning.build_map(1, &mut |_| true).unwrap();
    let group = cleaning.clean_group(&mut |_| true).unwrap().unwrap();
    log.truncate_to(6).unwrap();
    assert_eq!(log.cleaner_checkpoint(), Some(6));
    let before = texts(&log);
    assert!(!log.is_generation(cleaning.generation()));
    assert!(!log.replace_segments(&cleaning, group).unwrap());
    assert!(!log.finish_cleaning(&cleaning));
    assert_eq!(texts(&log), before);
    assert!(leftovers(dir.path()).is_empty());
}

#[test]
fn retention_ends_a_cleaning() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..10 {
        put(&mut log, "a", &at.to_string());
    }
    log.flush().unwrap();
    let range = log.log_to_clean(10, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, SETTINGS, NOW).unwrap();
    cleaning.build_map(1, &mut |_| true).unwrap();
    let group = cleaning.clean_group(&mut |_| true).unwrap().unwrap();
    log.increment_log_start_offset(5, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    log.delete_segments_below_start().unwrap();
    assert!(!log.replace_segments(&cleaning, group).unwrap());
    assert!(leftovers(dir.path()).is_empty());
}

#[test]
fn a_cleaning_is_of_one_log_only() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut logs = [one.path(), two.path()].map(|dir| open(dir, &small()));
    for log in &mut logs {
        for at in 0..10 {
            put(log, "a", &at.to_string());
        }
        log.flush().unwrap();
    }
    let [log, other] = &mut logs;
    let range = log.log_to_clean(10, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, SETTINGS, NOW).unwrap();
    cleaning.build_map(1, &mut |_| true).unwrap();
    let group = cleaning.clean_group(&mut |_| true).unwrap().unwrap();
    let before = texts(other);
    assert!(!other.replace_segments(&cleaning, group).unwrap());
    assert!(!other.finish_cleaning(&cleaning));
    assert_eq!(texts(other), before);
    assert!(leftovers(one.path()).is_empty());
}

#[test]
fn a_deleted_log_ends_a_cleaning() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..10 {
        put(&mut log, "a", &at.to_string());
    }
    log.flush().unwrap();
    let range = log.log_to_clean(10, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, SETTINGS, NOW).unwrap();
    cleaning.build_map(1, &mut |_| true).unwrap();
    let group = cleaning.clean_group(&mut |_| true).unwrap().unwrap();
    log.rename_for_delete().unwrap();
    assert!(!log.replace_segments(&cleaning, group).unwrap());
    assert!(matches!(
        cleaning.clean_group(&mut |_| true),
        Err(CleaningError::Io(_)) | Ok(None)
    ));
    assert!(!log.log_dir().is_offline());
}

#[test]
fn the_caller_ends_a_cleaning() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..60 {
        put(&mut log, "a", &at.to_string());
    }
    let settings = CleanerSettings {
        io_buffer_bytes: 100,
        ..SETTINGS
    };
    log.flush().unwrap();
    let range = log.log_to_clean(60, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, settings, NOW).unwrap();
    let ended = cleaning.build_map(1, &mut |_| false);
    assert!(matches!(ended, Err(CleaningError::Aborted)));
    cleaning.build_map(1, &mut |_| true).unwrap();
    let ended = cleaning.clean_group(&mut |_| false);
    assert!(matches!(ended, Err(CleaningError::Aborted)));
    assert!(leftovers(dir.path()).is_empty());
}

#[test]
fn damage_is_found_and_nothing_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..10 {
        put(&mut log, "a", &at.to_string());
    }
    let path = dir.path().join("topic-0/00000000000000000002.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[65] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    log.flush().unwrap();
    let range = log.log_to_clean(10, NOW).unwrap().range;
    let mut cleaning = log.begin_cleaning(range, SETTINGS, NOW).unwrap();
    let result = cleaning.build_map(1, &mut |_| true);
    assert!(
        matches!(result, Err(CleaningError::Corrupt { .. })),
        "{result:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_is_not_durable_is_not_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    for at in 0..10 {
        put(&mut log, "a", &at.to_string());
    }
    let range = log.log_to_clean(10, NOW).unwrap().range;
    assert!(log.begin_cleaning(range, SETTINGS, NOW).is_none());
    log.flush().unwrap();
    assert!(log.begin_cleaning(range, SETTINGS, NOW).is_some());
}

/// Files that only an interrupted cleaning leaves.
fn leftovers(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir.join("topic-0"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("cleaned") || name.ends_with("swap"))
        .collect()
}
