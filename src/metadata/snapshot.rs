//! The records that make an image: what a snapshot holds. Applied to an empty image they give an equal one.

use super::image::{
    BrokerRegistration, ConfigResource, ControllerRegistration, MetadataImage, ProducerIdsImage,
};
use super::topics::{PartitionRegistration, TopicImage};
use crate::protocol::metadata_records::{
    BrokerEndpoint, BrokerFeature, ClientQuotaRecord, ConfigRecord, ControllerEndpoint,
    ControllerFeature, EntityData, FeatureLevelRecord, MetadataRecord, PartitionRecord,
    ProducerIdsRecord, RegisterBrokerRecord, RegisterControllerRecord, TopicRecord,
};
use crate::types::Uuid;

const METADATA_VERSION: &str = "metadata.version";

impl MetadataImage {
    /// The image as records, metadata.version first as Kafka's readers expect it.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        let levels = self.features.finalized.iter();
        let (first, rest): (Vec<_>, Vec<_>) =
            levels.partition(|(name, _)| &***name == METADATA_VERSION);
        for (name, level) in first.into_iter().chain(rest) {
            let record = FeatureLevelRecord {
                name: name.to_string(),
                feature_level: *level,
            };
            records.push(record.into());
        }
        let controllers = self.cluster.controllers.values();
        records.extend(controllers.map(|controller| controller.to_record().into()));
        let brokers = self.cluster.brokers.values();
        records.extend(brokers.map(|broker| broker.to_record().into()));
        for topic in self.topics.iter() {
            topic.to_records(&mut records);
        }
        for (resource, configs) in &self.configs.resources {
            records.extend(
                configs
                    .iter()
                    .map(|(name, value)| config_record(resource, name, value)),
            );
        }
        if self.producer_ids != ProducerIdsImage::default() {
            let record = ProducerIdsRecord {
                broker_id: self.producer_ids.broker_id,
                broker_epoch: self.producer_ids.broker_epoch,
                next_producer_id: self.producer_ids.next_producer_id,
            };
            records.push(record.into());
        }
        self.security_records(&mut records);
        records
    }

    fn security_records(&self, records: &mut Vec<MetadataRecord>) {
        for (entity, quotas) in &self.security.quotas {
            let entity = entity.iter().map(|(kind, name)| EntityData {
                entity_type: kind.clone(),
                entity_name: name.clone(),
            });
            let entity: Vec<EntityData> = entity.collect();
            records.extend(quotas.iter().map(|(key, value)| {
                let record = ClientQuotaRecord {
                    entity: entity.clone(),
                    key: key.clone(),
                    value: *value,
                    remove: false,
                };
                record.into()
            }));
        }
        let security = &self.security;
        records.extend(
            security
                .scram
                .values()
                .map(|record| (**record).clone().into()),
        );
        records.extend(
            security
                .acls
                .values()
                .map(|record| (**record).clone().into()),
        );
        records.extend(
            security
                .tokens
                .values()
                .map(|record| (**record).clone().into()),
        );
    }
}

fn config_record(resource: &ConfigResource, name: &str, value: &str) -> MetadataRecord {
    let record = ConfigRecord {
        resource_type: resource.kind.code(),
        resource_name: resource.name.to_string(),
        name: name.to_string(),
        value: Some(value.to_string()),
    };
    record.into()
}

impl TopicImage {
    fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        let topic = TopicRecord {
            name: self.name.to_string(),
            topic_id: self.id,
        };
        records.push(topic.into());
        let partitions = self.partitions.iter();
        records.extend(partitions.map(|(index, p)| p.to_record(self.id, *index).into()));
    }
}

impl PartitionRegistration {
    /// The record that creates this state.
    pub fn to_record(&self, topic_id: Uuid, partition_id: i32) -> PartitionRecord {
        // Empty lists of tagged fields are left out to save space.
        let tagged = |list: &Vec<i32>| (!list.is_empty()).then(|| list.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state as i8,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: tagged(&self.elr),
            last_known_elr: tagged(&self.last_known_elr),
        }
    }
}

impl BrokerRegistration {
    /// The record that creates this state.
    pub fn to_record(&self) -> RegisterBrokerRecord {
        let end_points = self.listeners.iter().map(|endpoint| BrokerEndpoint {
            name: endpoint.name.to_string(),
            host: endpoint.host.to_string(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = self.supported_features.iter();
        let features = features.map(|(name, range)| BrokerFeature {
            name: name.to_string(),
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        let cordoned = &self.cordoned_log_dirs;
        RegisterBrokerRecord {
            broker_id: self.id,
            is_migrating_zk_broker: false,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            end_points: end_points.collect(),
            features: features.collect(),
            rack: self.rack.as_ref().map(ToString::to_string),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: self.log_dirs.clone(),
            cordoned_log_dirs: (!cordoned.is_empty()).then(|| cordoned.clone()),
        }
    }
}

impl ControllerRegistration {
    /// The record that creates this state.
    pub fn to_record(&self) -> RegisterControllerRecord {
        let end_points = self.listeners.iter().map(|endpoint| ControllerEndpoint {
            name: endpoint.name.to_string(),
            host: endpoint.host.to_string(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = self.supported_features.iter();
        let features = features.map(|(name, range)| ControllerFeature {
            name: name.to_string(),
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        RegisterControllerRecord {
            controller_id: self.id,
            incarnation_id: self.incarnation_id,
            zk_migration_ready: self.zk_migration_ready,
            end_points: end_points.collect(),
            features: features.collect(),
        }
    }
}
