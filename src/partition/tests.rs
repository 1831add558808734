//! A partition with its log on a recorded disk: what an answer to a producer is worth when the power goes.

mod copies;
mod leader;
mod touched;
mod truncation;

use std::time::Duration;

use super::*;
use crate::log::tests::disk_recorder::{Deaf, Op, Recorder, Survival};
use crate::log::{Checkpoint, LogDir, OpenParams};
use crate::metadata::{LeaderRecoveryState, PartitionRegistration};
use crate::protocol::batch::BatchBuilder;

const NOW: TimestampMs = 1_700_000_000_000;

struct Fixture {
    dir: tempfile::TempDir,
    recorder: Recorder,
    config: Arc<TopicConfig>,
    partition: Arc<Partition>,
}

fn params(dir: &Arc<LogDir>, config: &Arc<TopicConfig>) -> OpenParams {
    OpenParams {
        dir: dir.clone(),
        topic_partition: TopicPartition::new("topic", 0),
        topic_id: Some(Uuid::from_u128(7)),
        config: config.clone(),
        producer_id_expiration_ms: 86_400_000,
        now_ms: NOW,
    }
}

impl Fixture {
    fn new(change: impl FnOnce(&mut TopicConfig)) -> Self {
        let mut config = TopicConfig::default();
        change(&mut config);
        let config = Arc::new(config);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::watch(dir.path());
        let log_dir = LogDir::open(dir.path()).unwrap();
        let partition = Partition::new(
            TopicPartition::new("topic", 0),
            Uuid::from_u128(7),
            Log::open(params(&log_dir, &config)).unwrap(),
            PartitionState::new(1, 0, rules()),
            config.clone(),
            Arc::default(),
            Arc::default(),
        );
        partition.apply(&alone(), 0, &|_| None).unwrap();
        Self {
            dir,
            recorder,
            config,
            partition,
        }
    }

    fn append(&self) -> Result<AppendInfo, Error> {
        let mut builder = BatchBuilder::new();
        builder.append(NOW, None, Some(b"value"));
        let batch = ValidBatch::internal(builder.build()).unwrap();
        self.partition.append_as_leader(&[batch], true, NOW)[0].clone()
    }

    /// Appends and waits as acks=1 does.
    async fn produce(&self) -> Result<Offset, Error> {
        let offset = self.append()?.last_offset;
        if let Some(waiting) = self.partition.wait_durable(offset + 1) {
            waiting.await.unwrap()?;
        }
        Ok(offset)
    }

    /// Where the log ends if the power goes now and nothing unsynced is left.
    fn end_after_power_cut(&self) -> Offset {
        let left = tempfile::tempdir().unwrap();
        let now = self.recorder.ops_count();
        self.recorder.crash(now, Survival::Nothing, left.path());
        let dir = LogDir::open(left.path()).unwrap();
        let log = Log::open(params(&dir, &self.config)).unwrap();
        log.next_offset()
    }

    fn syncs(&self) -> usize {
        let is_sync =
            |op: &&Op| matches!(op, Op::Sync(path) if path.ends_with("00000000000000000000.log"));
        self.recorder.ops().iter().filter(is_sync).count()
    }
}

fn rules() -> ReplicationRules {
    ReplicationRules {
        min_insync_replicas: 1,
        replica_lag_time_max_ms: 30_000,
    }
}

/// Broker 1 is the only replica.
fn alone() -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![1],
        directories: vec![Uuid::nil()],
        isr: vec![1],
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: 1,
        leader_recovery_state: LeaderRecoveryState::Recovered,
        leader_epoch: 0,
        partition_epoch: 0,
    }
}

/// Whether every answered record outlives a power cut right behind the answer.
async fn answers_are_durable(deaf: Option<Deaf>) -> bool {
    let fixture = Fixture::new(|c| c.flush_messages = 1);
    if let Some(deaf) = deaf {
        fixture.recorder.plant(deaf);
    }
    for _ in 0..5 {
        let offset = fixture.produce().await.unwrap();
        if fixture.end_after_power_cut() <= offset {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn flush_messages_1_answers_after_the_sync() {
    assert!(answers_are_durable(None).await);
}

#[tokio::test]
async fn an_answer_before_the_sync_is_found() {
    let deaf: Deaf = |op| matches!(op, Op::Sync(_));
    assert!(!answers_are_durable(Some(deaf)).await);
}

#[tokio::test]
async fn one_sync_serves_everybody_who_waits() {
    let fixture = Fixture::new(|c| c.flush_messages = 1);
    // As if a flush were under way that takes its time.
    fixture.partition.lock().flush.set_running(true);
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let offset = fixture.append().unwrap().last_offset;
        waiting.push(fixture.partition.wait_durable(offset + 1).unwrap());
        assert_eq!(fixture.partition.offsets().unwrap().high_watermark, 0);
    }
    fixture.partition.lock().flush.set_running(false);
    fixture.append().unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(fixture.syncs(), 1);
    assert!(fixture.partition.offsets().unwrap().high_watermark >= 50);
}

#[tokio::test]
async fn a_failed_sync_answers_with_an_error_and_is_not_tried_again() {
    let fixture = Fixture::new(|c| c.flush_messages = 1);
    fixture.produce().await.unwrap();
    let durable = fixture.end_after_power_cut();
    // The write goes well, the sync does not.
    fixture.recorder.fail_in(1, rustix::io::Errno::IO);
    let error = fixture.produce().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::KafkaStorageError);
    let error = fixture.produce().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::KafkaStorageError);
    assert_eq!(fixture.end_after_power_cut(), durable);
    assert_eq!(fixture.partition.offsets().unwrap().high_watermark, durable);
    assert!(LogDir::open(fixture.dir.path()).is_err(), "still locked");
}

/// Between an append and its wait a log may go (its directory failed, its topic was deleted). Whoever comes then must neither
/// wait for ever nor be told that the record is safe.
#[tokio::test]
async fn a_wait_for_a_log_that_was_taken_is_refused() {
    let fixture = Fixture::new(|c| c.flush_messages = 1);
    // As if a flush were under way that takes its time.
    fixture.partition.lock().flush.set_running(true);
    let end = fixture.append().unwrap().last_offset + 1;
    fixture.partition.take_log(ErrorCode::KafkaStorageError);
    for waiting in [
        fixture.partition.wait_durable(end),
        fixture.partition.wait_high_watermark(end),
    ] {
        let answer = waiting.expect("not durable").await.unwrap();
        assert_eq!(answer.unwrap_err().code, ErrorCode::KafkaStorageError);
    }
}

/// An acks=all append is committed, and something changes before its answer.
/// Rule: acks-all
#[tokio::test]
async fn what_changes_behind_an_append_is_told() {
    let three = PartitionRegistration {
        replicas: vec![1, 2, 3],
        partition_epoch: 1,
        ..alone()
    };
    let fixture = Fixture::new(|_| ());
    fixture.partition.apply(&three, 0, &|_| None).unwrap();
    let end = fixture.append().unwrap().last_offset + 1;
    assert!(fixture.partition.wait_high_watermark(end).is_none());
    let mut config = TopicConfig::clone(&fixture.config);
    config.min_insync_replicas = 2;
    fixture.partition.update_config(Arc::new(config));
    let error = fixture.append().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotEnoughReplicas);
    let code = async || {
        let waiting = fixture.partition.wait_high_watermark(end).expect("refused");
        waiting.await.unwrap().unwrap_err().code
    };
    assert_eq!(code().await, ErrorCode::NotEnoughReplicasAfterAppend);
    let follows = PartitionRegistration {
        leader: 2,
        leader_epoch: 1,
        partition_epoch: 2,
        ..three
    };
    fixture.partition.apply(&follows, 0, &|_| None).unwrap();
    assert_eq!(code().await, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn flush_messages_counts_records_and_changes_live() {
    let fixture = Fixture::new(|c| c.flush_messages = 3);
    fixture.produce().await.unwrap();
    fixture.produce().await.unwrap();
    assert_eq!(fixture.end_after_power_cut(), 0);
    fixture.produce().await.unwrap();
    assert_eq!(fixture.end_after_power_cut(), 3);
    let mut config = TopicConfig::clone(&fixture.config);
    config.flush_messages = 1;
    fixture.partition.update_config(Arc::new(config));
    fixture.produce().await.unwrap();
    assert_eq!(fixture.end_after_power_cut(), 4);
}

#[tokio::test]
async fn flush_ms_flushes_without_another_append() {
    let fixture = Fixture::new(|c| c.flush_ms = 1);
    fixture.append().unwrap();
    becomes_durable(&fixture).await;
}

#[tokio::test]
async fn a_shorter_flush_ms_flushes_what_was_appended_before() {
    let fixture = Fixture::new(|c| c.flush_ms = 3_600_000);
    fixture.append().unwrap();
    let mut config = TopicConfig::clone(&fixture.config);
    config.flush_ms = 1;
    fixture.partition.update_config(Arc::new(config));
    becomes_durable(&fixture).await;
}

async fn becomes_durable(fixture: &Fixture) {
    let is_durable = || fixture.partition.with_log(|log| log.recovery_point()) == Ok(1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_durable() {
        assert!(tokio::time::Instant::now() < deadline, "never flushed");
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.end_after_power_cut(), 1);
    // What the checkpoint then says holds.
    let tp = fixture.partition.topic_partition.clone();
    let written = fixture.partition.with_log(|log| {
        log.log_dir()
            .write_checkpoint(Checkpoint::RecoveryPoint, &[(tp, 1)].into())
    });
    written.unwrap().unwrap();
    assert_eq!(fixture.end_after_power_cut(), 1);
}
