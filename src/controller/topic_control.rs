//! Creating and deleting topics and adding partitions (`ReplicationControlManager`, and the checks of `ControllerApis`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::failure;
use super::outcome::{Outcome, Turn};
use super::placement;
use crate::config::{self, Config};
use crate::metadata::{ClusterImage, ConfigResource, PartitionRegistration};
use crate::protocol::metadata_records::{
    ConfigRecord, MetadataRecord, RemoveTopicRecord, TopicRecord,
};
use crate::protocol::{Error, ErrorCode};
use crate::quorum::RECORDS_PER_BATCH_MAX;
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, Uuid};

/// The most partitions that one CreateTopics request may make (`MAX_PARTITIONS_PER_BATCH`).
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;
const TOPIC_RESOURCE: i8 = 2;

fn invalid_request(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message)
}

/// CreateTopics. All topics that are in order are created in one batch.
pub fn create_topics(
    turn: &mut Turn<'_>,
    request: &CreateTopicsRequest,
) -> Outcome<CreateTopicsResponse> {
    let too_many = || {
        let error = Error::new(
            ErrorCode::PolicyViolation,
            "too many partitions in one request",
        );
        Outcome::unchanged(failure::create_topics(request)(error))
    };
    if partitions_asked_for(turn, request) > PARTITIONS_PER_REQUEST_MAX {
        return too_many();
    }
    let (unique, duplicates) = unique_names(request.topics.iter().map(|topic| &topic.name));
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    let effective = effective_config(turn);
    let wanted = |topic: &&CreatableTopic| {
        unique.contains(&topic.name) && &*topic.name.0 != CLUSTER_METADATA_TOPIC
    };
    for topic in request.topics.iter().filter(wanted) {
        let result = create_topic(turn, topic, &effective, &mut records);
        results
            .push(result.unwrap_or_else(|error| failure::topic_failed(topic.name.clone(), &error)));
    }
    if records.len() > RECORDS_PER_BATCH_MAX {
        return too_many();
    }
    for name in duplicates {
        results.push(failure::topic_failed(
            name,
            &invalid_request("the topic's name stands twice in the request"),
        ));
    }
    if let Some(name) = unique
        .iter()
        .find(|name| &*name.0 == CLUSTER_METADATA_TOPIC)
    {
        let error = invalid_request("the metadata log cannot be created as a topic");
        results.push(failure::topic_failed(name.clone(), &error));
    }
    if request.validate_only {
        records.clear();
    }
    Outcome::atomic(
        records,
        CreateTopicsResponse::default().with_topics(results),
    )
}

fn partitions_asked_for(turn: &Turn<'_>, request: &CreateTopicsRequest) -> i64 {
    let default = i64::from(turn.settings.config.num_partitions);
    let of_topic = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => default,
        (0, count) => i64::from(count.max(0)),
        (assigned, _) => assigned as i64,
    };
    request.topics.iter().map(of_topic).sum()
}

/// Names that occur once, and those that occur more often, each once.
fn unique_names<'a>(
    names: impl Iterator<Item = &'a TopicName>,
) -> (BTreeSet<TopicName>, BTreeSet<TopicName>) {
    let (mut unique, mut duplicates) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        if !duplicates.contains(name) && !unique.insert(name.clone()) {
            unique.remove(name);
            duplicates.insert(name.clone());
        }
    }
    (unique, duplicates)
}

/// Appends the records of one new topic; nothing on error.
fn create_topic(
    turn: &mut Turn<'_>,
    topic: &CreatableTopic,
    effective: &Config,
    records: &mut Vec<MetadataRecord>,
) -> Result<CreatableTopicResult, Error> {
    let name: &str = &topic.name.0;
    if turn.image.topics.id_of(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(Error::new(ErrorCode::TopicAlreadyExists, message));
    }
    config::validate_topic_name(name)?;
    if let Some(other) = turn.image.topics.colliding_with(name) {
        let message = format!("topic '{name}' would have the same metric names as topic '{other}'");
        return Err(Error::new(ErrorCode::InvalidTopicException, message));
    }
    let configs = creation_configs(turn, topic)?;
    let partitions = new_partitions(turn, topic)?;
    let topic_id = turn.rng.uuid();
    let replication_factor = partitions.first().map_or(0, |p| p.replicas.len());
    records.push(
        TopicRecord {
            name: name.to_string(),
            topic_id,
        }
        .into(),
    );
    // Configs come before partitions, so that whoever creates the logs knows them.
    records.extend(configs.iter().map(|(key, value)| {
        let record = ConfigRecord {
            resource_type: TOPIC_RESOURCE,
            resource_name: name.to_string(),
            name: key.clone(),
            value: Some(value.clone()),
        };
        record.into()
    }));
    let indexed = (0..).zip(&partitions);
    records.extend(indexed.map(|(index, p)| p.to_record(topic_id, index).into()));
    Ok(CreatableTopicResult::default()
        .with_error_message(None)
        .with_name(topic.name.clone())
        .with_topic_id(topic_id)
        .with_num_partitions(partitions.len() as i32)
        .with_replication_factor(replication_factor as i16)
        .with_configs(Some(effective_configs(effective, &configs))))
}

/// All settings of a new topic, as v5+ returns them: values as they were given, not as they are understood.
fn effective_configs(
    effective: &Config,
    own: &BTreeMap<String, String>,
) -> Vec<CreatableTopicConfigs> {
    let entries = effective.describe_topic(own).into_iter().map(|entry| {
        let given = own.get(&entry.name).filter(|_| !entry.is_sensitive);
        let value = given.cloned().or(entry.value);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(entry.name))
            .with_value(value.map(StrBytes::from_string))
            .with_read_only(entry.is_read_only)
            .with_config_source(entry.source as i8)
            .with_is_sensitive(entry.is_sensitive)
    });
    let mut configs: Vec<CreatableTopicConfigs> = entries.collect();
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs
}

/// The controller's settings with the dynamic ones on top.
fn effective_config(turn: &Turn<'_>) -> Arc<Config> {
    let configs = &turn.image.configs;
    let cluster = configs.of(&ConfigResource::default_broker());
    let broker = configs.of(&ConfigResource::broker(turn.settings.node_id));
    if cluster.is_empty() && broker.is_empty() {
        return Arc::clone(&turn.settings.config);
    }
    Arc::new(turn.settings.config.with_dynamic(&cluster, &broker))
}

fn creation_configs(
    turn: &Turn<'_>,
    topic: &CreatableTopic,
) -> Result<BTreeMap<String, String>, Error> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("topic config {} has a null value", &*config.name);
            return Err(Error::new(ErrorCode::InvalidConfig, message));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    config::validate_topic_configs(&turn.settings.config, &BTreeMap::new(), &configs)?;
    Ok(configs)
}

fn new_partitions(
    turn: &mut Turn<'_>,
    topic: &CreatableTopic,
) -> Result<Vec<PartitionRegistration>, Error> {
    if !topic.assignments.is_empty() {
        return assigned_partitions(turn, topic);
    }
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let message = "the replication factor must be positive, or -1 for the default";
        return Err(Error::new(ErrorCode::InvalidReplicationFactor, message));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        let message = "the number of partitions must be positive, or -1 for the default";
        return Err(Error::new(ErrorCode::InvalidPartitions, message));
    }
    let config = &turn.settings.config;
    let count = match topic.num_partitions {
        -1 => config.num_partitions,
        count => count,
    };
    let replication_factor = match topic.replication_factor {
        -1 => config.default_replication_factor as i16,
        factor => factor,
    };
    placed_partitions(turn, count as usize, replication_factor)
}

fn placed_partitions(
    turn: &mut Turn<'_>,
    count: usize,
    replication_factor: i16,
) -> Result<Vec<PartitionRegistration>, Error> {
    let cluster = &turn.image.cluster;
    let placed = placement::place(cluster, count, replication_factor, turn.rng)?;
    let partitions = placed.into_iter().map(|replicas| {
        new_partition(cluster, replicas).ok_or_else(|| {
            let message = "all brokers are fenced or shutting down";
            Error::new(ErrorCode::InvalidReplicationFactor, message)
        })
    });
    partitions.collect()
}

fn assigned_partitions(
    turn: &Turn<'_>,
    topic: &CreatableTopic,
) -> Result<Vec<PartitionRegistration>, Error> {
    if topic.replication_factor != -1 {
        return Err(invalid_request(
            "with a manual assignment the replication factor must be -1",
        ));
    }
    if topic.num_partitions != -1 {
        return Err(invalid_request(
            "with a manual assignment the number of partitions must be -1",
        ));
    }
    let mut replication_factor = None;
    let mut partitions = BTreeMap::new();
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if partitions.contains_key(&index) {
            return Err(bad_assignment(format!(
                "partition {index} is assigned twice"
            )));
        }
        let partition =
            assigned_partition(turn, index, &assignment.broker_ids, replication_factor)?;
        replication_factor = Some(assignment.broker_ids.len());
        partitions.insert(index, partition);
    }
    if !(0..)
        .zip(partitions.keys())
        .all(|(expected, index)| expected == *index)
    {
        return Err(bad_assignment(
            "partitions must be numbered from 0 without a gap".into(),
        ));
    }
    Ok(partitions.into_values().collect())
}

fn bad_assignment(message: String) -> Error {
    Error::new(ErrorCode::InvalidReplicaAssignment, message)
}

fn assigned_partition(
    turn: &Turn<'_>,
    index: i32,
    brokers: &[WireBrokerId],
    replication_factor: Option<usize>,
) -> Result<PartitionRegistration, Error> {
    let cluster = &turn.image.cluster;
    let replicas: Vec<BrokerId> = brokers.iter().map(|broker| broker.0).collect();
    validate_assignment(cluster, &replicas, replication_factor)?;
    new_partition(cluster, replicas).ok_or_else(|| {
        bad_assignment(format!(
            "all brokers of partition {index} are fenced or shutting down"
        ))
    })
}

/// Code 39 unless `replicas` is a possible assignment (`validateManualPartitionAssignment`).
pub(super) fn validate_assignment(
    cluster: &ClusterImage,
    replicas: &[BrokerId],
    replication_factor: Option<usize>,
) -> Result<(), Error> {
    if replicas.is_empty() {
        return Err(bad_assignment(
            "a partition needs at least one replica".into(),
        ));
    }
    let mut seen = BTreeSet::new();
    for id in replicas {
        let Some(broker) = cluster.broker(*id) else {
            return Err(bad_assignment(format!("broker {id} is not registered")));
        };
        if !broker.has_uncordoned_dirs() {
            return Err(bad_assignment(format!(
                "broker {id} has only cordoned log directories"
            )));
        }
        if !seen.insert(*id) {
            return Err(bad_assignment(format!(
                "broker {id} stands twice in an assignment"
            )));
        }
    }
    match replication_factor {
        Some(expected) if expected != replicas.len() => Err(bad_assignment(format!(
            "a partition has {} replicas, others have {expected}",
            replicas.len()
        ))),
        _ => Ok(()),
    }
}

/// A partition led by the first active replica; none when no replica is active.
fn new_partition(cluster: &ClusterImage, replicas: Vec<BrokerId>) -> Option<PartitionRegistration> {
    let active = replicas.iter().copied().filter(|id| cluster.is_active(*id));
    let isr: Vec<BrokerId> = active.collect();
    let leader = *isr.first()?;
    let directories = replicas.iter().map(|id| cluster.default_directory(*id));
    Some(PartitionRegistration {
        directories: directories.collect(),
        replicas,
        isr,
        leader,
        ..PartitionRegistration::default()
    })
}

fn undeletable(name: Option<TopicName>, id: Uuid, error: Error) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id)
        .with_error_code(error.code())
        .with_error_message(error.text())
}

/// DeleteTopics, by name (all versions) or id (v6+).
pub(super) fn delete_topics(
    turn: &mut Turn<'_>,
    request: &DeleteTopicsRequest,
) -> Outcome<DeleteTopicsResponse> {
    let mut results = Vec::new();
    let answer = undeletable;
    if !turn.settings.config.delete_topic_enable {
        let error = Error::new(
            ErrorCode::TopicDeletionDisabled,
            "topic deletion is disabled",
        );
        return Outcome::unchanged(failure::delete_topics(request)(error));
    }
    let mut names: Vec<&TopicName> = request.topic_names.iter().collect();
    let mut ids: Vec<Uuid> = Vec::new();
    for topic in &request.topics {
        match &topic.name {
            None if topic.topic_id.is_nil() => {
                let error = invalid_request("a topic has neither a name nor an id");
                results.push(answer(None, Uuid::nil(), error));
            }
            None => ids.push(topic.topic_id),
            Some(name) if topic.topic_id.is_nil() => names.push(name),
            Some(name) => {
                let error = invalid_request("a topic has both a name and an id");
                results.push(answer(Some(name.clone()), topic.topic_id, error));
            }
        }
    }
    let (names, duplicate_names) = unique_names(names.into_iter());
    for name in duplicate_names {
        let error = invalid_request("the topic's name stands twice in the request");
        results.push(answer(Some(name), Uuid::nil(), error));
    }
    let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    let mut doomed: BTreeMap<Uuid, TopicName> = BTreeMap::new();
    for (id, count) in &counts {
        if *count > 1 {
            let error = invalid_request("the topic's id stands twice in the request");
            results.push(answer(None, *id, error));
        } else if let Some(name) = turn.image.topics.name_of(*id) {
            doomed.insert(*id, TopicName(StrBytes::from_string(name.to_string())));
        } else {
            let error = Error::new(ErrorCode::UnknownTopicId, "no topic has this id");
            results.push(answer(None, *id, error));
        }
    }
    for name in names {
        match turn.image.topics.id_of(&name.0) {
            None => {
                let error = Error::new(ErrorCode::UnknownTopicOrPartition, "no such topic");
                results.push(answer(Some(name), Uuid::nil(), error));
            }
            Some(id) if counts.contains_key(&id) => {
                doomed.remove(&id);
                let error = invalid_request("the topic is in the request by name and by id");
                results.push(answer(Some(name), id, error));
            }
            Some(id) => {
                doomed.insert(id, name);
            }
        }
    }
    let mut records = Vec::with_capacity(doomed.len());
    for (topic_id, name) in doomed {
        records.push(RemoveTopicRecord { topic_id }.into());
        results.push(
            DeletableTopicResult::default()
                .with_name(Some(name))
                .with_topic_id(topic_id),
        );
    }
    Outcome::atomic(
        records,
        DeleteTopicsResponse::default().with_responses(results),
    )
}

/// CreatePartitions. Topics that are in order grow together, in one batch.
pub(super) fn create_partitions(
    turn: &mut Turn<'_>,
    request: &CreatePartitionsRequest,
) -> Outcome<CreatePartitionsResponse> {
    let (unique, duplicates) = unique_names(request.topics.iter().map(|topic| &topic.name));
    let mut records = Vec::new();
    let duplicates = duplicates.into_iter().map(|name| {
        (
            name,
            Err(invalid_request(
                "the topic's name stands twice in the request",
            )),
        )
    });
    let mut results: Vec<(TopicName, Result<(), Error>)> = duplicates.collect();
    for topic in request
        .topics
        .iter()
        .filter(|topic| unique.contains(&topic.name))
    {
        let result = add_partitions(turn, topic, &mut records);
        results.push((topic.name.clone(), result));
    }
    if records.len() > RECORDS_PER_BATCH_MAX {
        let error = Error::new(
            ErrorCode::PolicyViolation,
            "too many partitions in one request",
        );
        return Outcome::unchanged(failure::create_partitions(request)(error));
    }
    if request.validate_only {
        records.clear();
    }
    let results = results.into_iter().map(|(name, result)| {
        let answer = CreatePartitionsTopicResult::default().with_name(name);
        match result {
            Ok(()) => answer,
            Err(error) => answer
                .with_error_code(error.code())
                .with_error_message(error.text()),
        }
    });
    let response = CreatePartitionsResponse::default().with_results(results.collect());
    Outcome::atomic(records, response)
}

fn add_partitions(
    turn: &mut Turn<'_>,
    topic: &CreatePartitionsTopic,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), Error> {
    let image = turn.image;
    let Some(existing) = image.topics.by_name(&topic.name.0) else {
        return Err(ErrorCode::UnknownTopicOrPartition.into());
    };
    let present = existing.partitions.len();
    let count = usize::try_from(topic.count).unwrap_or(0);
    if count <= present {
        let message = format!("the topic has {present} partitions and can only get more");
        return Err(Error::new(ErrorCode::InvalidPartitions, message));
    }
    let additional = count - present;
    let first = present as i32;
    let replication_factor = existing
        .partitions
        .values()
        .next()
        .map_or(1, |p| p.replicas.len());
    let new = match &topic.assignments {
        Some(assignments) if assignments.len() != additional => {
            return Err(bad_assignment(format!(
                "{additional} partitions are to be added, but {} are assigned",
                assignments.len()
            )));
        }
        Some(assignments) => {
            let partitions = (first..).zip(assignments).map(|(index, assignment)| {
                assigned_partition(
                    turn,
                    index,
                    &assignment.broker_ids,
                    Some(replication_factor),
                )
            });
            partitions.collect::<Result<Vec<_>, Error>>()?
        }
        None if additional > RECORDS_PER_BATCH_MAX => {
            let message = "too many partitions in one request";
            return Err(Error::new(ErrorCode::PolicyViolation, message));
        }
        None => placed_partitions(turn, additional, replication_factor as i16)?,
    };
    let id = existing.id;
    records.extend(
        (first..)
            .zip(&new)
            .map(|(index, p)| p.to_record(id, index).into()),
    );
    Ok(())
}
