//! Which partitions the timers get to look at.

use super::*;

/// The timers that have something to look at; each looks.
fn come(partition: &Partition) -> Vec<Timer> {
    let touched = &partition.broker.touched;
    let busy = Timer::ALL.into_iter();
    busy.filter(|timer| touched.take_any(*timer)).collect()
}

fn with_followers() -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![1, 2, 3],
        isr: vec![1, 2, 3],
        partition_epoch: 1,
        ..alone()
    }
}

fn read_at(offset: Offset, replica_id: Option<BrokerId>) -> ReadRequest {
    ReadRequest {
        offset,
        size_bytes_max: 1 << 20,
        isolation: replica_id.map_or(Isolation::ReadUncommitted, |_| Isolation::LogEnd),
        current_leader_epoch: 0,
        last_fetched_epoch: -1,
        min_one_batch: true,
        leader_only: true,
        replica_id,
    }
}

#[test]
fn each_timer_gets_what_was_touched_once() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    assert_eq!(come(partition), Timer::ALL, "it is new");
    assert_eq!(come(partition), []);
    fixture.append().unwrap();
    fixture.append().unwrap();
    for timer in Timer::ALL {
        let taken = partition.broker.touched.take(timer);
        assert_eq!(taken.len(), 1, "{timer:?}");
        assert!(Arc::ptr_eq(&taken[0], partition));
    }
    assert_eq!(come(partition), []);
    partition.offsets().unwrap();
    partition.check_leader(0).unwrap();
    partition.look_at_log(Log::recovery_point).unwrap();
    partition.delete_old_segments(NOW).unwrap();
    assert_eq!(come(partition), [], "who looks touches nothing");
    partition.delete_records_before(-1).unwrap();
    assert_eq!(come(partition), Timer::ALL);
    partition.published();
    assert_eq!(come(partition), Timer::ALL);
}

#[test]
fn time_alone_matters_to_leaders_of_followers() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    come(partition);
    partition.tick(0);
    assert_eq!(come(partition), [], "it has no followers");
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

/// What a consumer does while nothing comes, over and over.
#[test]
fn a_parked_consumer_is_nothing_to_checkpoints_and_the_cleaner() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    fixture.append().unwrap();
    come(partition);
    partition.read(&read_at(1, None)).unwrap();
    assert_eq!(come(partition), [Timer::ReleaseFiles]);
    let wait = FetchWait::new(1);
    partition.park_fetch(&wait, Isolation::ReadUncommitted);
    partition.watch_high_watermark();
    drop(partition.low_watermark().unwrap());
    assert!(partition.wait_high_watermark(2).is_some());
    assert!(partition.wait_durable(1).is_none());
    assert_eq!(come(partition), []);
    fixture.append().unwrap();
    assert!(wait.has_fired());
    assert_eq!(come(partition), Timer::ALL);
}

#[test]
fn a_followers_fetch_is_news_if_the_high_watermark_moves() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    partition.apply(&with_followers(), 0, &|_| Some(1)).unwrap();
    fixture.append().unwrap();
    fixture.append().unwrap();
    come(partition);
    // The follower, where it fetches, the high watermark then, and what timers make of it.
    let (idle, news) = (vec![Timer::ReleaseFiles], Timer::ALL.to_vec());
    let fetches = [
        (2, 0, 0, &news), // its log starts somewhere: the low watermark may move
        (3, 0, 0, &news),
        (2, 2, 0, &idle), // the other one keeps the high watermark down
        (3, 1, 1, &news),
        (3, 2, 2, &news),
        (2, 2, 2, &idle),
        (3, 2, 2, &idle),
    ];
    for (id, offset, high_watermark, expected) in fetches {
        let fetch = FollowerFetch {
            replica_id: id,
            broker_epoch: -1,
            fetch_offset: offset,
            log_start_offset: 0,
            now_ms: 0,
        };
        let read = partition.read_as_leader(&read_at(offset, Some(id)), &fetch);
        let (result, _) = read.unwrap();
        assert_eq!(result.high_watermark, high_watermark);
        assert_eq!(come(partition), *expected, "{id} at {offset}");
    }
    partition.tick(0);
    assert_eq!(come(partition), [Timer::ShrinkIsr]);
}

#[test]
fn files_are_looked_at_until_they_are_closed() {
    let fixture = Fixture::new(|_| ());
    let partition = &fixture.partition;
    fixture.append().unwrap();
    partition.flush_now();
    come(partition);
    partition.release_idle_files();
    let still_open = [Timer::ReleaseFiles];
    assert_eq!(come(partition), still_open, "just written");
    partition.release_idle_files();
    assert_eq!(come(partition), []);
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
