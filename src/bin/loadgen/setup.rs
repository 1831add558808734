//! What a run needs before it starts: topics with leaders, producer ids, filled partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::batch;
use crate::stats::now_ms;
use crate::wire::{Connection, Outcome, produce_answer, produce_frame};

const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

/// Creates a topic unless it is there, and waits until every partition takes requests.
pub fn create_topic(
    conn: &mut Connection,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Outcome<()> {
    create_replicated(conn, name, partitions, 1, configs).map(drop)
}

/// The same with replicas. Gives the address of each partition's leader.
pub fn create_replicated(
    conn: &mut Connection,
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &[(&str, &str)],
) -> Outcome<Vec<String>> {
    let configs = configs
        .iter()
        .map(|(k, v)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string((*k).to_string()))
                .with_value(Some(StrBytes::from_string((*v).to_string())))
        })
        .collect();
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
        .with_configs(configs);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(60_000);
    let response = conn.call(&request, 5)?;
    let code = response.topics.first().map_or(-1, |t| t.error_code);
    if code != 0 && code != TOPIC_ALREADY_EXISTS {
        return Err(format!("topic {name}: error {code}").into());
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match serving_leaders(conn, name, partitions) {
            Ok(leaders) => return Ok(leaders),
            // A broken connection does not come back by waiting.
            Err(e) if e.is::<std::io::Error>() => return Err(e),
            Err(e) if Instant::now() > deadline => {
                return Err(format!("topic {name} never got its leaders: {e}").into());
            }
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}

/// The leaders' addresses, if each says itself that it leads.
fn serving_leaders(conn: &mut Connection, name: &str, partitions: i32) -> Outcome<Vec<String>> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    let response = conn.call(&request, 9)?;
    let addresses: BTreeMap<i32, String> = response
        .brokers
        .iter()
        .map(|b| (b.node_id.0, format!("{}:{}", &*b.host, b.port)))
        .collect();
    let mut leaders = BTreeMap::new();
    for p in response.topics.iter().flat_map(|t| &t.partitions) {
        let address = addresses.get(&p.leader_id.0).ok_or("no leader yet")?;
        leaders.insert(p.partition_index, address.clone());
    }
    if leaders.len() != partitions as usize {
        return Err("Metadata left partitions out".into());
    }
    for address in leaders.values().collect::<BTreeSet<_>>() {
        let led = leaders.iter().filter(|(_, leader)| *leader == address);
        let led: Vec<i32> = led.map(|(p, _)| *p).collect();
        offsets(&mut Connection::open(address)?, name, &led, -1)?;
    }
    Ok(leaders.into_values().collect())
}

/// Deletes a topic unless it is gone already: an earlier answer may have been lost.
pub fn delete_topic(conn: &mut Connection, name: &str) -> Outcome<()> {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(name)])
        .with_timeout_ms(60_000);
    let response = conn.call(&request, 4)?;
    match response.responses.first().map_or(-1, |r| r.error_code) {
        0 | UNKNOWN_TOPIC_OR_PARTITION => Ok(()),
        code => Err(format!("deleting {name}: error {code}").into()),
    }
}

/// The log end offset of every partition.
pub fn end_offsets(conn: &mut Connection, topic: &str, partitions: i32) -> Outcome<Vec<i64>> {
    offsets(conn, topic, &(0..partitions).collect::<Vec<_>>(), -1)
}

/// The offset that each partition has for a timestamp, or for -1 (latest) or -2 (earliest).
pub fn offsets(
    conn: &mut Connection,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Outcome<Vec<i64>> {
    let list = partitions
        .iter()
        .map(|p| {
            ListOffsetsPartition::default()
                .with_partition_index(*p)
                .with_timestamp(timestamp)
                .with_current_leader_epoch(-1)
        })
        .collect();
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(list);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let response = conn.call(&request, 7)?;
    let mut found = BTreeMap::new();
    for p in response.topics.iter().flat_map(|t| &t.partitions) {
        if p.error_code != 0 {
            return Err(format!("ListOffsets: error {}", p.error_code).into());
        }
        found.insert(p.partition_index, p.offset);
    }
    let all: Option<Vec<i64>> = partitions.iter().map(|p| found.get(p).copied()).collect();
    all.filter(|offsets| !offsets.contains(&-1))
        .ok_or_else(|| "ListOffsets left partitions out".into())
}

/// A fresh idempotent producer: id and epoch.
pub fn producer_id(conn: &mut Connection) -> Outcome<(i64, i16)> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let response = conn.call(&request, 4)?;
    match response.error_code {
        0 => Ok((response.producer_id.0, response.producer_epoch)),
        code => Err(format!("InitProducerId: error {code}").into()),
    }
}

/// Appends batches until the partition holds `bytes`.
pub fn fill(
    conn: &mut Connection,
    topic: &str,
    partition: i32,
    bytes: u64,
    batch_bytes: usize,
    record_bytes: usize,
) -> Outcome<()> {
    use std::io::Write;
    let (batch, _) = batch::filled(batch_bytes, record_bytes, now_ms());
    let frame = Bytes::from(produce_frame(topic, partition, -1, &batch));
    for _ in 0..bytes.div_ceil(batch.len() as u64) {
        conn.stream.write_all(&frame)?;
        match produce_answer(&conn.read_frame()?) {
            Some((0, _)) => {}
            other => return Err(format!("filling {topic}: {other:?}").into()),
        }
    }
    Ok(())
}
