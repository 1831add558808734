//! Logs that move into another log directory.

use super::*;

/// A log in one directory and its future log in another.
struct Pair {
    _temp: tempfile::TempDir,
    current: Log,
    future: Log,
}

fn pair(config: &Arc<TopicConfig>, fill: impl FnOnce(&mut Log)) -> Pair {
    let temp = tempfile::tempdir().unwrap();
    let dir = |name: &str| LogDir::open(&temp.path().join(name)).unwrap();
    let mut current = Log::open(params(&dir("a"), config)).unwrap();
    fill(&mut current);
    let future = Log::open_future(params(&dir("b"), config)).unwrap();
    Pair {
        _temp: temp,
        current,
        future,
    }
}

impl Pair {
    /// Copies until the future log has caught up; how many steps it took.
    fn copy(&mut self) -> usize {
        for steps in 0..1000 {
            match self.current.copy_step(&self.future, 4096).unwrap() {
                CopyStep::CaughtUp => return steps,
                CopyStep::Truncate(offset) => self.future.truncate_to(offset).unwrap(),
                CopyStep::Restart(offset) => {
                    self.future.truncate_fully_and_start_at(offset).unwrap();
                }
                CopyStep::Skip(offset) => self.future.skip_to(offset).unwrap(),
                CopyStep::Append(slice, start) => {
                    let records = slice.read_bytes().unwrap();
                    self.future.append_copied(records, start, NOW).unwrap();
                }
            }
        }
        panic!("the copier does not end");
    }

    /// Swaps, and checks that nobody can tell the difference.
    fn check_replaced(mut self) -> Log {
        self.copy();
        assert!(self.future.is_future() && !self.current.is_future());
        let start = self.current.log_start_offset();
        let expected = (
            start,
            self.current.next_offset(),
            read_all(&self.current, start),
            self.current.leader_epochs().entries().to_vec(),
        );
        self.future.become_current(&self.current).unwrap();
        let config = self.current.config().clone();
        let old = self.current.rename_for_delete().unwrap();
        assert!(!self.future.is_future());
        assert_eq!(self.future.recovery_point(), self.future.next_offset());
        let dir = self.future.log_dir().path().to_owned();
        let found = |log: &Log| {
            (
                log.log_start_offset(),
                log.next_offset(),
                read_all(log, log.log_start_offset()),
                log.leader_epochs().entries().to_vec(),
            )
        };
        assert_eq!(found(&self.future), expected);
        stop_cleanly(self.future);
        assert!(old.is_dir());
        let mut again = open_with(&dir, &config);
        assert_eq!(found(&again), expected);
        let epoch = again.leader_epochs().latest_epoch().unwrap_or(0);
        let appended = again.append_as_leader(&[batch(1, 10, NOW)], epoch, NOW);
        assert_eq!(
            appended.unwrap().remove(0).unwrap().first_offset,
            expected.1
        );
        again
    }
}

fn small() -> Arc<TopicConfig> {
    config(|config| config.segment_bytes = 2000)
}

#[test]
fn a_moved_log_is_the_same_with_its_segments_and_producers() {
    let moved = pair(&small(), |log| {
        for i in 0..20 {
            append(log, produced(5, 0, i * 3, 3));
            append(log, batch(2, 300, NOW));
        }
    });
    let log = moved.check_replaced();
    assert!(log.segments_count() > 3);
    let producer = log.active_producers().next().expect("one");
    assert_eq!((producer.producer_id, producer.last_sequence), (5, 59));
}

#[test]
fn an_empty_log_moves_with_its_epochs() {
    let moved = pair(&small(), |log| {
        log.assign_epoch(3, 0).unwrap();
    });
    moved.check_replaced();
}

#[test]
fn epochs_without_records_are_not_lost() {
    // KAFKA-20961: a follower that asks for epoch 4 or 9 would get an end that never was, and loop.
    let moved = pair(&small(), |log| {
        append(log, batch(5, 10, NOW));
        log.assign_epoch(4, 5).unwrap();
        log.append_as_leader(&[batch(5, 10, NOW)], 4, NOW).unwrap();
        log.assign_epoch(9, 10).unwrap();
    });
    let log = moved.check_replaced();
    assert_eq!(log.leader_epochs().latest_epoch(), Some(9));
}

#[test]
fn a_log_that_begins_within_a_batch_begins_there_afterwards() {
    let moved = pair(&small(), |log| {
        for _ in 0..10 {
            append(log, batch(10, 100, NOW));
        }
        log.increment_log_start_offset(35, StartOffsetReason::ClientRecordDeletion)
            .unwrap();
    });
    assert_eq!(moved.check_replaced().log_start_offset(), 35);
}

#[test]
fn records_deleted_while_they_are_copied_restart_the_copy() {
    let mut moved = pair(&small(), |log| {
        append(log, batch(10, 100, NOW));
    });
    moved.copy();
    for _ in 0..10 {
        append(&mut moved.current, batch(10, 100, NOW));
    }
    moved
        .current
        .increment_log_start_offset(100, StartOffsetReason::ClientRecordDeletion)
        .unwrap();
    moved.check_replaced();
}

#[test]
fn a_truncated_log_takes_its_future_one_along() {
    let mut moved = pair(&small(), |log| {
        for _ in 0..10 {
            append(log, batch(10, 100, NOW));
        }
    });
    moved.copy();
    moved.current.truncate_to(50).unwrap();
    let mut follower = moved
        .current
        .append_as_leader(&[batch(10, 50, NOW)], 7, NOW)
        .unwrap();
    assert_eq!(follower.remove(0).unwrap().first_offset, 50);
    moved.check_replaced();
}

#[test]
fn an_interrupted_copy_goes_on_where_it_was() {
    let mut moved = pair(&small(), |log| {
        for _ in 0..20 {
            append(log, batch(10, 100, NOW));
        }
    });
    moved.copy();
    let dir = moved.future.log_dir().path().to_owned();
    stop_cleanly(moved.future);
    append(&mut moved.current, batch(1, 10, NOW));
    let again = LogDir::open(&dir).unwrap();
    assert_eq!(again.future_dirs().unwrap().len(), 1);
    moved.future = Log::open_future(params(&again, &small())).unwrap();
    drop(again);
    assert_eq!(moved.future.next_offset(), 200);
    assert_eq!(moved.copy(), 1, "only what is new");
    moved.check_replaced();
}

#[test]
fn long_topic_names_cannot_move() {
    let named = |len: usize| TopicPartition::new("t".repeat(len).as_str(), 0);
    assert!(Log::has_future_name(&named(200)));
    assert!(!Log::has_future_name(&named(240)));
}
