//! Two replicas with real logs in one process: what a follower copies, cuts and refuses.

use bytes::Bytes;

use super::{NOW, params, rules};
use crate::log::{Log, LogDir};
use crate::metadata::PartitionRegistration;
use crate::partition::*;
use crate::protocol::batch::{AppendOrigin, BatchBuilder};

/// A replica with its directory.
struct Replica {
    id: BrokerId,
    partition: Arc<Partition>,
    _dir: tempfile::TempDir,
}

impl Replica {
    fn new(id: BrokerId) -> Self {
        let config = Arc::new(TopicConfig::default());
        let dir = tempfile::tempdir().unwrap();
        let log_dir = LogDir::open(dir.path()).unwrap();
        let partition = Partition::new(
            TopicPartition::new("topic", 0),
            Uuid::from_u128(7),
            Log::open(params(&log_dir, &config)).unwrap(),
            PartitionState::new(id, 0, rules()),
            config,
            Arc::default(),
            Arc::default(),
        );
        Self {
            id,
            partition,
            _dir: dir,
        }
    }

    fn append(&self, count: usize) {
        for _ in 0..count {
            let mut builder = BatchBuilder::new();
            let value = format!("by {}", self.id);
            builder.append(NOW, None, Some(value.as_bytes()));
            let batch = ValidBatch::internal(builder.build()).unwrap();
            self.partition.append_as_leader(&[batch], false, NOW)[0]
                .clone()
                .unwrap();
        }
    }

    fn next_offset(&self) -> Offset {
        self.partition.offsets().unwrap().next_offset
    }

    /// Every byte of the log, and where its epochs begin.
    fn content(&self) -> (Bytes, Vec<(LeaderEpoch, Offset)>) {
        let read = |log: &mut Log| {
            let slice = log.read(0, usize::MAX, i64::MAX, true).unwrap();
            let epochs = log.leader_epochs().entries().to_vec();
            (slice.read_bytes().unwrap(), epochs)
        };
        self.partition.with_log(read).unwrap()
    }

    /// What this follower would ask now, and what the leader answers.
    fn fetch(&self, leader: &Replica) -> (FollowerPosition, Result<ReadResult, Error>) {
        let position = self.partition.follower_position().expect("it follows");
        let request = ReadRequest {
            offset: position.fetch_offset,
            size_bytes_max: 1 << 20,
            isolation: Isolation::LogEnd,
            current_leader_epoch: position.leader_epoch,
            last_fetched_epoch: position.last_fetched_epoch,
            min_one_batch: true,
            leader_only: true,
            replica_id: Some(self.id),
        };
        let fetch = FollowerFetch {
            replica_id: self.id,
            broker_epoch: -1,
            fetch_offset: position.fetch_offset,
            log_start_offset: position.log_start_offset,
            now_ms: 0,
        };
        let read = leader.partition.read_as_leader(&request, &fetch);
        (position, read.map(|(result, _)| result))
    }

    /// Fetches until there is nothing new, as the fetcher does. Gives the offsets of all cuts.
    fn catch_up(&self, leader: &Replica) -> Vec<Offset> {
        let mut cuts = Vec::new();
        for _ in 0..20 {
            let (position, result) = self.fetch(leader);
            let result = result.unwrap();
            if let Some(diverging) = result.diverging_epoch {
                self.partition
                    .truncate_to_leader(position.leader_epoch, diverging)
                    .unwrap();
                cuts.push(self.next_offset());
                continue;
            }
            let is_end = result.slice.is_none();
            self.partition
                .append_as_follower(replicated(position, &result), NOW)
                .unwrap();
            if is_end && position.fetch_offset == leader.next_offset() {
                return cuts;
            }
        }
        panic!("does not end");
    }
}

fn replicated(position: FollowerPosition, result: &ReadResult) -> Replicated {
    let records = result
        .slice
        .as_ref()
        .map(|slice| slice.read_bytes().unwrap());
    Replicated {
        leader_epoch: position.leader_epoch,
        fetch_offset: position.fetch_offset,
        records: records.unwrap_or_default(),
        high_watermark: result.high_watermark,
        log_start_offset: result.log_start_offset,
    }
}

/// Both replicas hear that `leader` leads in `epoch`.
fn elect(replicas: [&Replica; 2], leader: BrokerId, epoch: LeaderEpoch) {
    let registration = PartitionRegistration {
        replicas: vec![1, 2],
        isr: vec![1, 2],
        leader,
        leader_epoch: epoch,
        partition_epoch: epoch,
        ..PartitionRegistration::default()
    };
    for replica in replicas {
        replica
            .partition
            .apply(&registration, 0, &|_| Some(1))
            .unwrap();
    }
}

/// Rule: follower-fetch
#[test]
fn follower_is_byte_for_byte_its_leader() {
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(10);
    assert!(b.catch_up(&a).is_empty());
    assert_eq!(b.content(), a.content());
    assert_eq!(a.partition.offsets().unwrap().high_watermark, 10);
    assert_eq!(b.partition.offsets().unwrap().high_watermark, 10);
}

/// Rule: diverging-epoch
#[test]
fn deposed_leader_cuts_what_nobody_else_has_and_copies_the_rest() {
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(6);
    b.catch_up(&a);
    a.append(4);
    elect([&a, &b], 2, 1);
    b.append(3);
    assert_eq!(a.catch_up(&b), [6]);
    assert_eq!(a.content(), b.content());
    assert_eq!(a.content().1, [(0, 0), (1, 6)]);
}

/// Rule: retries
#[test]
fn retries_are_known_after_a_failover() {
    // The follower keeps producer state as it copies: what the old leader acknowledged, the new one does not append again.
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    let batch = |sequence| {
        let mut builder = BatchBuilder::new().producer(1000, 0, sequence);
        builder.append(NOW, None, Some(b"once"));
        ValidBatch {
            origin: AppendOrigin::Client,
            ..ValidBatch::internal(builder.build()).unwrap()
        }
    };
    let append = |replica: &Replica, sequence| {
        replica
            .partition
            .append_as_leader(&[batch(sequence)], false, NOW)[0]
            .clone()
    };
    for sequence in 0..3 {
        append(&a, sequence).unwrap();
    }
    b.catch_up(&a);
    elect([&a, &b], 2, 1);
    let retried = append(&b, 2).unwrap();
    assert!(retried.duplicate);
    assert_eq!(retried.last_offset, 2, "the offset of the first time");
    assert_eq!(b.next_offset(), 3);
    assert_eq!(append(&b, 3).unwrap().last_offset, 3);
    let gap = append(&b, 5)
        .map(|info| info.last_offset)
        .map_err(|e| e.code);
    assert_eq!(gap, Err(ErrorCode::OutOfOrderSequenceNumber));
}

/// Rule: new-epoch
#[test]
fn elections_without_a_record_leave_followers_able_to_fetch() {
    // S3, KAFKA-10706: epochs that begin at the log end must not stay behind in a follower's cache.
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(5);
    b.catch_up(&a);
    for (leader, epoch) in [(2, 1), (1, 2), (2, 3), (1, 4)] {
        elect([&a, &b], leader, epoch);
    }
    a.append(1);
    b.catch_up(&a);
    assert_eq!(b.content().0, a.content().0);
    elect([&a, &b], 2, 5);
    b.append(1);
    a.catch_up(&b);
    assert_eq!(b.content().0, a.content().0);
}

/// Rule: follower-fetch
#[test]
fn answer_to_an_older_fetch_is_void() {
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(3);
    let (position, result) = b.fetch(&a);
    let answer = replicated(position, &result.unwrap());
    b.partition.append_as_follower(answer.clone(), NOW).unwrap();
    let again = b.partition.append_as_follower(answer.clone(), NOW);
    assert!(
        matches!(again, Err(AppendAsFollowerError::Stale)),
        "the log end moved"
    );
    elect([&a, &b], 1, 1);
    let moved = Replicated {
        fetch_offset: 3,
        ..answer
    };
    let late = b.partition.append_as_follower(moved, NOW);
    assert!(
        matches!(late, Err(AppendAsFollowerError::Stale)),
        "the epoch moved"
    );
    assert_eq!(b.next_offset(), 3);
}

/// Rule: follower-fetch
#[test]
fn batches_of_a_later_epoch_are_not_appended() {
    // KAFKA-18723: the leader's answer may hold more than the follower's epoch covers.
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(2);
    elect([&a, &a], 1, 1);
    a.append(2);
    let (_, epochs) = a.content();
    assert_eq!(epochs, [(0, 0), (1, 2)]);
    let position = b.partition.follower_position().unwrap();
    let answer = Replicated {
        leader_epoch: position.leader_epoch,
        fetch_offset: 0,
        records: a.content().0,
        high_watermark: 4,
        log_start_offset: 0,
    };
    b.partition.append_as_follower(answer, NOW).unwrap();
    assert_eq!(b.next_offset(), 2);
}

/// Rule: out-of-range
#[test]
fn follower_of_an_emptied_log_starts_where_its_leader_does() {
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    b.partition.reset_to_leader(0, 40, 90).unwrap();
    let offsets = b.partition.offsets().unwrap();
    assert_eq!((offsets.log_start_offset, offsets.next_offset), (40, 40));
    // An unclean election left a shorter log.
    let (a, b) = (Replica::new(1), Replica::new(2));
    elect([&a, &b], 1, 0);
    a.append(8);
    b.catch_up(&a);
    b.partition.reset_to_leader(0, 0, 5).unwrap();
    let offsets = b.partition.offsets().unwrap();
    assert_eq!((offsets.high_watermark, offsets.next_offset), (5, 5));
}
