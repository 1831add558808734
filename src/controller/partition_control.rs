//! Leaders and in-sync replicas of partitions: what leaders ask for (AlterPartition), what operators ask for (ElectLeaders),
//! and what follows when brokers come and go.

use kafka_protocol::messages::alter_partition_request as alter_request;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId as WireBrokerId, ElectLeadersRequest,
    ElectLeadersResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::cluster_control::check_broker_epoch;
use super::failure;
use super::outcome::{Outcome, Turn};
use super::partition_change::{Election, PartitionChange};
use crate::metadata::{
    ConfigResource, LeaderRecoveryState, MetadataImage, NO_LEADER, NO_LEADER_CHANGE,
    PartitionRegistration, TopicImage,
};
use crate::protocol::metadata_records::{MetadataRecord, PartitionChangeRecord};
use crate::protocol::{Error, ErrorCode};
use crate::types::BrokerId;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// A broker event that makes partitions look for leaders and in-sync replicas anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokerEvent {
    /// Fenced, shutting down or gone: leaves ISRs and leads nothing.
    Leaves(BrokerId),
    /// Unfenced: may lead, although the image still shows it fenced.
    Returns(BrokerId),
    /// Came back without its last records: neither in sync nor eligible.
    LostRecords(BrokerId),
}

/// What a topic's configuration says about its partitions.
pub(super) struct TopicRules {
    min_isr: usize,
    pub election: Election,
}

impl TopicRules {
    /// The start of a change of one of the topic's partitions.
    pub fn change<'a>(
        &self,
        turn: &Turn<'_>,
        topic: &TopicImage,
        index: i32,
        partition: &'a PartitionRegistration,
    ) -> PartitionChange<'a> {
        let mut change = PartitionChange::of(partition, topic.id, index);
        change.min_isr = self.min_isr;
        change.election = self.election;
        change.elr_enabled = turn.image.features.is_elr_enabled();
        change
    }
}

pub(super) fn topic_rules(turn: &Turn<'_>, topic: &TopicImage) -> TopicRules {
    let configs = &turn.image.configs;
    let resource = ConfigResource::topic(topic.name.clone());
    let cluster = ConfigResource::default_broker();
    let value = |name: &str| {
        let own = configs.value(&resource, name);
        own.or_else(|| configs.value(&cluster, name))
    };
    let config = &turn.settings.config;
    let min_isr = value("min.insync.replicas").and_then(|text| text.trim().parse().ok());
    let min_isr: usize = min_isr.unwrap_or(config.min_insync_replicas.max(1) as usize);
    let replicas = topic
        .partitions
        .values()
        .next()
        .map_or(1, |p| p.replicas.len());
    let unclean = value("unclean.leader.election.enable");
    let unclean = unclean.map_or(config.unclean_leader_election_enable, |text| {
        text.trim().eq_ignore_ascii_case("true")
    });
    TopicRules {
        min_isr: min_isr.min(replicas),
        election: if unclean {
            Election::Unclean
        } else {
            Election::Online
        },
    }
}

/// Appends the changes of all partitions that `affected` picks.
pub(super) fn update_partitions(
    turn: &Turn<'_>,
    event: BrokerEvent,
    affected: impl Fn(&PartitionRegistration) -> bool,
    records: &mut Vec<MetadataRecord>,
) {
    let image = turn.image;
    let cluster = &image.cluster;
    let (leaving, returning) = match event {
        BrokerEvent::Leaves(id) | BrokerEvent::LostRecords(id) => (Some(id), None),
        BrokerEvent::Returns(id) => (None, Some(id)),
    };
    for topic in image.topics.iter() {
        let mut rules = None;
        for (index, partition) in topic.partitions.iter().filter(|(_, p)| affected(p)) {
            let rules = rules.get_or_insert_with(|| topic_rules(turn, topic));
            let mut change = rules.change(turn, topic, *index, partition);
            change.isr.retain(|id| Some(*id) != leaving);
            if let BrokerEvent::LostRecords(id) = event {
                change.unclean_shutdown = Some(id);
            }
            let acceptable = |id: BrokerId| {
                let alive = Some(id) == returning || cluster.is_active(id);
                Some(id) != leaving && alive && has_online_replica(image, partition, id)
            };
            let record = change.build(&acceptable, &|id| cluster.default_directory(id));
            records.extend(record.map(MetadataRecord::from));
        }
    }
}

/// Takes broker `id` out of one partition's ISR and leadership: its log directory is offline.
pub(super) fn leave_partition(
    turn: &Turn<'_>,
    topic: &TopicImage,
    index: i32,
    id: BrokerId,
) -> Option<PartitionChangeRecord> {
    let image = turn.image;
    let partition = topic.partitions.get(&index)?;
    let mut change = topic_rules(turn, topic).change(turn, topic, index, partition);
    change.isr.retain(|member| *member != id);
    let acceptable = |other: BrokerId| {
        other != id && image.cluster.is_active(other) && has_online_replica(image, partition, other)
    };
    change.build(&acceptable, &|id| image.cluster.default_directory(id))
}

/// The record of a change, where active brokers with the replica's directory online may lead.
pub(super) fn build(
    turn: &Turn<'_>,
    partition: &PartitionRegistration,
    change: PartitionChange<'_>,
) -> Option<PartitionChangeRecord> {
    let image = turn.image;
    let acceptable = |id| image.cluster.is_active(id) && has_online_replica(image, partition, id);
    change.build(&acceptable, &|id| image.cluster.default_directory(id))
}

fn has_online_replica(
    image: &MetadataImage,
    partition: &PartitionRegistration,
    id: BrokerId,
) -> bool {
    let broker = image.cluster.broker(id);
    broker.is_some_and(|broker| broker.has_online_dir(partition.directory(id)))
}

/// AlterPartition: a leader reports a new ISR (KIP-497, 704, 841, 903).
pub fn alter_partition(
    turn: &mut Turn<'_>,
    request: &AlterPartitionRequest,
) -> Outcome<AlterPartitionResponse> {
    let broker_id = request.broker_id.0;
    if let Err(error) = check_broker_epoch(turn.image, broker_id, request.broker_epoch) {
        let response = AlterPartitionResponse::default().with_error_code(error.code());
        return Outcome::unchanged(response);
    }
    let mut records = Vec::new();
    let topics = request.topics.iter().map(|data| {
        let partitions = data.partitions.iter().map(|asked| {
            let result = alter_one(turn, broker_id, data, asked, &mut records);
            result.unwrap_or_else(|code| {
                let failed = PartitionData::default().with_partition_index(asked.partition_index);
                failed.with_error_code(code.code())
            })
        });
        let partitions = partitions.collect();
        TopicData::default()
            .with_topic_id(data.topic_id)
            .with_partitions(partitions)
    });
    let response = AlterPartitionResponse::default().with_topics(topics.collect());
    Outcome::new(records, response)
}

/// The ISR of a request as brokers with their epochs; -1 (v2) is not checked.
fn new_isr(asked: &alter_request::PartitionData) -> Vec<(BrokerId, i64)> {
    if asked.new_isr_with_epochs.is_empty() {
        return asked.new_isr.iter().map(|id| (id.0, -1)).collect();
    }
    let brokers = asked.new_isr_with_epochs.iter();
    brokers
        .map(|broker| (broker.broker_id.0, broker.broker_epoch))
        .collect()
}

fn alter_one(
    turn: &Turn<'_>,
    broker_id: BrokerId,
    data: &alter_request::TopicData,
    asked: &alter_request::PartitionData,
    records: &mut Vec<MetadataRecord>,
) -> Result<PartitionData, ErrorCode> {
    let image = turn.image;
    let topic = image
        .topics
        .by_id(data.topic_id)
        .ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partitions.get(&asked.partition_index);
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let isr = new_isr(asked);
    let recovery_state = check_alteration(image, broker_id, partition, asked, &isr)?;
    let rules = topic_rules(turn, topic);
    let mut change = rules.change(turn, topic, asked.partition_index, partition);
    change.isr = isr.into_iter().map(|(id, _)| id).collect();
    change.leader_recovery_state = recovery_state;
    let record = build(turn, partition, change);
    let mut partition = PartitionRegistration::clone(partition);
    if let Some(record) = record {
        partition.merge(&record);
        let leader = record.leader;
        records.push(record.into());
        if leader != broker_id && leader != NO_LEADER_CHANGE {
            // The ISR completed a reassignment that took the leadership away: an error, and yet a change.
            return Err(ErrorCode::NewLeaderElected);
        }
    }
    Ok(PartitionData::default()
        .with_partition_index(asked.partition_index)
        .with_leader_id(WireBrokerId(partition.leader))
        .with_leader_epoch(partition.leader_epoch)
        .with_isr(partition.isr.iter().copied().map(WireBrokerId).collect())
        .with_leader_recovery_state(partition.leader_recovery_state as i8)
        .with_partition_epoch(partition.partition_epoch))
}

fn check_alteration(
    image: &MetadataImage,
    broker_id: BrokerId,
    partition: &PartitionRegistration,
    asked: &alter_request::PartitionData,
    isr: &[(BrokerId, i64)],
) -> Result<LeaderRecoveryState, ErrorCode> {
    // A leader that knows more than we do has heard of a newer controller.
    if asked.leader_epoch > partition.leader_epoch
        || asked.partition_epoch > partition.partition_epoch
    {
        return Err(ErrorCode::NotController);
    }
    if asked.leader_epoch < partition.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if broker_id != partition.leader {
        return Err(ErrorCode::InvalidRequest);
    }
    if asked.partition_epoch < partition.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let mut ids: Vec<BrokerId> = isr.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let assigned = ids.iter().all(|id| partition.replicas.contains(id));
    if ids.len() != isr.len() || !assigned || !ids.contains(&partition.leader) {
        return Err(ErrorCode::InvalidRequest);
    }
    let recovery_state = LeaderRecoveryState::from_code(asked.leader_recovery_state);
    let recovery_state = recovery_state.ok_or(ErrorCode::InvalidRequest)?;
    let recovering = recovery_state == LeaderRecoveryState::Recovering;
    let was_recovered = partition.leader_recovery_state == LeaderRecoveryState::Recovered;
    if recovering && (isr.len() > 1 || was_recovered) {
        return Err(ErrorCode::InvalidRequest);
    }
    let eligible = |(id, epoch): &(BrokerId, i64)| {
        let broker = image
            .cluster
            .broker(*id)
            .filter(|_| image.cluster.is_active(*id));
        broker.is_some_and(|broker| *epoch == -1 || broker.epoch == *epoch)
    };
    if !isr.iter().all(eligible) {
        return Err(ErrorCode::IneligibleReplica);
    }
    Ok(recovery_state)
}

/// ElectLeaders: preferred (0) or unclean (1) election of some or all partitions.
pub(super) fn elect_leaders(
    turn: &mut Turn<'_>,
    request: &ElectLeadersRequest,
) -> Outcome<ElectLeadersResponse> {
    let election = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        other => {
            let message = format!("unknown election type {other}");
            let error = Error::new(ErrorCode::InvalidRequest, message);
            return Outcome::unchanged(failure::elect_leaders(request)(error));
        }
    };
    let mut records = Vec::new();
    let mut results: Vec<ReplicaElectionResult> = Vec::new();
    let answer = |partition: i32, result: Result<(), Error>| {
        let answer = PartitionResult::default()
            .with_partition_id(partition)
            .with_error_message(None);
        match result {
            Ok(()) => answer,
            Err(error) => answer
                .with_error_code(error.code())
                .with_error_message(error.text()),
        }
    };
    let of_topic = |name: TopicName, partitions| {
        let result = ReplicaElectionResult::default().with_topic(name);
        result.with_partition_result(partitions)
    };
    match &request.topic_partitions {
        None => {
            for topic in turn.image.topics.iter() {
                let mut partitions = Vec::new();
                for partition in topic.partitions.keys() {
                    let result =
                        elect_leader(turn, &topic.name, *partition, election, &mut records);
                    let needless =
                        matches!(&result, Err(e) if e.code == ErrorCode::ElectionNotNeeded);
                    if !needless {
                        partitions.push(answer(*partition, result));
                    }
                }
                let name = StrBytes::from_string(topic.name.to_string());
                results.push(of_topic(name.into(), partitions));
            }
        }
        Some(topics) => {
            for topic in topics {
                let partitions = topic.partitions.iter().map(|partition| {
                    let name = &topic.topic.0;
                    answer(
                        *partition,
                        elect_leader(turn, name, *partition, election, &mut records),
                    )
                });
                let partitions = partitions.collect();
                results.push(of_topic(topic.topic.clone(), partitions));
            }
        }
    }
    let response = ElectLeadersResponse::default().with_replica_election_results(results);
    Outcome::atomic(records, response)
}

pub(super) fn elect_leader(
    turn: &Turn<'_>,
    topic: &str,
    index: i32,
    election: Election,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), Error> {
    let image = turn.image;
    let unknown = || {
        Error::new(
            ErrorCode::UnknownTopicOrPartition,
            "no such topic or partition",
        )
    };
    let topic = image.topics.by_name(topic).ok_or_else(unknown)?;
    let partition = topic.partitions.get(&index).ok_or_else(unknown)?;
    let needless = match election {
        Election::Preferred => partition.leader == partition.preferred_replica(),
        Election::Online | Election::Unclean => partition.has_leader(),
    };
    if needless {
        let message = "leader election not needed for topic partition";
        return Err(Error::new(ErrorCode::ElectionNotNeeded, message));
    }
    let rules = topic_rules(turn, topic);
    let mut change = rules.change(turn, topic, index, partition);
    change.election = election;
    let record = build(turn, partition, change);
    let elected = record.as_ref().is_some_and(|r| r.leader >= 0);
    match record {
        Some(record) if elected => {
            records.push(record.into());
            Ok(())
        }
        _ if election == Election::Preferred => Err(Error::new(
            ErrorCode::PreferredLeaderNotAvailable,
            "the preferred leader is not available",
        )),
        _ => Err(Error::new(
            ErrorCode::EligibleLeadersNotAvailable,
            "no replica is available to lead",
        )),
    }
}

/// Whether `partition` has broker `id` in its ISR.
pub(super) fn in_isr(id: BrokerId) -> impl Fn(&PartitionRegistration) -> bool {
    move |partition| partition.isr.contains(&id)
}

/// Whether `partition` has broker `id` among its eligible leader replicas.
pub(super) fn in_elr(id: BrokerId) -> impl Fn(&PartitionRegistration) -> bool {
    move |partition| partition.elr.contains(&id)
}

/// Whether nobody leads `partition`.
pub(super) fn without_leader(partition: &PartitionRegistration) -> bool {
    partition.leader == NO_LEADER
}
