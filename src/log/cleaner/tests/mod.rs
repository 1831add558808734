//! Tests of compaction: the rules one by one, and whole cleanings of logs in temporary directories.

mod cleaning;
mod filter;
mod model;
mod plan;
mod swap;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::config::TopicConfig;
use crate::log::{Log, LogDir, OpenParams};
use crate::protocol::batch::{
    AppendOrigin, BatchBuilder, BatchHeader, Batches, Record, Records, ValidBatch, check_crc,
    parse_header,
};
use crate::types::{Offset, TimestampMs, TopicPartition};

const NOW: TimestampMs = 1_700_000_000_000;
const SETTINGS: CleanerSettings = CleanerSettings {
    dedupe_buffer_bytes: 1 << 20,
    load_factor: 0.9,
    io_buffer_bytes: 1024,
};

/// A key and its value; `None` is a tombstone.
type KeyValue<'a> = (&'a str, Option<&'a str>);

/// A batch of these records, stamped with growing times from `NOW` on.
fn batch(base_offset: Offset, records: &[KeyValue<'_>]) -> Bytes {
    build(BatchBuilder::new().base_offset(base_offset), records)
}

fn build(mut builder: BatchBuilder, records: &[KeyValue<'_>]) -> Bytes {
    for (at, (key, value)) in records.iter().enumerate() {
        builder.append(
            NOW + at as i64,
            Some(key.as_bytes()),
            value.map(str::as_bytes),
        );
    }
    builder.build()
}

fn records_of(header: &BatchHeader, bytes: &[u8]) -> Vec<Record> {
    check_crc(header, bytes).unwrap();
    Records::new(header, bytes, 1 << 20)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn config(change: impl FnOnce(&mut TopicConfig)) -> Arc<TopicConfig> {
    let mut config = TopicConfig::default();
    config.cleanup_policy.compact = true;
    config.cleanup_policy.delete = false;
    change(&mut config);
    Arc::new(config)
}

fn open(path: &Path, config: &Arc<TopicConfig>) -> Log {
    Log::open(OpenParams {
        dir: LogDir::open(path).unwrap(),
        topic_partition: TopicPartition::new("topic", 0),
        topic_id: None,
        config: config.clone(),
        producer_id_expiration_ms: 86_400_000,
        now_ms: NOW,
    })
    .unwrap()
}

/// Appends a batch at the log's end.
fn append(log: &mut Log, bytes: Bytes) -> Offset {
    let batch = ValidBatch {
        header: parse_header(&bytes).unwrap(),
        bytes,
        origin: AppendOrigin::Client,
    };
    let results = log.append_as_leader(&[batch], 0, NOW).unwrap();
    results[0].clone().unwrap().first_offset
}

/// All batches, in order.
fn batches(log: &Log) -> Vec<(BatchHeader, Bytes)> {
    let mut found = Vec::new();
    let mut from = log.log_start_offset();
    loop {
        let slice = log.read(from, 1 << 20, log.next_offset(), true).unwrap();
        if slice.is_empty() {
            return found;
        }
        for batch in Batches::new(slice.read_bytes().unwrap()) {
            let Ok((header, bytes)) = batch else { break };
            check_crc(&header, &bytes).unwrap();
            from = header.next_offset();
            found.push((header, bytes));
        }
    }
}

/// Every record: offset, key and value.
fn contents(log: &Log) -> Vec<(Offset, String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    batches(log)
        .iter()
        .flat_map(|(header, bytes)| records_of(header, bytes))
        .map(|r| {
            let key = r.key.as_ref().map(text).unwrap_or_default();
            (r.offset, key, r.value.as_ref().map(text))
        })
        .collect()
}

/// One cleaning as a thread runs it; returns its statistics, or `None` if there was nothing to clean.
fn clean_at(log: &mut Log, now_ms: TimestampMs) -> Option<CleanerStats> {
    clean_with(log, now_ms, SETTINGS)
}

fn clean_with(
    log: &mut Log,
    now_ms: TimestampMs,
    settings: CleanerSettings,
) -> Option<CleanerStats> {
    log.flush().unwrap();
    let stable = log.first_undecided_offset().unwrap_or(log.next_offset());
    let to_clean = log.log_to_clean(stable, now_ms).unwrap();
    if !to_clean.is_due(0.0) {
        return None;
    }
    let mut cleaning = log
        .begin_cleaning(to_clean.range, settings, now_ms)
        .unwrap();
    cleaning.build_map(7, &mut |_| true).unwrap();
    while let Some(group) = cleaning.clean_group(&mut |_| true).unwrap() {
        assert!(log.replace_segments(&cleaning, group).unwrap());
        cleaning.sync_replaced().unwrap();
    }
    assert!(log.finish_cleaning(&cleaning));
    Some(*cleaning.stats())
}

/// The last value of each key, tombstones left out.
fn latest(log: &Log) -> BTreeMap<String, String> {
    let mut latest = BTreeMap::new();
    for (_, key, value) in contents(log) {
        match value {
            Some(value) => latest.insert(key, value),
            None => latest.remove(&key),
        };
    }
    latest
}
