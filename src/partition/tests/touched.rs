//! Which partitions the timers get to look at.

use super::*;

const TIMERS: [Timer; 5] = [
    Timer::CheckpointHighWatermarks,
    Timer::CheckpointLogs,
    Timer::ShrinkIsr,
    Timer::ReleaseFiles,
    Timer::CleanLogs,
];

/// How many of the timers have something to look at; each looks.
fn come(partition: &Partition) -> usize {
    let touched = &partition.broker.touched;
    let busy = TIMERS.iter().filter(|timer| touched.take_any(**timer));
    busy.count()
}

fn with_followers() -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![1, 2, 3],
        isr: vec![1, 2, 3],
        partition_epoch: 1,
        ..alone()
    }
}

#[test]
fn each_timer_gets_what_was_touched_once() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    assert_eq!(come(partition), TIMERS.len(), "it is new");
    assert_eq!(come(partition), 0);
    fixture.append().unwrap();
    fixture.append().unwrap();
    for timer in TIMERS {
        let taken = partition.broker.touched.take(timer);
        assert_eq!(taken.len(), 1, "{timer:?}");
        assert!(Arc::ptr_eq(&taken[0], partition));
    }
    assert_eq!(come(partition), 0);
    partition.offsets().unwrap();
    partition.check_leader(0).unwrap();
    partition.look_at_log(|log| log.recovery_point()).unwrap();
    partition.delete_old_segments(NOW).unwrap();
    assert_eq!(come(partition), 0, "who looks touches nothing");
    partition.delete_records_before(-1).unwrap();
    assert_eq!(come(partition), TIMERS.len());
}

#[test]
fn time_alone_matters_to_leaders_of_followers() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    come(partition);
    partition.tick(0);
    assert_eq!(come(partition), 0, "it has no followers");
    partition.apply(&with_followers(), 0, &|_| Some(1)).unwrap();
    fixture.append().unwrap();
    for now_ms in [10_000, 20_000, 31_000] {
        let due = partition.broker.touched.take(Timer::ShrinkIsr);
        assert_eq!(due.len(), 1, "at {now_ms}");
        partition.tick(now_ms);
    }
    let proposed = partition.broker.isr_proposals.take();
    assert_eq!(proposed.len(), 1);
    assert_eq!(proposed[0].proposal.isr.len(), 1, "both lag");
}

#[test]
fn files_are_looked_at_until_they_are_closed() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    fixture.append().unwrap();
    partition.flush_now();
    come(partition);
    partition.release_idle_files();
    assert_eq!(come(partition), 1, "just written: still open");
    partition.release_idle_files();
    assert_eq!(come(partition), 0);
}

/// A checkpoint file must lose the partitions that are gone.
#[test]
fn a_partition_that_went_away_is_news() {
    let fixture = Fixture::new(|_| ());
    come(&fixture.partition);
    let broker = Arc::clone(&fixture.partition.broker);
    drop(fixture.partition.take_log(ErrorCode::NotLeaderOrFollower));
    drop(fixture);
    assert!(broker.touched.take_any(Timer::CheckpointLogs));
    assert!(broker.touched.take(Timer::CleanLogs).is_empty());
}
