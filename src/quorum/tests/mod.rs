//! Tests of the metadata log: the store against openraft's suite, one voter, three voters, crashes.

mod conformance;
mod crash;
mod elections;
mod membership;
mod snapshots;
mod three_voters;
mod voter;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use tokio::sync::mpsc;

use super::entries::log_id;
use super::network::{NoTransport, Transport};
use super::store::Store;
use super::timing::QuorumTiming;
use super::types::{Entry, Proposal, VoterEndpoint, VoterNode};
use super::{Committed, Joining, MetaLog, MetaLogParams, OpenraftMetaLog, TypeConfig};
use crate::clock::Clock;
use crate::config::TopicConfig;
use crate::log::{Log, LogDir, OpenParams};
use crate::protocol::batch::BatchBuilder;
use crate::protocol::metadata_records::{MetadataRecord, TopicRecord, encode_record};
use crate::types::{BrokerId, LeaderEpoch, Offset, TopicPartition, Uuid};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn topic(name: &str) -> MetadataRecord {
    TopicRecord {
        name: name.into(),
        topic_id: Uuid::from_u128(7),
    }
    .into()
}

fn topics(names: &[&str]) -> Vec<MetadataRecord> {
    names.iter().map(|name| topic(name)).collect()
}

fn node(port: u16) -> VoterNode {
    VoterNode {
        directory_id: Uuid::from_u128(0x1234),
        endpoints: vec![VoterEndpoint {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port,
        }],
    }
}

pub(super) fn open_log(dir: &Path) -> Log {
    Log::open(OpenParams {
        dir: LogDir::open(dir).unwrap(),
        topic_partition: TopicPartition::new("__cluster_metadata", 0),
        topic_id: None,
        config: Arc::new(TopicConfig::default()),
        producer_id_expiration_ms: i64::MAX,
        now_ms: 0,
    })
    .unwrap()
}

fn open_store(dir: &Path) -> Arc<Store> {
    let log = open_log(dir);
    let dir = dir.join("__cluster_metadata-0");
    Arc::new(Store::open(log, &dir, |_| 1, Clock::system()).unwrap())
}

fn entry(term: u64, index: u64, payload: EntryPayload<Proposal, u64, VoterNode>) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload,
    }
}

/// An entry of topics that expects to be at `base_offset`.
fn normal(term: u64, index: u64, base_offset: Offset, names: &[&str]) -> Entry {
    let mut batch = BatchBuilder::new().base_offset(base_offset);
    for record in topics(names) {
        batch.append(5, None, Some(&encode_record(&record)));
    }
    entry(
        term,
        index,
        EntryPayload::Normal(Proposal {
            base_offset,
            batch: batch.build(),
            records: None,
            rejected: false,
        }),
    )
}

/// Appends and waits until it is durable.
async fn append(store: &Store, entries: Vec<Entry>) {
    let (tx, done) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(tx)).unwrap();
    done.await.unwrap().unwrap();
}

fn params(
    dir: &Path,
    node_id: BrokerId,
    voters: &[BrokerId],
    transport: Arc<dyn Transport>,
) -> MetaLogParams {
    MetaLogParams {
        node_id,
        own: node(9093),
        log_dir: LogDir::open(dir).unwrap(),
        config: Arc::new(TopicConfig::default()),
        voters: voters
            .iter()
            .map(|id| (*id, node(9093)))
            .collect::<BTreeMap<_, _>>(),
        transport,
        addresses: BTreeMap::new(),
        timing: QuorumTiming::default(),
        joining: Joining::default(),
        clock: Clock::system(),
    }
}

async fn open_voter(dir: &Path) -> OpenraftMetaLog {
    OpenraftMetaLog::open(params(dir, 1, &[1], Arc::new(NoTransport)))
        .await
        .unwrap()
}

/// Waits until `log` knows that `leader` leads; returns the epoch.
async fn wait_for_leader(log: &OpenraftMetaLog, leader: BrokerId) -> LeaderEpoch {
    let mut watch = log.leader();
    let known = watch.wait_for(|now| now.leader_id == Some(leader));
    tokio::time::timeout(PATIENCE, known)
        .await
        .unwrap()
        .unwrap()
        .epoch
}

/// The names of topics that a subscriber gets, until `count` are there; checks that offsets have no gap.
async fn collect(from: &mut mpsc::Receiver<Committed>, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut next_offset = None;
    while names.len() < count {
        let next = tokio::time::timeout(PATIENCE, from.recv())
            .await
            .unwrap()
            .unwrap();
        let records = match next {
            Committed::Snapshot {
                offset, records, ..
            } => {
                names.clear();
                next_offset = Some(offset);
                records
            }
            Committed::Batch {
                base_offset,
                last_offset,
                records,
                ..
            } => {
                assert_eq!(base_offset, next_offset.unwrap_or(0), "a gap");
                assert!(
                    records.is_empty() || records.len() as i64 == last_offset - base_offset + 1
                );
                next_offset = Some(last_offset + 1);
                records
            }
        };
        names.extend(records.iter().filter_map(|record| match record {
            MetadataRecord::Topic(topic) => Some(topic.name.clone()),
            _ => None,
        }));
    }
    names
}

/// Copies a directory of files as a crash leaves it: without the lock.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_dir(&file.path(), &target);
        } else if file.file_name() != ".lock" {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}
