//! Tests of the log against files in a temporary directory.

mod crash;
pub mod disk_recorder;
mod files;
mod future;
pub mod handles;
mod model;
mod producers;
mod recovery;
mod repairs;
mod retention;
mod scrub;
mod segments;
pub mod transactions;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::protocol::batch::{AppendOrigin, BatchBuilder, Batches, ValidBatch, parse_header};
use crate::types::{ProducerEpoch, ProducerId};

const NOW: TimestampMs = 1_700_000_000_000;

fn config(change: impl FnOnce(&mut TopicConfig)) -> Arc<TopicConfig> {
    let mut config = TopicConfig::default();
    change(&mut config);
    Arc::new(config)
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

fn open_with(path: &Path, config: &Arc<TopicConfig>) -> Log {
    Log::open(params(&LogDir::open(path).unwrap(), config)).unwrap()
}

/// As a broker stops: close, checkpoints, clean shutdown file.
fn stop_cleanly(mut log: Log) {
    log.close(true).unwrap();
    checkpoint(&log);
    log.log_dir().write_clean_shutdown(3).unwrap();
}

fn checkpoint(log: &Log) {
    let tp = log.topic_partition().clone();
    let offsets = [(tp.clone(), log.recovery_point())].into();
    log.log_dir()
        .write_checkpoint(Checkpoint::RecoveryPoint, &offsets)
        .unwrap();
    let offsets = [(tp, log.log_start_offset())].into();
    log.log_dir()
        .write_checkpoint(Checkpoint::LogStartOffset, &offsets)
        .unwrap();
}

fn valid(bytes: Bytes) -> ValidBatch {
    ValidBatch {
        header: parse_header(&bytes).unwrap(),
        bytes,
        origin: AppendOrigin::Client,
    }
}

/// A batch of `count` records with `size` bytes of value each.
fn batch(count: i64, size: usize, timestamp: TimestampMs) -> ValidBatch {
    let mut builder = BatchBuilder::new();
    for i in 0..count {
        builder.append(timestamp + i, None, Some(&vec![b'v'; size]));
    }
    valid(builder.build())
}

fn produced(id: ProducerId, epoch: ProducerEpoch, sequence: i32, count: i64) -> ValidBatch {
    let mut builder = BatchBuilder::new().producer(id, epoch, sequence);
    for i in 0..count {
        builder.append(NOW + i, None, Some(b"value"));
    }
    valid(builder.build())
}

fn append(log: &mut Log, batch: ValidBatch) -> AppendInfo {
    log.append_as_leader(&[batch], 0, NOW).unwrap()[0]
        .clone()
        .unwrap()
}

/// All batches from `from` on, across segments.
fn read_all(log: &Log, mut from: Offset) -> Vec<(Offset, Offset)> {
    let mut found = Vec::new();
    loop {
        let slice = log.read(from, 1 << 20, log.next_offset(), true).unwrap();
        if slice.is_empty() {
            return found;
        }
        for batch in Batches::new(slice.read_bytes().unwrap()) {
            let Ok((header, bytes)) = batch else {
                break;
            };
            crate::protocol::batch::check_crc(&header, &bytes).unwrap();
            found.push((header.base_offset, header.last_offset()));
            from = header.next_offset();
        }
    }
}

/// Runs `act` and returns what it warned of, a line each.
fn warnings<R>(act: impl FnOnce() -> R) -> (R, Vec<String>) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (result, text.lines().map(str::to_owned).collect())
}

fn newest(log: &Log) -> Option<TimestampAndOffset> {
    log.search_timestamp(Wanted::Largest).unwrap()
}

/// As ListOffsets answers, to a consumer that sees the log up to `end`.
fn first_at(log: &Log, timestamp: TimestampMs, end: Offset) -> Option<TimestampAndOffset> {
    let found = log.search_timestamp(Wanted::AtLeast(timestamp)).unwrap();
    found.filter(|found| found.offset < end)
}
