//! Decisions of more records than one batch holds: all of it counts or nothing, whoever dies or reads in between.

use kafka_protocol::messages::UnregisterBrokerRequest;

use super::event_loop::{MemoryLog, Node};
use super::*;
use crate::quorum::{Committed, MetaLog, RECORDS_PER_BATCH_MAX};

const TOPICS: i32 = 3;
/// With the topic's own record and the configurations that it may have: one batch.
const PARTITIONS: i32 = RECORDS_PER_BATCH_MAX as i32 - 1;

/// Two brokers; broker 1 leads everything. Returns its epoch.
async fn fill(node: &Node) -> i64 {
    let epoch = node.join(1, 1).await;
    node.join(2, 2).await;
    for number in 0..TOPICS {
        let assignments = (0..PARTITIONS).map(|index| assignment(index, &[1, 2]));
        let topic = CreatableTopic::default()
            .with_name(name(&format!("t{number}")))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignments.collect());
        assert_eq!(node.create(topic).await, 0);
    }
    epoch
}

/// How many partitions each broker leads.
fn led(image: &MetadataImage) -> [usize; 2] {
    let led_by = |id| {
        let partitions = image.topics.iter().flat_map(|it| it.partitions.values());
        partitions
            .filter(|partition| partition.leader == id)
            .count()
    };
    [led_by(1), led_by(2)]
}

async fn fence(node: &Node, broker_epoch: i64) -> i16 {
    let request = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch,
        current_metadata_offset: node.images.current().last_offset,
        want_fence: true,
        ..BrokerHeartbeatRequest::default()
    };
    node.handle.broker_heartbeat(request).await.error_code
}

/// What the fencing of broker 1 takes.
const BATCHES: usize = 3;
const ALL: usize = TOPICS as usize * PARTITIONS as usize;

/// Rule: metadata-transactions
#[tokio::test]
async fn a_broker_with_more_partitions_than_a_batch_holds_is_fenced_at_once() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    let epoch = fill(&node).await;
    assert_eq!(led(&node.images.current()), [ALL, 0]);
    let before = log.batches().len();
    assert_eq!(fence(&node, epoch).await, 0);
    let after = node.images.current();
    assert_eq!(led(&after), [0, ALL]);
    assert!(!after.cluster.is_alive(1) && !after.transaction_open);
    let batches = log.batches();
    assert_eq!(batches.len() - before, BATCHES, "with the brackets");

    // Who reads the log takes it in one piece, wherever the reader stands when it looks.
    let reader = MemoryLog::new(Some(2));
    let observer = Node::start(Arc::clone(&reader), i64::MAX);
    for (at, batch) in batches.into_iter().enumerate() {
        let Committed::Batch { records, .. } = batch else {
            panic!("the log has no snapshot")
        };
        let offset = reader.append(1, records.to_vec());
        let image = observer.images.wait_for(offset).await;
        let expected = match at + 1 {
            whole if whole == before + BATCHES => [0, ALL],
            part if part >= before => [ALL, 0],
            _ => continue,
        };
        assert_eq!(led(&image), expected, "after batch {at}");
        assert_eq!(image.cluster.is_alive(1), expected[0] > 0);
    }
    let image = observer.images.current();
    assert_eq!(image.topics, after.topics);
}

/// Rule: metadata-transactions
#[tokio::test]
async fn what_a_controller_left_unfinished_is_void_and_the_next_one_does_it() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    let epoch = fill(&node).await;
    log.accept_only(2);
    assert_eq!(fence(&node, epoch).await, 41);
    drop(node);

    log.accept_only(usize::MAX);
    let halfway = log.batches().len();
    log.lead(Some(1), 2);
    let next = Node::start(Arc::clone(&log), i64::MAX);
    next.images.wait_for(log.end_offset() - 1).await;
    // Its first answer comes behind its first record.
    let heartbeat = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch: epoch,
        current_metadata_offset: log.end_offset(),
        ..BrokerHeartbeatRequest::default()
    };
    let answer = next.handle.broker_heartbeat(heartbeat).await;
    assert_eq!((answer.error_code, answer.is_fenced), (0, false));
    let image = next.images.current();
    assert_eq!(led(&image), [ALL, 0]);
    assert!(image.cluster.is_alive(1) && !image.transaction_open);
    let Committed::Batch { records, .. } = &log.batches()[halfway] else {
        panic!("the log has no snapshot")
    };
    assert!(matches!(records[..], [MetadataRecord::AbortTransaction(_)]));
    assert_eq!(fence(&next, epoch).await, 0);
    assert_eq!(led(&next.images.current()), [0, ALL]);
}

/// Rule: whole-operations
#[tokio::test]
async fn what_a_user_asks_for_is_refused_if_it_is_more_than_a_batch() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    fill(&node).await;
    let before = log.end_offset();
    let many = create(vec![topic("many", 20_000, 1)]).with_timeout_ms(5_000);
    let answer = node.handle.create_topics(many).await;
    assert_eq!(answer.topics[0].error_code, 44);
    let request = UnregisterBrokerRequest::default().with_broker_id(WireBrokerId(1));
    let answer = node.handle.unregister_broker(request).await;
    assert_eq!(answer.error_code, 44);
    assert_eq!(log.end_offset(), before, "nothing was written");
}
