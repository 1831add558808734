//! Reassignments, and where brokers say their replicas are.

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_request as alter_request;
use kafka_protocol::messages::assign_replicas_to_dirs_request as assign_request;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest,
    ListPartitionReassignmentsRequest,
};

use super::*;
use crate::controller::{directory_control, partition_control, reassignment_control};
use crate::metadata::NO_LEADER;

fn wire(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().copied().map(WireBrokerId).collect()
}

impl Cluster {
    /// Asks for other replicas of partition 0, or (`None`) to cancel; the partition's error code.
    fn reassign(&mut self, topic: &str, target: Option<&[BrokerId]>, may_resize: bool) -> i16 {
        let partition = ReassignablePartition::default().with_replicas(target.map(wire));
        let topic = ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_allow_replication_factor_change(may_resize)
            .with_topics(vec![topic]);
        let response =
            self.run(|turn| reassignment_control::alter_partition_reassignments(turn, &request));
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].error_code
    }

    /// The leader of partition 0 reports an ISR; the partition's error code.
    fn report_isr(&mut self, topic: &str, isr: &[BrokerId]) -> i16 {
        let topic = self.image.topics.by_name(topic).expect("exists");
        let partition = topic.partitions.get(&0).expect("exists");
        let members = isr.iter().map(|id| {
            alter_request::BrokerState::default()
                .with_broker_id(WireBrokerId(*id))
                .with_broker_epoch(self.epoch(*id))
        });
        let data = alter_request::PartitionData::default()
            .with_leader_epoch(partition.leader_epoch)
            .with_partition_epoch(partition.partition_epoch)
            .with_new_isr_with_epochs(members.collect());
        let data = alter_request::TopicData::default()
            .with_topic_id(topic.id)
            .with_partitions(vec![data]);
        let request = AlterPartitionRequest::default()
            .with_broker_id(WireBrokerId(partition.leader))
            .with_broker_epoch(self.epoch(partition.leader))
            .with_topics(vec![data]);
        let response = self.run(|turn| partition_control::alter_partition(turn, &request));
        response.topics[0].partitions[0].error_code
    }

    /// Topics and partitions that are being reassigned.
    fn reassigned(&mut self) -> Vec<(String, Vec<i32>)> {
        let request = ListPartitionReassignmentsRequest::default().with_topics(None);
        let response = reassignment_control::list_partition_reassignments(&self.image, &request);
        let topics = response.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| p.partition_index);
            (topic.name.to_string(), partitions.collect())
        });
        topics.collect()
    }

    /// Broker `id` says that its replica of partition 0 is in `dir`; the partition's error code.
    pub(super) fn assign(&mut self, id: BrokerId, dir: u128, topic: &str) -> i16 {
        let topic_id = self.image.topics.id_of(topic).unwrap_or(Uuid::from_u128(9));
        let topic = assign_request::TopicData::default()
            .with_topic_id(topic_id)
            .with_partitions(vec![assign_request::PartitionData::default()]);
        let dir = assign_request::DirectoryData::default()
            .with_id(Uuid::from_u128(dir))
            .with_topics(vec![topic]);
        let request = AssignReplicasToDirsRequest::default()
            .with_broker_id(WireBrokerId(id))
            .with_broker_epoch(self.epoch(id))
            .with_directories(vec![dir]);
        let response = self.run(|turn| directory_control::assign_replicas_to_dirs(turn, &request));
        assert_eq!(response.error_code, 0);
        response.directories[0].topics[0].partitions[0].error_code
    }
}

/// Brokers 1 to 5, and topic `t` with one partition on 1, 2 and 3.
fn three_of_five() -> Cluster {
    let mut cluster = Cluster::with_brokers(5);
    let t = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1, 2, 3])]);
    assert_eq!(cluster.create(t), 0);
    cluster
}

/// Rule: reassignment
#[test]
fn a_reassignment_completes_when_the_new_replicas_are_in_sync() {
    let mut cluster = three_of_five();
    assert_eq!(cluster.reassign("t", Some(&[4, 2, 3]), true), 0);
    let partition = cluster.partition("t", 0);
    assert_eq!(partition.replicas, [4, 2, 3, 1]);
    assert_eq!(partition.adding_replicas, [4]);
    assert_eq!(partition.removing_replicas, [1]);
    assert_eq!((partition.leader, &partition.isr[..]), (1, &[1, 2, 3][..]));
    assert_eq!(cluster.reassigned(), [("t".to_owned(), vec![0])]);
    let epoch = cluster.partition("t", 0).leader_epoch;
    // The leader leaves with it: an error to it, and yet a change.
    assert_eq!(cluster.report_isr("t", &[1, 2, 3, 4]), 108);
    let partition = cluster.partition("t", 0);
    assert_eq!(partition.replicas, [4, 2, 3]);
    assert_eq!(partition.isr, [2, 3, 4]);
    assert_eq!((partition.leader, partition.leader_epoch), (4, epoch + 1));
    assert!(partition.adding_replicas.is_empty() && partition.removing_replicas.is_empty());
    assert!(cluster.reassigned().is_empty());
}

/// Rule: reassignment
#[test]
fn a_smaller_set_waits_until_all_that_stay_are_in_sync() {
    let mut cluster = three_of_five();
    assert_eq!(cluster.report_isr("t", &[1, 2]), 0);
    assert_eq!(cluster.reassign("t", Some(&[3, 4]), true), 0);
    assert_eq!(cluster.report_isr("t", &[1, 2, 4]), 0);
    assert_eq!(cluster.partition("t", 0).replicas, [3, 4, 1, 2]);
    assert_eq!(cluster.report_isr("t", &[1, 2, 4, 3]), 108);
    assert_eq!(cluster.partition("t", 0).replicas, [3, 4]);
}

/// Rule: reassignment
#[test]
fn another_order_needs_no_data() {
    let mut cluster = three_of_five();
    assert_eq!(cluster.reassign("t", Some(&[3, 1, 2]), false), 0);
    assert_eq!(cluster.partition("t", 0).replicas, [3, 1, 2]);
    assert!(cluster.reassigned().is_empty());
}

/// Rule: reassignment
#[test]
fn a_cancelled_reassignment_restores_the_old_replicas() {
    let mut cluster = three_of_five();
    assert_eq!(cluster.reassign("t", None, true), 85);
    assert_eq!(cluster.reassign("t", Some(&[4, 5, 3]), true), 0);
    assert_eq!(cluster.reassign("t", None, true), 0);
    let partition = cluster.partition("t", 0);
    assert_eq!(partition.replicas, [3, 1, 2]);
    assert_eq!((partition.leader, &partition.isr[..]), (1, &[1, 2, 3][..]));
    assert!(cluster.reassigned().is_empty());
}

/// Rule: reassignment, placement
#[test]
fn impossible_reassignments_are_refused() {
    let mut cluster = three_of_five();
    let before = cluster.last_offset();
    for (topic, target, may_resize, expected) in [
        ("unknown", &[1][..], true, 3),
        ("t", &[], true, 39),
        ("t", &[1, 1, 2], true, 39),
        ("t", &[1, 2, 9], true, 39),
        ("t", &[1, 2], false, 38),
    ] {
        let code = cluster.reassign(topic, Some(target), may_resize);
        assert_eq!(code, expected, "{topic} {target:?}");
    }
    assert_eq!(cluster.last_offset(), before);
}

/// Rule: directories
#[test]
fn brokers_tell_where_their_replicas_are() {
    let mut cluster = three_of_five();
    let second =
        registration(6, 6).with_log_dirs(vec![Uuid::from_u128(2001), Uuid::from_u128(2002)]);
    let epoch = cluster.register(second).expect("registers");
    cluster.heartbeat(6, epoch, |request| request);
    let u = topic("u", -1, -1).with_assignments(vec![assignment(0, &[6, 1])]);
    assert_eq!(cluster.create(u), 0);
    let unassigned = cluster.partition("u", 0).directory(6);
    assert!(unassigned.as_u128() < 2, "the broker chooses");
    assert_eq!(cluster.assign(6, 2002, "u"), 0);
    let partition = cluster.partition("u", 0);
    assert_eq!(partition.directory(6), Uuid::from_u128(2002));
    assert_eq!(partition.directory(1), Uuid::from_u128(1001));
    assert_eq!((partition.leader, partition.leader_epoch), (6, 0));
    let settled = cluster.last_offset();
    assert_eq!(cluster.assign(6, 2002, "u"), 0);
    assert_eq!(cluster.last_offset(), settled, "nothing new, no record");
    assert_eq!(cluster.assign(6, 2002, "t"), 6);
    assert_eq!(cluster.assign(6, 2002, "unknown"), 100);
}

/// Rule: directories
#[test]
fn a_replica_moves_with_its_failed_directory() {
    let mut cluster = Cluster::with_brokers(1);
    let two = registration(2, 2).with_log_dirs(vec![Uuid::from_u128(2001), Uuid::from_u128(2002)]);
    let epoch = cluster.register(two).expect("registers");
    cluster.heartbeat(2, epoch, |request| request);
    for (name, brokers) in [("a", &[2, 1][..]), ("b", &[2, 1]), ("c", &[2])] {
        let t = topic(name, -1, -1).with_assignments(vec![assignment(0, brokers)]);
        assert_eq!(cluster.create(t), 0);
    }
    for (topic, dir) in [("a", 2001), ("b", 2002), ("c", 2001)] {
        assert_eq!(cluster.assign(2, dir, topic), 0);
    }
    cluster.heartbeat(2, epoch, |request| BrokerHeartbeatRequest {
        offline_log_dirs: vec![Uuid::from_u128(2001)],
        ..request
    });
    assert_eq!(cluster.partition("a", 0).leader, 1);
    assert_eq!(cluster.partition("b", 0).leader, 2);
    assert_eq!(cluster.partition("c", 0).leader, NO_LEADER);
    // What turns out to be in a directory that is offline has no leader there either.
    assert_eq!(cluster.assign(2, 2001, "b"), 0);
    assert_eq!(cluster.partition("b", 0).leader, 1);
}

/// Rule: directories
#[test]
fn a_directory_that_did_not_come_back_leads_nothing() {
    let mut cluster = Cluster::new();
    let dirs = |ids: &[u128]| ids.iter().copied().map(Uuid::from_u128).collect::<Vec<_>>();
    let both = registration(1, 1).with_log_dirs(dirs(&[2001, 2002]));
    let epoch = cluster.register(both.clone()).expect("registers");
    cluster.heartbeat(1, epoch, |request| request);
    for (name, dir) in [("a", 2001), ("b", 2002)] {
        assert_eq!(cluster.create(topic(name, 1, 1)), 0);
        assert_eq!(cluster.assign(1, dir, name), 0);
    }
    let restart = |log_dirs: &[u128], incarnation: u128, cluster: &mut Cluster| {
        cluster.heartbeat(1, cluster.epoch(1), |request| BrokerHeartbeatRequest {
            want_shut_down: true,
            ..request
        });
        cluster.expire();
        cluster.now_ms += 10_000;
        let previous = cluster.epoch(1);
        let request = registration(1, incarnation)
            .with_log_dirs(dirs(log_dirs))
            .with_previous_broker_epoch(previous);
        let epoch = cluster.register(request).expect("registers");
        cluster.heartbeat(1, epoch, |request| request);
        (
            cluster.partition("a", 0).leader,
            cluster.partition("b", 0).leader,
        )
    };
    assert_eq!(restart(&[2002], 2, &mut cluster), (NO_LEADER, 1));
    assert_eq!(restart(&[2001, 2002], 3, &mut cluster), (1, 1));
}
