//! Replay: how a record changes the image. The only place where it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delta::{MetadataDelta, TopicDelta};
use super::image::{
    BrokerRegistration, ConfigResource, ConfigResourceType, ControllerRegistration, Endpoint,
    MetadataImage, ProducerIdsImage, SecurityImage, VersionRange,
};
use super::topics::{LeaderRecoveryState, PartitionRegistration};
use crate::protocol::metadata_records::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, ClientQuotaRecord, ConfigRecord,
    ControllerEndpoint, ControllerFeature, MetadataRecord, PartitionChangeRecord, PartitionRecord,
    RegisterBrokerRecord, RegisterControllerRecord,
};
use crate::types::{BrokerId, Uuid};

/// `PartitionChangeRecord.leader` when the leader stays.
pub const NO_LEADER_CHANGE: BrokerId = -2;
/// The directory of a replica whose broker has not told where it put it (`DirectoryId`); smaller reserved ids are
/// 0, "being migrated", and 2, "lost".
pub const DIRECTORY_UNASSIGNED: Uuid = Uuid::from_u128(1);

/// A record that does not fit the image: the log was not written by a controller, or we have a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("no topic has the id {0}")]
    UnknownTopic(Uuid),
    #[error("topic {0} has no partition {1}")]
    UnknownPartition(Arc<str>, i32),
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    #[error("resource type {0} has no configs")]
    UnknownResourceType(i8),
    #[error("topic {0} exists already")]
    TopicExists(Arc<str>),
}

impl MetadataImage {
    /// Applies one record and notes in `delta` what it changed. On error the image is unchanged.
    ///
    /// The records of metadata transactions must be gathered by the caller, who applies them when the transaction ends.
    pub fn apply(
        &mut self,
        record: &MetadataRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::RegisterBroker(r) => {
                delta.brokers_changed.insert(r.broker_id);
                let broker = Arc::new(broker_registration(r));
                self.cluster.brokers.insert(r.broker_id, broker);
            }
            MetadataRecord::UnregisterBroker(r) => {
                self.cluster.brokers.remove(&r.broker_id);
                delta.brokers_changed.insert(r.broker_id);
            }
            MetadataRecord::BrokerRegistrationChange(r) => self.change_broker(r, delta)?,
            MetadataRecord::FenceBroker(r) => self.broker_mut(r.id, delta)?.fenced = true,
            MetadataRecord::UnfenceBroker(r) => self.broker_mut(r.id, delta)?.fenced = false,
            MetadataRecord::RegisterController(r) => {
                delta.controllers_changed = true;
                let controller = Arc::new(controller_registration(r));
                self.cluster.controllers.insert(r.controller_id, controller);
            }
            MetadataRecord::Topic(r) => self.create_topic(&r.name, r.topic_id, delta)?,
            MetadataRecord::RemoveTopic(r) => self.remove_topic(r.topic_id, delta)?,
            MetadataRecord::Partition(r) => self.create_partition(r, delta)?,
            MetadataRecord::PartitionChange(r) => self.change_partition(r, delta)?,
            MetadataRecord::ClearElr(r) => self.clear_elr(&r.topic_name, delta),
            MetadataRecord::Config(r) => self.set_config(r, delta)?,
            MetadataRecord::FeatureLevel(r) => {
                delta.features_changed = true;
                let finalized = &mut self.features.finalized;
                // metadata.version alone is kept at any level; 0 of another feature is its absence.
                if r.feature_level == 0 {
                    finalized.remove(&*r.name);
                } else {
                    finalized.insert(r.name.as_str().into(), r.feature_level);
                }
            }
            MetadataRecord::ProducerIds(r) => {
                delta.producer_ids_changed = true;
                self.producer_ids = ProducerIdsImage {
                    next_producer_id: r.next_producer_id,
                    broker_id: r.broker_id,
                    broker_epoch: r.broker_epoch,
                };
            }
            MetadataRecord::ClientQuota(_)
            | MetadataRecord::UserScramCredential(_)
            | MetadataRecord::RemoveUserScramCredential(_)
            | MetadataRecord::AccessControlEntry(_)
            | MetadataRecord::RemoveAccessControlEntry(_)
            | MetadataRecord::DelegationToken(_)
            | MetadataRecord::RemoveDelegationToken(_) => {
                self.security.apply(record);
                delta.security_changed = true;
            }
            MetadataRecord::BeginTransaction(_) => self.transaction_open = true,
            MetadataRecord::EndTransaction(_) | MetadataRecord::AbortTransaction(_) => {
                self.transaction_open = false;
            }
            // Neither changes anything: an empty record, a state that ended with ZooKeeper.
            MetadataRecord::NoOp(_) | MetadataRecord::ZkMigrationState(_) => {}
        }
        Ok(())
    }

    fn broker_mut(
        &mut self,
        id: BrokerId,
        delta: &mut MetadataDelta,
    ) -> Result<&mut BrokerRegistration, ApplyError> {
        let broker = self.cluster.brokers.get_mut(&id);
        let broker = broker.ok_or(ApplyError::UnknownBroker(id))?;
        delta.brokers_changed.insert(id);
        Ok(Arc::make_mut(broker))
    }

    fn change_broker(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let broker = self.broker_mut(record.broker_id, delta)?;
        match record.fenced {
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            _ => {}
        }
        if record.in_controlled_shutdown == 1 {
            broker.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            broker.log_dirs = sorted(&record.log_dirs);
        }
        if let Some(dirs) = &record.cordoned_log_dirs {
            broker.cordoned_log_dirs = sorted(dirs);
        }
        Ok(())
    }

    fn create_topic(
        &mut self,
        name: &str,
        id: Uuid,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let name: Arc<str> = name.into();
        if self.topics.id_of(&name).is_some() {
            return Err(ApplyError::TopicExists(name));
        }
        self.topics.insert(Arc::clone(&name), id);
        let created = TopicDelta {
            name,
            created: true,
            partitions: BTreeSet::new(),
        };
        delta.topics_changed.insert(id, created);
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid, delta: &mut MetadataDelta) -> Result<(), ApplyError> {
        let topic = self.topics.remove(id);
        let topic = topic.ok_or(ApplyError::UnknownTopic(id))?;
        // A topic's configs go with it: Kafka writes no records for them (`ConfigurationsDelta.replay(RemoveTopicRecord)`).
        let resource = ConfigResource::topic(Arc::clone(&topic.name));
        if self.configs.resources.remove(&resource).is_some() {
            delta.configs_changed.insert(resource);
        }
        let changed = delta.topics_changed.remove(&id);
        if !changed.is_some_and(|changed| changed.created) {
            delta.topics_deleted.insert(id, topic.name);
        }
        Ok(())
    }

    fn create_partition(
        &mut self,
        record: &PartitionRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let topic = self.topics.get_mut(record.topic_id);
        let topic = topic.ok_or(ApplyError::UnknownTopic(record.topic_id))?;
        let partition = Arc::new(partition_registration(record));
        topic.partitions.insert(record.partition_id, partition);
        delta.partition_changed(record.topic_id, &topic.name, record.partition_id);
        Ok(())
    }

    fn change_partition(
        &mut self,
        record: &PartitionChangeRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let topic = self.topics.get_mut(record.topic_id);
        let topic = topic.ok_or(ApplyError::UnknownTopic(record.topic_id))?;
        let Some(partition) = topic.partitions.get_mut(&record.partition_id) else {
            let name = Arc::clone(&topic.name);
            return Err(ApplyError::UnknownPartition(name, record.partition_id));
        };
        let is_unclean = record.leader_recovery_state == LeaderRecoveryState::Recovering as i8;
        delta.unclean_elections += u64::from(is_unclean);
        delta.elr_elections += u64::from(partition.elr.contains(&record.leader));
        Arc::make_mut(partition).merge(record);
        delta.partition_changed(record.topic_id, &topic.name, record.partition_id);
        Ok(())
    }

    /// Clears the eligible leader replicas of one topic, or of all when the name is empty.
    fn clear_elr(&mut self, topic_name: &str, delta: &mut MetadataDelta) {
        let ids: Vec<Uuid> = match topic_name {
            "" => self.topics.iter().map(|topic| topic.id).collect(),
            name => self.topics.id_of(name).into_iter().collect(),
        };
        for id in ids {
            let Some(topic) = self.topics.get_mut(id) else {
                continue;
            };
            let has_elr =
                |p: &PartitionRegistration| !p.elr.is_empty() || !p.last_known_elr.is_empty();
            let partitions = topic.partitions.iter();
            let affected = partitions
                .filter(|(_, p)| has_elr(p))
                .map(|(index, _)| *index);
            for index in affected.collect::<Vec<i32>>() {
                let change = PartitionChangeRecord {
                    eligible_leader_replicas: Some(Vec::new()),
                    last_known_elr: Some(Vec::new()),
                    ..unchanged_partition(id, index)
                };
                if let Some(partition) = topic.partitions.get_mut(&index) {
                    Arc::make_mut(partition).merge(&change);
                    delta.partition_changed(id, &topic.name, index);
                }
            }
        }
    }

    fn set_config(
        &mut self,
        record: &ConfigRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let kind = ConfigResourceType::from_code(record.resource_type);
        let kind = kind.ok_or(ApplyError::UnknownResourceType(record.resource_type))?;
        let resource = ConfigResource::new(kind, record.resource_name.as_str());
        let resources = &mut self.configs.resources;
        let mut configs = resources.get(&resource).cloned().unwrap_or_default();
        match &record.value {
            Some(value) => {
                Arc::make_mut(&mut configs).insert(record.name.clone(), value.clone());
            }
            None => {
                Arc::make_mut(&mut configs).remove(record.name.as_str());
            }
        }
        if configs.is_empty() {
            resources.remove(&resource);
        } else {
            resources.insert(resource.clone(), configs);
        }
        delta.configs_changed.insert(resource);
        Ok(())
    }
}

impl MetadataDelta {
    fn partition_changed(&mut self, topic_id: Uuid, name: &Arc<str>, partition: i32) {
        let topic = self.topics_changed.entry(topic_id);
        let topic = topic.or_insert_with(|| TopicDelta {
            name: Arc::clone(name),
            created: false,
            partitions: BTreeSet::new(),
        });
        topic.partitions.insert(partition);
    }
}

/// A PartitionChangeRecord that changes nothing but the partition epoch, to fill in what does change.
pub fn unchanged_partition(topic_id: Uuid, partition_id: i32) -> PartitionChangeRecord {
    PartitionChangeRecord {
        topic_id,
        partition_id,
        leader: NO_LEADER_CHANGE,
        leader_recovery_state: -1,
        ..PartitionChangeRecord::default()
    }
}

impl PartitionRegistration {
    /// The state after `record` (`PartitionRegistration.merge`): every change counts the partition epoch up, a record
    /// that names a leader, be it the old one, the leader epoch too.
    pub fn merge(&mut self, record: &PartitionChangeRecord) {
        let set = |field: &mut Vec<BrokerId>, value: &Option<Vec<BrokerId>>| {
            if let Some(value) = value {
                field.clone_from(value);
            }
        };
        set(&mut self.replicas, &record.replicas);
        set(&mut self.isr, &record.isr);
        set(&mut self.removing_replicas, &record.removing_replicas);
        set(&mut self.adding_replicas, &record.adding_replicas);
        set(&mut self.elr, &record.eligible_leader_replicas);
        set(&mut self.last_known_elr, &record.last_known_elr);
        if let Some(directories) = &record.directories {
            self.directories.clone_from(directories);
        }
        self.directories.resize(self.replicas.len(), Uuid::nil());
        if record.leader != NO_LEADER_CHANGE {
            self.leader = record.leader;
            self.leader_epoch += 1;
        }
        if let Some(state) = LeaderRecoveryState::from_code(record.leader_recovery_state) {
            self.leader_recovery_state = state;
        }
        self.partition_epoch += 1;
    }
}

impl SecurityImage {
    fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::ClientQuota(r) => self.set_quota(r),
            MetadataRecord::UserScramCredential(r) => {
                let key = (r.name.clone(), r.mechanism);
                self.scram.insert(key, Arc::new(r.clone()));
            }
            MetadataRecord::RemoveUserScramCredential(r) => {
                self.scram.remove(&(r.name.clone(), r.mechanism));
            }
            MetadataRecord::AccessControlEntry(r) => {
                self.acls.insert(r.id, Arc::new(r.clone()));
            }
            MetadataRecord::RemoveAccessControlEntry(r) => {
                self.acls.remove(&r.id);
            }
            MetadataRecord::DelegationToken(r) => {
                self.tokens.insert(r.token_id.clone(), Arc::new(r.clone()));
            }
            MetadataRecord::RemoveDelegationToken(r) => {
                self.tokens.remove(r.token_id.as_str());
            }
            _ => {}
        }
    }

    fn set_quota(&mut self, record: &ClientQuotaRecord) {
        let entity = record.entity.iter().map(|part| {
            let name = part.entity_name.clone();
            (part.entity_type.clone(), name)
        });
        let entity: BTreeMap<_, _> = entity.collect();
        let mut quotas = self.quotas.get(&entity).cloned().unwrap_or_default();
        if record.remove {
            quotas.remove(record.key.as_str());
        } else {
            quotas.insert(record.key.clone(), record.value);
        }
        if quotas.is_empty() {
            self.quotas.remove(&entity);
        } else {
            self.quotas.insert(entity, quotas);
        }
    }
}

fn sorted(dirs: &[Uuid]) -> Vec<Uuid> {
    let mut dirs = dirs.to_vec();
    dirs.sort_unstable();
    dirs
}

fn broker_registration(record: &RegisterBrokerRecord) -> BrokerRegistration {
    let endpoint = |e: &BrokerEndpoint| Endpoint {
        name: e.name.as_str().into(),
        host: e.host.as_str().into(),
        port: e.port,
        security_protocol: e.security_protocol,
    };
    let feature = |f: &BrokerFeature| {
        let range = VersionRange {
            min: f.min_supported_version,
            max: f.max_supported_version,
        };
        (f.name.as_str().into(), range)
    };
    BrokerRegistration {
        id: record.broker_id,
        epoch: record.broker_epoch,
        incarnation_id: record.incarnation_id,
        listeners: record.end_points.iter().map(endpoint).collect(),
        supported_features: record.features.iter().map(feature).collect(),
        rack: record.rack.as_deref().map(Into::into),
        fenced: record.fenced,
        in_controlled_shutdown: record.in_controlled_shutdown,
        log_dirs: sorted(&record.log_dirs),
        cordoned_log_dirs: sorted(record.cordoned_log_dirs.as_deref().unwrap_or_default()),
    }
}

fn controller_registration(record: &RegisterControllerRecord) -> ControllerRegistration {
    let endpoint = |e: &ControllerEndpoint| Endpoint {
        name: e.name.as_str().into(),
        host: e.host.as_str().into(),
        port: e.port,
        security_protocol: e.security_protocol,
    };
    let feature = |f: &ControllerFeature| {
        let range = VersionRange {
            min: f.min_supported_version,
            max: f.max_supported_version,
        };
        (f.name.as_str().into(), range)
    };
    ControllerRegistration {
        id: record.controller_id,
        incarnation_id: record.incarnation_id,
        zk_migration_ready: record.zk_migration_ready,
        listeners: record.end_points.iter().map(endpoint).collect(),
        supported_features: record.features.iter().map(feature).collect(),
    }
}

fn partition_registration(record: &PartitionRecord) -> PartitionRegistration {
    let mut directories = record.directories.clone();
    directories.resize(record.replicas.len(), Uuid::nil());
    let recovery_state = LeaderRecoveryState::from_code(record.leader_recovery_state);
    PartitionRegistration {
        replicas: record.replicas.clone(),
        directories,
        isr: record.isr.clone(),
        removing_replicas: record.removing_replicas.clone(),
        adding_replicas: record.adding_replicas.clone(),
        elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
        last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
        leader: record.leader,
        leader_recovery_state: recovery_state.unwrap_or_default(),
        leader_epoch: record.leader_epoch,
        partition_epoch: record.partition_epoch,
    }
}
