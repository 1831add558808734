//! The settings of the group coordinator, with Kafka's defaults.

use crate::config::Config;
use crate::protocol::batch::CompressionType;

/// How long a member that is new to a group may stay parked in its JoinGroup; not configurable in Kafka.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

/// What `group.*` and `offsets.*` keys say.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.max.size`
    pub max_size: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.commit.timeout.ms`: how long a write may wait for the high watermark.
    pub offsets_commit_timeout_ms: i64,
    /// `offsets.topic.num.partitions`
    pub offsets_topic_num_partitions: i32,
    /// `offsets.topic.compression.codec`
    pub offsets_topic_compression: CompressionType,
    /// `offsets.load.buffer.size`
    pub offsets_load_buffer_bytes: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            max_size: i32::MAX,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offsets_commit_timeout_ms: 5_000,
            offsets_topic_num_partitions: 50,
            offsets_topic_compression: CompressionType::None,
            offsets_load_buffer_bytes: 5_242_880,
        }
    }
}

impl From<&Config> for GroupConfig {
    fn from(config: &Config) -> Self {
        // Unknown codes are refused when the configuration is read.
        let codec = i16::try_from(config.offsets_topic_compression_codec).ok();
        Self {
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            min_session_timeout_ms: config.group_min_session_timeout_ms,
            max_session_timeout_ms: config.group_max_session_timeout_ms,
            max_size: config.group_max_size,
            offset_metadata_max_bytes: config.offset_metadata_max_bytes,
            offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
            offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
            offsets_commit_timeout_ms: i64::from(config.offsets_commit_timeout_ms),
            offsets_topic_num_partitions: config.offsets_topic_num_partitions,
            offsets_topic_compression: codec
                .and_then(CompressionType::from_id)
                .unwrap_or(CompressionType::None),
            offsets_load_buffer_bytes: config.offsets_load_buffer_size.max(1).unsigned_abs()
                as usize,
        }
    }
}
