//! Unclean stops: torn tails, damage, lost indexes.

use std::fs;

use super::*;

/// A log of ten one-record batches in three-batch segments, closed without order.
fn crashed(path: &Path, config: &Arc<TopicConfig>) {
    let mut log = open_with(path, config);
    for i in 0..10 {
        log.append_as_leader(&[batch(1, 100, NOW + i)], i as i32 / 4, NOW)
            .unwrap();
    }
}

fn three_batches() -> Arc<TopicConfig> {
    config(|c| {
        c.segment_bytes = 3 * batch(1, 100, NOW).size_bytes() as i32;
        c.index_interval_bytes = 0;
    })
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_batch() {
    let config = three_batches();
    let size = batch(1, 100, NOW).size_bytes();
    for cut in [1, 60, 61, size - 1] {
        let dir = tempfile::tempdir().unwrap();
        crashed(dir.path(), &config);
        let tail = dir.path().join("topic-0/00000000000000000009.log");
        let torn = fs::read(&tail).unwrap()[..cut].to_vec();
        fs::write(&tail, torn).unwrap();
        let mut log = open_with(dir.path(), &config);
        assert_eq!(log.next_offset(), 9);
        assert_eq!(read_all(&log, 0).len(), 9);
        assert_eq!(log.leader_epochs().entries(), [(0, 0), (1, 4), (2, 8)]);
        assert_eq!(append(&mut log, batch(1, 100, NOW)).first_offset, 9);
    }
}

#[test]
fn damage_in_the_middle_drops_what_follows() {
    let config = three_batches();
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path(), &config);
    let middle = dir.path().join("topic-0/00000000000000000003.log");
    let mut bytes = fs::read(&middle).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&middle, bytes).unwrap();
    let log = open_with(dir.path(), &config);
    assert_eq!(log.next_offset(), 4);
    assert_eq!(log.leader_epochs().entries(), [(0, 0)]);
    assert_eq!(read_all(&log, 0).len(), 4);
}

#[test]
fn damage_below_the_recovery_point_is_not_cut_off() {
    let config = three_batches();
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path(), &config);
    {
        let mut log = open_with(dir.path(), &config);
        log.flush().unwrap();
        assert_eq!(log.recovery_point(), 10);
        checkpoint(&log);
    }
    let last = dir.path().join("topic-0/00000000000000000009.log");
    let mut bytes = fs::read(&last).unwrap();
    bytes[100] ^= 1;
    fs::write(&last, &bytes).unwrap();
    let log_dir = LogDir::open(dir.path()).unwrap();
    let error = Log::open(params(&log_dir, &config)).unwrap_err();
    assert!(
        matches!(error, StorageError::Corrupt { offset: 9, .. }),
        "{error}"
    );
    assert_eq!(fs::read(&last).unwrap(), bytes);
}

#[test]
fn a_log_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = LogDir::open(dir.path()).unwrap();
    assert!(matches!(
        LogDir::open(dir.path()),
        Err(StorageError::Unusable { .. })
    ));
    drop(first);
    LogDir::open(dir.path()).unwrap();
}

/// Rule: unclean-restart
#[test]
fn a_clean_stop_is_believed_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    let mut log = open_with(dir.path(), &config);
    append(&mut log, batch(1, 1, NOW));
    stop_cleanly(log);
    let log = open_with(dir.path(), &config);
    assert!(log.log_dir().had_clean_shutdown());
    assert_eq!(log.log_dir().previous_broker_epoch(), 3);
    drop(log);
    let log_dir = LogDir::open(dir.path()).unwrap();
    assert_eq!(
        (
            log_dir.had_clean_shutdown(),
            log_dir.previous_broker_epoch()
        ),
        (false, -1)
    );
    assert_eq!(log_dir.recovery_point(&TopicPartition::new("topic", 0)), 1);
}

#[test]
fn another_topic_of_the_same_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    drop(open_with(dir.path(), &config));
    let log_dir = LogDir::open(dir.path()).unwrap();
    let other = OpenParams {
        topic_id: Some(Uuid::from_u128(8)),
        ..params(&log_dir, &config)
    };
    assert!(matches!(
        Log::open(other),
        Err(StorageError::OtherTopic { .. })
    ));
    let log = Log::open(OpenParams {
        topic_id: None,
        ..params(&log_dir, &config)
    })
    .unwrap();
    assert_eq!(log.topic_id(), Some(Uuid::from_u128(7)));
}

#[test]
fn an_empty_log_needs_no_recovery_and_believes_no_old_index() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    let partition = dir.path().join("topic-0");
    drop(open_with(dir.path(), &config));
    let time_index = partition.join("00000000000000000000.timeindex");
    fs::write(&time_index, [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]).unwrap();
    let log = open_with(dir.path(), &config);
    assert_eq!(newest(&log), None);
    stop_cleanly(log);
    assert!(fs::read(&time_index).unwrap().is_empty());
    assert!(partition.join("00000000000000000000.index").exists());
}

#[test]
fn a_large_segment_is_checked_by_all_threads_and_cut_where_the_damage_is() {
    let config = config(|_| {});
    for threads in [1, 2, 5] {
        for damaged in [None, Some(0), Some(7), Some(59)] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = open_with(dir.path(), &config);
            for _ in 0..60 {
                append(&mut log, batch(10, 20_000, NOW));
            }
            let size = log.size_bytes() / 60;
            drop(log);
            if let Some(at) = damaged {
                let path = dir.path().join("topic-0/00000000000000000000.log");
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[(at * size + size / 2) as usize] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            let log_dir = LogDir::open(dir.path()).unwrap();
            let open = |(): &()| Log::open(params(&log_dir, &config)).unwrap();
            let log = log_dir.open_logs(&[()], threads, &open).remove(0);
            let kept = damaged.unwrap_or(60);
            assert_eq!(log.next_offset(), 10 * kept as i64);
            assert_eq!(log.size_bytes(), kept * size);
            assert_eq!(read_all(&log, 0).len() as u64, kept);
            let state = log_dir.recovery();
            let left = [&state.remaining_logs, &state.remaining_segments];
            assert!(
                left.iter()
                    .all(|n| n.load(std::sync::atomic::Ordering::Relaxed) == 0)
            );
        }
    }
}
