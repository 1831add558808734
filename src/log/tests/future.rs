//! Logs that move into another log directory.

use rustix::io::Errno;

use super::disk_recorder::{Op, Recorder, Survival};
use super::*;

/// A log in one directory and its future log in another.
struct Pair {
    temp: tempfile::TempDir,
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
        temp,
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
        let config = self.current.config().clone();
        let old = self.future.replace(&mut self.current).unwrap();
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

/// A log in `a` that is to be replaced by the future one in `b`, on a disk that forgets.
fn ready_to_swap() -> (Pair, Recorder) {
    let mut moved = pair(&small(), |log| {
        for _ in 0..20 {
            append(log, batch(10, 100, NOW));
        }
        log.flush().unwrap();
    });
    let recorder = Recorder::watch(moved.temp.path());
    moved.copy();
    (moved, recorder)
}

#[test]
fn a_power_cut_never_leaves_a_moved_log_twice_or_not_at_all() {
    let (mut moved, recorder) = ready_to_swap();
    let begin = recorder.ops_count();
    moved.future.replace(&mut moved.current).unwrap();
    let mut promoted = 0;
    for ops in begin..=recorder.ops_count() {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Some(7)] {
            let left = tempfile::tempdir().unwrap();
            recorder.crash(ops, survival, left.path());
            let dirs = ["a", "b"].map(|name| LogDir::open(&left.path().join(name)).unwrap());
            let new = &dirs[1];
            let holding: Vec<_> = dirs
                .iter()
                .filter(|dir| !dir.partition_dirs().unwrap().is_empty())
                .collect();
            let dir = match holding[..] {
                [only] => only,
                // As the broker does: the metadata knows the new directory by then.
                [] => {
                    promoted += 1;
                    let (tp, path) = new.future_dirs().unwrap().remove(0);
                    Log::promote_dir(&path, &tp).unwrap();
                    new
                }
                _ => panic!("behind operation {ops}, {survival:?}: the log is in both"),
            };
            let log = Log::open(params(dir, &small())).unwrap();
            assert_eq!(
                log.next_offset(),
                200,
                "behind operation {ops}, {survival:?}"
            );
            assert_eq!(read_all(&log, 0).len(), 20);
        }
    }
    assert!(promoted > 0, "between the two renames");
}

#[test]
fn a_move_that_fails_at_the_last_steps_leaves_the_old_log() {
    let (mut trial, trial_recorder) = ready_to_swap();
    let trial_begin = trial_recorder.ops_count();
    trial.future.replace(&mut trial.current).unwrap();
    let is_rename =
        |op: &Op| matches!(op, Op::Rename(from, _) if from.to_string_lossy().ends_with("-future"));
    let steps = &trial_recorder.ops()[trial_begin..];
    let rename = steps.iter().rposition(is_rename);
    let rename = rename.expect("the second rename");
    for failing in rename..steps.len() {
        let (mut moved, recorder) = ready_to_swap();
        assert_eq!(recorder.ops_count(), trial_begin);
        recorder.fail_in(failing, Errno::IO);
        assert!(moved.future.replace(&mut moved.current).is_err());
        recorder.heal();
        assert!(moved.future.log_dir().is_offline() && !moved.current.log_dir().is_offline());
        append(&mut moved.current, batch(1, 10, NOW));
        let dir = moved.current.log_dir().path().to_owned();
        stop_cleanly(moved.current);
        assert_eq!(open_with(&dir, &small()).next_offset(), 201);
        let other = moved.future.log_dir();
        assert!(
            other.partition_dirs().unwrap().is_empty(),
            "it is there once"
        );
    }
}
