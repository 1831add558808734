//! The records of `__cluster_metadata`, in Kafka's schemas (metadata.version 4.3-IV0) and framing.
//!
//! Written by the controller, read by everything that follows the metadata log. Own record types are not allowed:
//! Kafka's readers stop at a key they do not know.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::wire::{self, DecodeError, EncodeError, Reader, message};

/// Version of the frame in front of every record (`AbstractApiMessageSerde`).
const FRAME_VERSION: u32 = 1;

/// Builds the enum of all record types and its codec from the table of keys.
macro_rules! metadata_records {
    ($( $key:literal $variant:ident($record:ident); )*) => {
        /// One record of the metadata log.
        #[derive(Clone, Debug, PartialEq)]
        pub enum MetadataRecord {
            $( $variant($record), )*
        }

        $( impl From<$record> for MetadataRecord {
            fn from(record: $record) -> Self {
                Self::$variant(record)
            }
        } )*

        impl MetadataRecord {
            /// The number of the record type.
            pub fn key(&self) -> u32 {
                match self {
                    $( Self::$variant(_) => $key, )*
                }
            }

            /// The version that is written: the newest.
            pub fn version(&self) -> i16 {
                match self {
                    $( Self::$variant(_) => $record::VERSIONS.max, )*
                }
            }

            /// The name of the record type, for logs.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => stringify!($record), )*
                }
            }

            /// One random record of each type.
            #[cfg(test)]
            pub fn samples(rng: &mut super::sample::Rng) -> Vec<Self> {
                use super::sample::Sample;
                vec![$( Self::$variant($record::sample(rng, $record::VERSIONS.max)), )*]
            }

            /// The record in `version`, as Kafka's `MetadataJsonConverters` write it.
            pub fn to_json(&self, version: i16) -> String {
                match self {
                    $( Self::$variant(record) => super::json::text(record, version), )*
                }
            }

            fn encode_body(&self, buf: &mut BytesMut, version: i16) -> Result<(), EncodeError> {
                match self {
                    $( Self::$variant(record) => record.encode(buf, version), )*
                }
            }

            fn decode_body(key: u32, bytes: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
                match key {
                    $( $key => $record::decode(bytes, version).map(Self::$variant), )*
                    _ => Err(DecodeError::UnknownType(key as i32)),
                }
            }
        }
    };
}

metadata_records! {
    0  RegisterBroker(RegisterBrokerRecord);
    1  UnregisterBroker(UnregisterBrokerRecord);
    2  Topic(TopicRecord);
    3  Partition(PartitionRecord);
    4  Config(ConfigRecord);
    5  PartitionChange(PartitionChangeRecord);
    7  FenceBroker(FenceBrokerRecord);
    8  UnfenceBroker(UnfenceBrokerRecord);
    9  RemoveTopic(RemoveTopicRecord);
    10 DelegationToken(DelegationTokenRecord);
    11 UserScramCredential(UserScramCredentialRecord);
    12 FeatureLevel(FeatureLevelRecord);
    14 ClientQuota(ClientQuotaRecord);
    15 ProducerIds(ProducerIdsRecord);
    17 BrokerRegistrationChange(BrokerRegistrationChangeRecord);
    18 AccessControlEntry(AccessControlEntryRecord);
    19 RemoveAccessControlEntry(RemoveAccessControlEntryRecord);
    20 NoOp(NoOpRecord);
    21 ZkMigrationState(ZkMigrationStateRecord);
    22 RemoveUserScramCredential(RemoveUserScramCredentialRecord);
    23 BeginTransaction(BeginTransactionRecord);
    24 EndTransaction(EndTransactionRecord);
    25 AbortTransaction(AbortTransactionRecord);
    26 RemoveDelegationToken(RemoveDelegationTokenRecord);
    27 RegisterController(RegisterControllerRecord);
    28 ClearElr(ClearElrRecord);
}

/// The record as the value of a log record: frame version, type, version, body.
///
/// Cannot fail: no record has a length field or a null that its newest version could refuse.
pub fn encode_record(record: &MetadataRecord) -> Bytes {
    encode_record_at(record, record.version()).expect("the newest version holds every record")
}

/// The same in an older version, for a lower metadata.version. Fields that the version lacks are dropped.
pub fn encode_record_at(record: &MetadataRecord, version: i16) -> Result<Bytes, EncodeError> {
    let mut buf = BytesMut::with_capacity(128);
    wire::put_uvarint(&mut buf, FRAME_VERSION);
    wire::put_uvarint(&mut buf, record.key());
    wire::put_uvarint(&mut buf, version as u32);
    record.encode_body(&mut buf, version)?;
    Ok(buf.freeze())
}

/// Reads the value of a record of the metadata log.
pub fn decode_record(value: Bytes) -> Result<MetadataRecord, DecodeError> {
    decode_record_and_version(value).map(|(record, _)| record)
}

/// The same with the version that the record was written in.
pub fn decode_record_and_version(value: Bytes) -> Result<(MetadataRecord, i16), DecodeError> {
    let mut reader = Reader::new(&value);
    let frame = reader.uvarint()?;
    if frame != FRAME_VERSION {
        return Err(DecodeError::UnknownFrame(frame));
    }
    let key = reader.uvarint()?;
    let version = reader.uvarint()?;
    let version = i16::try_from(version).map_err(|_| DecodeError::UnknownVersion(i16::MAX))?;
    let mut body = value.slice(reader.position()..);
    let record = MetadataRecord::decode_body(key, &mut body, version)?;
    Ok((record, version))
}

message! {
    /// A broker's incarnation. The record's offset becomes the broker epoch.
    RegisterBrokerRecord(0..=4, flexible 0) {
        broker_id: i32, 0..;
        is_migrating_zk_broker: bool, 2..;
        incarnation_id: Uuid, 0..;
        broker_epoch: i64, 0..;
        end_points: Vec<BrokerEndpoint>, 0..;
        features: Vec<BrokerFeature>, 0..;
        rack: Option<String>, 0..;
        fenced: bool = true, 0..;
        in_controlled_shutdown: bool, 1..;
        log_dirs: Vec<Uuid>, 3.., tag 0;
        cordoned_log_dirs: Option<Vec<Uuid>>, 4.., tag 1;
    }
    BrokerEndpoint {
        name: String, 0..;
        host: String, 0..;
        port: u16, 0..;
        security_protocol: i16, 0..;
    }
    BrokerFeature {
        name: String, 0..;
        min_supported_version: i16, 0..;
        max_supported_version: i16, 0..;
    }
}

message! {
    UnregisterBrokerRecord(0..=0, flexible 0) {
        broker_id: i32, 0..;
        broker_epoch: i64, 0..;
    }
}

message! {
    TopicRecord(0..=0, flexible 0) {
        name: String, 0..;
        topic_id: Uuid, 0..;
    }
}

message! {
    /// The whole state of a partition.
    PartitionRecord(0..=2, flexible 0) {
        partition_id: i32 = -1, 0..;
        topic_id: Uuid, 0..;
        replicas: Vec<i32>, 0..;
        isr: Vec<i32>, 0..;
        removing_replicas: Vec<i32>, 0..;
        adding_replicas: Vec<i32>, 0..;
        leader: i32 = -1, 0..;
        leader_recovery_state: i8, 0.., tag 0;
        leader_epoch: i32 = -1, 0..;
        partition_epoch: i32 = -1, 0..;
        directories: Vec<Uuid>, 1..;
        eligible_leader_replicas: Option<Vec<i32>>, 2.., tag 1;
        last_known_elr: Option<Vec<i32>>, 2.., tag 2;
    }
}

message! {
    /// One dynamic config key of a resource; a null value removes it.
    ConfigRecord(0..=0, flexible 0) {
        resource_type: i8, 0..;
        resource_name: String, 0..;
        name: String, 0..;
        value: Option<String>, 0..;
    }
}

message! {
    /// What changed in a partition; absent fields stay. Raises the partition epoch, and the leader epoch with `leader`.
    PartitionChangeRecord(0..=2, flexible 0) {
        partition_id: i32 = -1, 0..;
        topic_id: Uuid, 0..;
        isr: Option<Vec<i32>>, 0.., tag 0;
        /// -1 is nobody, -2 no change.
        leader: i32 = -2, 0.., tag 1;
        replicas: Option<Vec<i32>>, 0.., tag 2;
        removing_replicas: Option<Vec<i32>>, 0.., tag 3;
        adding_replicas: Option<Vec<i32>>, 0.., tag 4;
        /// -1 is no change.
        leader_recovery_state: i8 = -1, 0.., tag 5;
        eligible_leader_replicas: Option<Vec<i32>>, 2.., tag 6;
        last_known_elr: Option<Vec<i32>>, 2.., tag 7;
        directories: Option<Vec<Uuid>>, 1.., tag 8;
    }
}

message! {
    FenceBrokerRecord(0..=0, flexible 0) {
        id: i32, 0..;
        epoch: i64, 0..;
    }
}

message! {
    UnfenceBrokerRecord(0..=0, flexible 0) {
        id: i32, 0..;
        epoch: i64, 0..;
    }
}

message! {
    RemoveTopicRecord(0..=0, flexible 0) {
        topic_id: Uuid, 0..;
    }
}

message! {
    DelegationTokenRecord(0..=0, flexible 0) {
        owner: String, 0..;
        requester: String, 0..;
        renewers: Vec<String>, 0..;
        issue_timestamp: i64, 0..;
        max_timestamp: i64, 0..;
        expiration_timestamp: i64, 0..;
        token_id: String, 0..;
    }
}

message! {
    UserScramCredentialRecord(0..=0, flexible 0) {
        name: String, 0..;
        mechanism: i8, 0..;
        salt: Bytes, 0..;
        stored_key: Bytes, 0..;
        server_key: Bytes, 0..;
        iterations: i32, 0..;
    }
}

message! {
    FeatureLevelRecord(0..=0, flexible 0) {
        name: String, 0..;
        feature_level: i16, 0..;
    }
}

message! {
    ClientQuotaRecord(0..=0, flexible 0) {
        entity: Vec<EntityData>, 0..;
        key: String, 0..;
        value: f64, 0..;
        remove: bool, 0..;
    }
    EntityData {
        entity_type: String, 0..;
        entity_name: Option<String>, 0..;
    }
}

message! {
    /// The producer ids below `next_producer_id` are given out.
    ProducerIdsRecord(0..=0, flexible 0) {
        broker_id: i32, 0..;
        broker_epoch: i64 = -1, 0..;
        next_producer_id: i64, 0..;
    }
}

message! {
    /// What changed in a broker's registration. Zero is no change; 1 sets, -1 (fenced only) clears.
    BrokerRegistrationChangeRecord(0..=3, flexible 0) {
        broker_id: i32, 0..;
        broker_epoch: i64, 0..;
        fenced: i8, 0.., tag 0;
        in_controlled_shutdown: i8, 1.., tag 1;
        log_dirs: Vec<Uuid>, 2.., tag 2;
        cordoned_log_dirs: Option<Vec<Uuid>>, 3.., tag 3;
    }
}

message! {
    AccessControlEntryRecord(0..=0, flexible 0) {
        id: Uuid, 0..;
        resource_type: i8, 0..;
        resource_name: String, 0..;
        pattern_type: i8, 0..;
        principal: String, 0..;
        host: String, 0..;
        operation: i8, 0..;
        permission_type: i8, 0..;
    }
}

message! {
    RemoveAccessControlEntryRecord(0..=0, flexible 0) {
        id: Uuid, 0..;
    }
}

message! {
    /// Keeps the high watermark moving on an idle cluster.
    NoOpRecord(0..=0, flexible 0) {}
}

message! {
    ZkMigrationStateRecord(0..=0, flexible 0) {
        zk_migration_state: i8, 0..;
    }
}

message! {
    RemoveUserScramCredentialRecord(0..=0, flexible 0) {
        name: String, 0..;
        mechanism: i8, 0..;
    }
}

message! {
    BeginTransactionRecord(0..=0, flexible 0) {
        name: Option<String>, 0.., tag 0;
    }
}

message! {
    EndTransactionRecord(0..=0, flexible 0) {}
}

message! {
    AbortTransactionRecord(0..=0, flexible 0) {
        reason: Option<String>, 0.., tag 0;
    }
}

message! {
    RemoveDelegationTokenRecord(0..=0, flexible 0) {
        token_id: String, 0..;
    }
}

message! {
    RegisterControllerRecord(0..=0, flexible 0) {
        controller_id: i32, 0..;
        incarnation_id: Uuid, 0..;
        zk_migration_ready: bool, 0..;
        end_points: Vec<ControllerEndpoint>, 0..;
        features: Vec<ControllerFeature>, 0..;
    }
    ControllerEndpoint {
        name: String, 0..;
        host: String, 0..;
        port: u16, 0..;
        security_protocol: i16, 0..;
    }
    ControllerFeature {
        name: String, 0..;
        min_supported_version: i16, 0..;
        max_supported_version: i16, 0..;
    }
}

message! {
    /// Clears the eligible leader replicas of one topic, or of all when the name is empty.
    ClearElrRecord(0..=0, flexible 0) {
        topic_name: String, 0..;
    }
}
