//! Appending, reading, rolling, deleting, truncating, timestamps.

use super::*;

#[test]
fn appended_batches_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    let infos = log
        .append_as_leader(
            &[batch(2, 10, NOW), batch(3, 10, NOW), batch(1, 10, NOW)],
            4,
            NOW,
        )
        .unwrap();
    let offsets: Vec<_> = infos
        .into_iter()
        .map(|info| {
            info.map(|info| (info.first_offset, info.last_offset))
                .unwrap()
        })
        .collect();
    assert_eq!(offsets, [(0, 1), (2, 4), (5, 5)]);
    assert_eq!(read_all(&log, 0), offsets);
    assert_eq!(
        read_all(&log, 3),
        offsets[1..],
        "an offset inside a batch gives the batch"
    );
    assert_eq!(log.leader_epochs().entries(), [(4, 0)]);
    let slice = log.read(0, 1 << 20, 5, true).unwrap();
    let last = Batches::new(slice.read_bytes().unwrap())
        .last()
        .unwrap()
        .unwrap()
        .0;
    assert_eq!(last.last_offset(), 4, "max_offset is exclusive");
    assert_eq!(last.partition_leader_epoch, 4);
    assert!(log.read(6, 100, 6, true).unwrap().is_empty());
    assert!(matches!(
        log.read(7, 100, 6, true),
        Err(ReadError::OutOfRange { .. })
    ));
}

#[test]
fn the_first_batch_is_whole_only_where_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    let size = batch(1, 500, NOW).size_bytes();
    append(&mut log, batch(1, 500, NOW));
    append(&mut log, batch(1, 500, NOW));
    assert_eq!(log.read(0, 10, 2, true).unwrap().len, size);
    let slice = log.read(0, 10, 2, false).unwrap();
    assert!(slice.is_empty() && slice.first_batch_incomplete);
    assert_eq!(
        log.read(0, size + 7, 2, true).unwrap().len,
        size + 7,
        "the last may be cut"
    );
}

#[test]
fn segments_roll_by_size_and_reads_end_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes();
    let config = config(|c| c.segment_bytes = 3 * size as i32);
    let mut log = open_with(dir.path(), &config);
    let many: Vec<_> = (0..10).map(|_| batch(1, 100, NOW)).collect();
    assert_eq!(log.append_as_leader(&many, 0, NOW).unwrap().len(), 10);
    assert_eq!(log.segments_count(), 4);
    assert_eq!(log.read(1, 1 << 20, 10, true).unwrap().len, 2 * size);
    assert_eq!(read_all(&log, 0).len(), 10);
    assert_eq!(log.size_bytes(), 10 * size as u64);
    stop_cleanly(log);
    let log = open_with(dir.path(), &config);
    assert_eq!((log.segments_count(), log.next_offset()), (4, 10));
    assert_eq!(read_all(&log, 4).len(), 6);
}

#[test]
fn segments_roll_when_their_first_timestamp_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|c| c.segment_ms = 1000));
    append(&mut log, batch(1, 10, NOW));
    append(&mut log, batch(1, 10, NOW + 1000));
    assert_eq!(log.segments_count(), 1);
    append(&mut log, batch(1, 10, NOW + 1001));
    assert_eq!(log.segments_count(), 2, "record time counts, not the clock");
    // Without timestamps the clock counts.
    append(&mut log, batch(1, 10, NOW + 3000));
    assert_eq!(log.segments_count(), 3);
}

#[test]
fn segments_roll_when_the_index_is_full_or_offsets_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(
        dir.path(),
        &config(|c| {
            c.index_interval_bytes = 1;
            c.segment_index_bytes = 36;
        }),
    );
    for i in 0..10 {
        append(&mut log, batch(1, 10, NOW + i));
    }
    assert!(log.segments_count() > 2);
    let mut far = BatchBuilder::new().base_offset(1 << 40);
    far.append(NOW, None, None);
    let info = log.append_as_follower(far.build(), NOW).unwrap();
    assert_eq!(
        (info.first_offset, log.next_offset()),
        (1 << 40, (1 << 40) + 1)
    );
    assert_eq!(read_all(&log, 0).last(), Some(&(1 << 40, 1 << 40)));
}

#[test]
fn a_new_index_size_or_interval_is_for_the_segments_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|c| c.index_interval_bytes = 1));
    let tiny = |interval: i32| {
        config(|c| {
            c.index_interval_bytes = interval;
            c.segment_index_bytes = 36;
        })
    };
    let entries = |base: i64| {
        let file = dir.path().join(format!("topic-0/{base:020}.index"));
        std::fs::metadata(file).unwrap().len() / 8
    };
    append(&mut log, batch(1, 10, NOW));
    log.update_config(tiny(1 << 20));
    for _ in 0..4 {
        append(&mut log, batch(1, 10, NOW));
    }
    assert_eq!(log.segments_count(), 1, "the old index has room");
    log.roll(5).unwrap();
    assert_eq!(entries(0), 4, "at the old interval");
    for _ in 0..4 {
        append(&mut log, batch(1, 10, NOW));
    }
    assert_eq!(log.segments_count(), 2, "nothing is indexed");
    log.update_config(tiny(1));
    log.roll(9).unwrap();
    assert_eq!(entries(5), 0, "at the interval of its beginning");
    for i in 0..4 {
        append(&mut log, batch(1, 10, NOW + i));
    }
    assert_eq!(log.segments_count(), 4, "two time entries fill the index");
}

#[test]
fn preallocated_segments_are_cut_to_their_size_by_rolls_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes() as u64;
    let whole = 2 * size + size / 2;
    let plain = config(|c| c.segment_bytes = whole as i32);
    let preallocating = config(|c| {
        c.segment_bytes = whole as i32;
        c.preallocate = true;
    });
    let file = |base: i64| dir.path().join(format!("topic-0/{base:020}.log"));
    let len = |base: i64| std::fs::metadata(file(base)).unwrap().len();
    let mut log = open_with(dir.path(), &plain);
    append(&mut log, batch(1, 100, NOW));
    assert_eq!(len(0), size);
    log.update_config(preallocating.clone());
    append(&mut log, batch(1, 100, NOW));
    assert_eq!(len(0), 2 * size, "a change is for the next segment");
    append(&mut log, batch(1, 100, NOW));
    assert_eq!((len(0), len(2)), (2 * size, whole));
    append(&mut log, batch(1, 100, NOW));
    append(&mut log, batch(1, 100, NOW));
    assert_eq!((len(2), len(4)), (2 * size, whole));
    assert_eq!(log.size_bytes(), 5 * size);
    assert_eq!(read_all(&log, 0).len(), 5);
    stop_cleanly(log);
    assert_eq!(len(4), size);
    let mut log = open_with(dir.path(), &preallocating);
    append(&mut log, batch(1, 100, NOW));
    append(&mut log, batch(1, 100, NOW));
    log.truncate_fully_and_start_at(20).unwrap();
    assert_eq!(len(20), whole);
    append(&mut log, batch(1, 100, NOW));
    log.flush().unwrap();
    // Killed: the zeros behind the last batch go with the recovery. The same where a roll had cut them off, and a power
    // cut brought them back.
    drop(log);
    let mut log = open_with(dir.path(), &preallocating);
    assert_eq!((log.next_offset(), len(20)), (21, size));
    append(&mut log, batch(1, 100, NOW));
    append(&mut log, batch(1, 100, NOW));
    assert_eq!(log.next_offset(), 23);
    drop(log);
    let old = std::fs::OpenOptions::new().write(true).open(file(20));
    old.unwrap().set_len(whole).unwrap();
    let log = open_with(dir.path(), &preallocating);
    assert_eq!((log.next_offset(), len(20), len(22)), (23, 2 * size, size));
    assert_eq!(read_all(&log, 20).len(), 3);
}

#[test]
fn the_newest_of_records_without_timestamps_is_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    append(&mut log, batch(1, 10, -1));
    log.roll(1).unwrap();
    append(&mut log, batch(1, 10, -1));
    let found = newest(&log).unwrap();
    assert_eq!((found.offset, found.timestamp), (0, -1));
    append(&mut log, batch(1, 10, 0));
    assert_eq!(newest(&log).unwrap().offset, 2);
}

#[test]
fn a_search_by_time_is_not_believed_when_segments_went_away_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    let mut log = open_with(dir.path(), &config);
    for i in 0..3 {
        append(&mut log, batch(1, 10, NOW + i));
        log.roll(NOW).unwrap();
    }
    append(&mut log, batch(1, 10, NOW + 3));
    stop_cleanly(log);
    let mut log = open_with(dir.path(), &config);
    let search = log.begin_timestamp_search(Wanted::AtLeast(NOW), 0).unwrap();
    assert!(log.still_has_all_of(&search));
    // As when compaction puts another segment there: for a moment there is no time index.
    log.truncate_fully_and_start_at(0).unwrap();
    let found = search.run().ok().flatten();
    assert_ne!(found.map(|found| found.offset), Some(0));
    assert!(!log.still_has_all_of(&search));
}

#[test]
fn a_search_by_time_is_not_believed_when_the_active_segment_was_cut_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    append(&mut log, batch(1, 10, NOW));
    append(&mut log, batch(1, 10, NOW + 1));
    let wanted = Wanted::AtLeast(NOW + 1);
    let search = log.begin_timestamp_search(wanted, 0).unwrap();
    log.truncate_to(1).unwrap();
    append(&mut log, batch(1, 500, NOW));
    append(&mut log, batch(1, 10, NOW + 1));
    assert_ne!(
        search.run().ok().flatten().map(|found| found.offset),
        Some(2)
    );
    assert!(!log.still_has_all_of(&search));
    assert_eq!(log.search_timestamp(wanted).unwrap().unwrap().offset, 2);
}

#[test]
fn a_search_by_time_opens_one_segment_and_needs_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes() as i32;
    let config = config(|c| c.segment_bytes = 2 * size);
    let mut log = open_with(dir.path(), &config);
    for i in 0..10 {
        append(&mut log, batch(1, 100, NOW + 10 * i));
    }
    stop_cleanly(log);
    let mut log = open_with(dir.path(), &config);
    let begin = |log: &Log, timestamp, first_base| {
        log.begin_timestamp_search(Wanted::AtLeast(timestamp), first_base)
            .unwrap()
    };
    assert_eq!(first_at(&log, NOW + 100, 10), None, "all time indexes read");
    let search = begin(&log, NOW + 41, 0);
    assert_eq!(search.rest(), Some(6), "what is behind is not looked at");
    for base in [0, 2, 6] {
        for kind in ["log", "index", "timeindex"] {
            let path = dir.path().join(format!("topic-0/{base:020}.{kind}"));
            std::fs::rename(&path, path.with_extension("away")).unwrap();
        }
    }
    assert_eq!(search.run().unwrap().unwrap().offset, 5);
    assert_eq!(newest(&log).unwrap().offset, 9);
    // What goes away in the middle of a search is found missing, and nobody is taken offline for that.
    let search = begin(&log, NOW + 21, 0);
    assert!(search.run().is_err());
    assert!(!log.log_dir().is_offline());
    // All that is late enough in the first segment that reaches the timestamp may be below the start.
    log.increment_log_start_offset(9, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    let search = begin(&log, NOW + 50, 4);
    assert_eq!((search.run().unwrap(), search.rest()), (None, Some(6)));
    let search = begin(&log, NOW + 50, 8);
    assert_eq!(search.run().unwrap().unwrap().offset, 9);
}

#[test]
fn moving_the_start_up_deletes_whole_segments_only() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes() as i32;
    let config = config(|c| c.segment_bytes = 2 * size);
    let mut log = open_with(dir.path(), &config);
    for _ in 0..6 {
        append(&mut log, batch(1, 100, NOW));
    }
    log.increment_log_start_offset(3, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    assert_eq!((log.log_start_offset(), log.segments_count()), (3, 3));
    log.delete_segments_below_start().unwrap();
    assert_eq!((log.log_start_offset(), log.segments_count()), (3, 2));
    assert!(matches!(
        log.read(2, 1, 6, true),
        Err(ReadError::OutOfRange { .. })
    ));
    assert_eq!(read_all(&log, 3).len(), 3);
    let deleted = log.take_deleted_files();
    assert!(
        deleted
            .iter()
            .all(|p| p.to_str().unwrap().ends_with(".deleted") && p.exists())
    );
    assert_eq!(log.leader_epochs().entries(), [(0, 3)]);
    stop_cleanly(log);
    let log = open_with(dir.path(), &config);
    assert_eq!(log.log_start_offset(), 3);
    assert!(
        deleted.iter().all(|p| !p.exists()),
        "a start removes what was left to delete"
    );
}

#[test]
fn truncating_goes_back_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes() as i32;
    let config = config(|c| {
        c.segment_bytes = 2 * size;
        c.index_interval_bytes = 0;
    });
    let mut log = open_with(dir.path(), &config);
    for epoch in 0..6 {
        log.append_as_leader(&[batch(1, 100, NOW + 10 * i64::from(epoch))], epoch, NOW)
            .unwrap();
    }
    log.truncate_to(3).unwrap();
    assert_eq!((log.next_offset(), log.segments_count()), (3, 2));
    assert_eq!(log.leader_epochs().latest_epoch(), Some(2));
    assert_eq!(read_all(&log, 0).len(), 3);
    let newest = newest(&log).unwrap();
    assert_eq!((newest.offset, newest.timestamp), (2, NOW + 20));
    append(&mut log, batch(1, 100, NOW + 100));
    assert_eq!(read_all(&log, 0).len(), 4);
    log.truncate_to(0).unwrap();
    assert_eq!((log.next_offset(), log.size_bytes()), (0, 0));
    log.truncate_fully_and_start_at(77).unwrap();
    assert_eq!(append(&mut log, batch(1, 1, NOW)).first_offset, 77);
    assert_eq!(log.log_start_offset(), 77);
    stop_cleanly(log);
    assert_eq!(open_with(dir.path(), &config).next_offset(), 78);
}

#[test]
fn offsets_are_found_by_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(2, 100, NOW).size_bytes() as i32;
    let config = config(|c| {
        c.segment_bytes = 3 * size;
        c.index_interval_bytes = 0;
    });
    let mut log = open_with(dir.path(), &config);
    assert_eq!(newest(&log), None);
    for i in 0..10 {
        append(&mut log, batch(2, 100, NOW + 10 * i));
    }
    let check = |log: &Log| {
        for (timestamp, wanted) in [
            (0, 0),
            (NOW, 0),
            (NOW + 1, 1),
            (NOW + 2, 2),
            (NOW + 75, 16),
            (NOW + 91, 19),
        ] {
            let found = first_at(log, timestamp, 20).unwrap();
            assert_eq!(found.offset, wanted, "{timestamp}");
            assert_eq!(found.leader_epoch, Some(0));
        }
        assert_eq!(first_at(log, NOW + 92, 20), None);
        assert_eq!(first_at(log, NOW + 91, 19), None);
        assert_eq!(newest(log).unwrap().offset, 19);
    };
    check(&log);
    stop_cleanly(log);
    check(&open_with(dir.path(), &config));
}

#[test]
fn of_several_newest_records_the_first_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    for timestamp in [5, 9, 9, 3] {
        append(&mut log, batch(1, 10, timestamp));
    }
    assert_eq!(newest(&log).unwrap().offset, 1);
}

#[test]
fn a_deleted_log_leaves_a_directory_to_remove() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    let mut log = open_with(dir.path(), &config);
    append(&mut log, batch(1, 10, NOW));
    let renamed = log.rename_for_delete().unwrap();
    let name = renamed.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(
        name.starts_with("topic-0.") && name.ends_with("-delete"),
        "{name}"
    );
    assert_eq!(name.len(), "topic-0.".len() + 32 + "-delete".len());
    assert!(log.append_as_leader(&[batch(1, 1, NOW)], 0, NOW).is_err());
    // The name is free at once.
    let again = Log::open(params(log.log_dir(), &config)).unwrap();
    assert_eq!(again.next_offset(), 0);
    assert_eq!(again.log_dir().partition_dirs().unwrap().len(), 1);
    assert_eq!(
        again.log_dir().deleted_dirs().unwrap(),
        std::slice::from_ref(&renamed)
    );
    delete(&renamed).unwrap();
    assert!(!renamed.exists());
    delete(&renamed).unwrap();
    assert!(again.log_dir().deleted_dirs().unwrap().is_empty());
}

#[test]
fn a_flush_outside_the_lock_moves_the_recovery_point() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|c| c.flush_messages = 2));
    assert!(log.begin_flush().is_none());
    append(&mut log, batch(1, 10, NOW));
    assert!(!log.flush_due());
    append(&mut log, batch(1, 10, NOW));
    assert!(log.flush_due());
    let job = log.begin_flush().unwrap();
    append(&mut log, batch(1, 10, NOW));
    job.run().unwrap();
    log.finish_flush(&job);
    assert_eq!(log.recovery_point(), 2);
    let stale = log.begin_flush().unwrap();
    log.truncate_to(1).unwrap();
    log.finish_flush(&stale);
    assert_eq!(
        log.recovery_point(),
        1,
        "a flush begun before a truncation does not count"
    );
}

/// Rule: failed-directory
#[test]
fn a_failed_write_takes_the_directory_offline_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    let seen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hook = seen.clone();
    log.log_dir()
        .on_offline(move |_| hook.store(true, std::sync::atomic::Ordering::Relaxed));
    std::fs::remove_dir_all(dir.path().join("topic-0")).unwrap();
    assert!(log.append_as_leader(&[batch(1, 1, NOW)], 0, NOW).is_err());
    assert!(log.log_dir().is_offline() && seen.load(std::sync::atomic::Ordering::Relaxed));
    std::fs::create_dir_all(dir.path().join("topic-0")).unwrap();
    assert!(matches!(
        log.append_as_leader(&[batch(1, 1, NOW)], 0, NOW),
        Err(StorageError::Offline { .. })
    ));
    assert!(matches!(
        log.read(0, 1, 1, true),
        Err(ReadError::Storage(_))
    ));
}

#[test]
fn catching_up_opens_a_closed_segment_once() {
    let dir = tempfile::tempdir().unwrap();
    let size = batch(1, 100, NOW).size_bytes();
    let config = config(|c| {
        c.segment_bytes = 20 * size as i32;
        c.index_interval_bytes = 0;
    });
    let mut log = open_with(dir.path(), &config);
    for _ in 0..100 {
        append(&mut log, batch(1, 100, NOW));
    }
    // Sequential, backward, far jumps: with and without a remembered place, the batch is the one that was asked for.
    for from in (0..80)
        .chain((0..80).rev())
        .chain((0..80).map(|i| i * 37 % 80))
    {
        let slice = log.read(from, size, 100, true).unwrap();
        let (header, _) = Batches::new(slice.read_bytes().unwrap())
            .next()
            .unwrap()
            .unwrap();
        assert_eq!((header.base_offset, slice.len), (from, size));
    }
    // The file is open: a read finds it even under another name, until nobody used it for two rounds.
    let (path, moved) = (
        dir.path().join("topic-0/00000000000000000000.log"),
        dir.path().join("moved"),
    );
    log.read(5, size, 100, true).unwrap();
    std::fs::rename(&path, &moved).unwrap();
    log.read(6, size, 100, true).unwrap();
    std::fs::rename(&moved, &path).unwrap();
    log.release_idle_files();
    log.release_idle_files();
    log.read(7, size, 100, true).unwrap();
    log.truncate_to(3).unwrap();
    assert_eq!(read_all(&log, 0), [(0, 0), (1, 1), (2, 2)]);
}
