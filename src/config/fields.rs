//! `Config`: the broker's effective settings, typed. A field's key is its name with `_` for `.`; the key table gives type,
//! default and range.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::broker_keys::DYNAMIC_ONLY_KEYS;
use super::key::Value;
use super::listeners::{Endpoint, SecurityProtocol};
use super::{broker_key, find};

/// A type that a field may have.
trait FromValue: Sized {
    /// `None`: the value is missing or of another type.
    fn from_value(value: Option<Value>) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value? {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }
}

impl FromValue for i32 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for i16 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for f64 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value? {
            Value::Double(n) => Some(n),
            _ => None,
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value? {
            Value::Boolean(b) => Some(b),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        Some(value.and_then(|value| T::from_value(Some(value))))
    }
}

/// Declares `Config` with one typed field a key, and how it is read.
macro_rules! config_fields {
    ($($field:ident: $type:ty,)*) => {
        /// All settings of this node: built-in defaults, file, command line, dynamic configs. Immutable; a dynamic change
        /// makes a new one ([`Config::with_dynamic`]).
        #[derive(Clone, Debug)]
        pub struct Config {
            $(pub $field: $type,)*
            /// Where to listen; a port 0 is replaced by the bound one by the server.
            pub listeners: Vec<Endpoint>,
            /// What brokers and controllers tell others to connect to.
            pub advertised_listeners: Vec<Endpoint>,
            pub listener_security_protocol_map: BTreeMap<String, SecurityProtocol>,
            pub inter_broker_listener_name: String,
            /// Absolute or relative as given; never empty.
            pub log_dirs: Vec<PathBuf>,
            /// The directory of `__cluster_metadata-0`: `metadata.log.dir` or the first of `log_dirs`.
            pub metadata_log_dir: PathBuf,
            /// What the file and the command line say, by key (STATIC_BROKER_CONFIG).
            pub(super) originals: Arc<BTreeMap<String, String>>,
            /// Cluster-wide dynamic configs (DYNAMIC_DEFAULT_BROKER_CONFIG).
            pub(super) dynamic_default: Arc<BTreeMap<String, String>>,
            /// Dynamic configs of this broker (DYNAMIC_BROKER_CONFIG).
            pub(super) dynamic_broker: Arc<BTreeMap<String, String>>,
            /// What the start should warn about: keys that are unknown or without effect.
            pub warnings: Vec<String>,
            /// The three above merged by precedence.
            pub(super) effective: Arc<BTreeMap<String, String>>,
        }

        /// The keys of the typed fields: what the broker reads as such (for the unit tests and docs).
        #[cfg(test)]
        pub(super) const FIELD_NAMES: &[&str] = &[$(stringify!($field),)*];

        impl Config {
            /// Reads the typed fields out of `effective`, whose values were checked before.
            pub(super) fn build(parts: Parts) -> Self {
                let effective = &parts.effective;
                Self {
                    $($field: read(effective, stringify!($field)),)*
                    listeners: parts.listeners,
                    advertised_listeners: parts.advertised_listeners,
                    listener_security_protocol_map: parts.listener_security_protocol_map,
                    inter_broker_listener_name: parts.inter_broker_listener_name,
                    log_dirs: parts.log_dirs,
                    metadata_log_dir: parts.metadata_log_dir,
                    originals: parts.originals,
                    dynamic_default: parts.dynamic_default,
                    dynamic_broker: parts.dynamic_broker,
                    warnings: Vec::new(),
                    effective: Arc::new(parts.effective),
                }
            }
        }
    };
}

/// What [`Config::build`] is made from: the settings, and those that need more than their own text to read.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub listeners: Vec<Endpoint>,
    pub advertised_listeners: Vec<Endpoint>,
    pub listener_security_protocol_map: BTreeMap<String, SecurityProtocol>,
    pub inter_broker_listener_name: String,
    pub log_dirs: Vec<PathBuf>,
    pub metadata_log_dir: PathBuf,
    pub originals: Arc<BTreeMap<String, String>>,
    pub dynamic_default: Arc<BTreeMap<String, String>>,
    pub dynamic_broker: Arc<BTreeMap<String, String>>,
    pub effective: BTreeMap<String, String>,
}

fn read<T: FromValue>(effective: &BTreeMap<String, String>, field: &str) -> T {
    let name = field.replace('_', ".");
    T::from_value(effective_value(effective, &name))
        .unwrap_or_else(|| panic!("{name}: checked before, or a default of the table (tested)"))
}

/// The value of a broker key: what is set, else the table's default.
pub(super) fn effective_value(effective: &BTreeMap<String, String>, name: &str) -> Option<Value> {
    let key = broker_key(name).or_else(|| find(DYNAMIC_ONLY_KEYS, name))?;
    match effective.get(name) {
        Some(text) => key.parse(text).ok(),
        None => key.default_value(),
    }
}

config_fields! {
    // Identity
    node_id: i32,
    broker_rack: Option<String>,
    process_roles: Vec<String>,
    controller_listener_names: Vec<String>,
    controller_quorum_voters: Vec<String>,
    controller_quorum_bootstrap_servers: Vec<String>,
    // Storage
    num_recovery_threads_per_data_dir: i32,
    log_retention_check_interval_ms: i64,
    log_flush_scheduler_interval_ms: i64,
    log_flush_offset_checkpoint_interval_ms: i32,
    log_flush_start_offset_checkpoint_interval_ms: i32,
    log_initial_task_delay_ms: i64,
    log_dir_failure_timeout_ms: i64,
    cordoned_log_dirs: Vec<String>,
    log_cleaner_enable: bool,
    log_cleaner_threads: i32,
    log_cleaner_backoff_ms: i64,
    log_cleaner_dedupe_buffer_size: i64,
    log_cleaner_io_buffer_size: i32,
    log_cleaner_io_buffer_load_factor: f64,
    log_cleaner_io_max_bytes_per_second: f64,
    message_max_bytes: i32,
    // Topics
    num_partitions: i32,
    default_replication_factor: i32,
    min_insync_replicas: i32,
    auto_create_topics_enable: bool,
    delete_topic_enable: bool,
    unclean_leader_election_enable: bool,
    unclean_leader_election_interval_ms: i64,
    auto_leader_rebalance_enable: bool,
    leader_imbalance_check_interval_seconds: i64,
    max_request_partition_size_limit: i32,
    // Replication
    replica_lag_time_max_ms: i64,
    replica_fetch_min_bytes: i32,
    replica_fetch_max_bytes: i32,
    replica_fetch_response_max_bytes: i32,
    replica_fetch_wait_max_ms: i32,
    replica_fetch_backoff_ms: i32,
    replica_high_watermark_checkpoint_interval_ms: i64,
    replica_socket_timeout_ms: i32,
    replica_socket_receive_buffer_bytes: i32,
    replica_selector_class: Option<String>,
    num_replica_fetchers: i32,
    replication_quota_window_num: i32,
    replication_quota_window_size_seconds: i32,
    // Groups
    offset_metadata_max_bytes: i32,
    offsets_commit_timeout_ms: i32,
    offsets_load_buffer_size: i32,
    offsets_retention_check_interval_ms: i64,
    offsets_retention_minutes: i32,
    offsets_topic_compression_codec: i32,
    offsets_topic_num_partitions: i32,
    offsets_topic_replication_factor: i16,
    offsets_topic_segment_bytes: i32,
    group_initial_rebalance_delay_ms: i32,
    group_min_session_timeout_ms: i32,
    group_max_session_timeout_ms: i32,
    group_max_size: i32,
    group_coordinator_rebalance_protocols: Vec<String>,
    group_coordinator_append_linger_ms: i32,
    group_coordinator_threads: i32,
    group_consumer_assignors: Vec<String>,
    group_consumer_assignment_interval_ms: i32,
    group_consumer_heartbeat_interval_ms: i32,
    group_consumer_min_heartbeat_interval_ms: i32,
    group_consumer_max_heartbeat_interval_ms: i32,
    group_consumer_session_timeout_ms: i32,
    group_consumer_min_session_timeout_ms: i32,
    group_consumer_max_session_timeout_ms: i32,
    group_consumer_max_size: i32,
    group_consumer_migration_policy: String,
    // Transactions and producers
    transaction_state_log_num_partitions: i32,
    transaction_state_log_replication_factor: i16,
    transaction_state_log_min_isr: i32,
    transaction_state_log_segment_bytes: i32,
    transaction_state_log_load_buffer_size: i32,
    transaction_max_timeout_ms: i32,
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32,
    transaction_remove_expired_transaction_cleanup_interval_ms: i32,
    transaction_partition_verification_enable: bool,
    transactional_id_expiration_ms: i32,
    producer_id_expiration_ms: i32,
    producer_id_expiration_check_interval_ms: i32,
    share_coordinator_state_topic_num_partitions: i32,
    share_coordinator_state_topic_replication_factor: i16,
    share_coordinator_state_topic_min_isr: i16,
    share_coordinator_state_topic_segment_bytes: i32,
    // Network
    num_network_threads: i32,
    num_io_threads: i32,
    queued_max_request_bytes: i64,
    socket_send_buffer_bytes: i32,
    socket_receive_buffer_bytes: i32,
    socket_request_max_bytes: i32,
    socket_listen_backlog_size: i32,
    connections_max_idle_ms: i64,
    connections_max_reauth_ms: i64,
    connection_failed_authentication_delay_ms: i32,
    max_connections: i32,
    max_connections_per_ip: i32,
    max_connections_per_ip_overrides: String,
    max_connection_creation_rate: i32,
    quota_window_num: i32,
    quota_window_size_seconds: i32,
    max_incremental_fetch_session_cache_slots: i32,
    fetch_max_bytes: i32,
    request_timeout_ms: i32,
    telemetry_max_bytes: i32,
    // Controller and quorum
    broker_heartbeat_interval_ms: i32,
    broker_session_timeout_ms: i32,
    initial_broker_registration_timeout_ms: i32,
    controlled_shutdown_enable: bool,
    controller_quorum_election_timeout_ms: i32,
    controller_quorum_election_backoff_max_ms: i32,
    controller_quorum_fetch_timeout_ms: i32,
    controller_quorum_request_timeout_ms: i32,
    controller_quorum_retry_backoff_ms: i32,
    controller_quorum_auto_join_enable: bool,
    controller_quorum_fetch_max_bytes: i32,
    controller_quorum_fetch_snapshot_max_bytes: i32,
    controller_quorum_append_linger_ms: i32,
    controller_socket_timeout_ms: i32,
    socket_connection_setup_timeout_ms: i64,
    socket_connection_setup_timeout_max_ms: i64,
    metadata_log_segment_bytes: i32,
    metadata_log_segment_ms: i64,
    metadata_log_max_record_bytes_between_snapshots: i64,
    metadata_log_max_snapshot_interval_ms: i64,
    // Ottla's own
    ottla_http_listener: String,
    ottla_log_scrub_interval_ms: i64,
    ottla_log_scrub_io_max_bytes_per_second: i64,
}

impl Config {
    pub fn is_broker(&self) -> bool {
        self.process_roles.iter().any(|role| role == "broker")
    }

    pub fn is_controller(&self) -> bool {
        self.process_roles.iter().any(|role| role == "controller")
    }

    pub fn is_controller_listener(&self, name: &str) -> bool {
        self.controller_listener_names
            .iter()
            .any(|n| n.eq_ignore_ascii_case(name))
    }

    /// `controller.quorum.voters`: id, host and port of each. Empty for a quorum whose voters are in its log.
    pub fn quorum_voters(&self) -> Vec<(i32, String, u16)> {
        let voters = self.controller_quorum_voters.iter();
        voters.filter_map(|voter| parse_voter(voter)).collect()
    }

    /// The listeners that clients and brokers use.
    pub fn broker_listeners(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners
            .iter()
            .filter(|e| !self.is_controller_listener(&e.listener_name))
    }

    /// The listeners that controllers serve.
    pub fn controller_listeners(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners
            .iter()
            .filter(|e| self.is_controller_listener(&e.listener_name))
    }

    /// What clients and other brokers are told to connect to.
    pub fn advertised_broker_listeners(&self) -> impl Iterator<Item = &Endpoint> {
        self.advertised_listeners
            .iter()
            .filter(|e| !self.is_controller_listener(&e.listener_name))
    }

    /// Every directory that holds data: `log_dirs` and `metadata_log_dir`, each once.
    pub fn all_log_dirs(&self) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        std::iter::once(&self.metadata_log_dir)
            .chain(&self.log_dirs)
            .filter(|dir| seen.insert(*dir))
            .cloned()
            .collect()
    }

    /// Whether the file or the command line sets a broker key.
    pub fn is_set(&self, name: &str) -> bool {
        self.originals.contains_key(name)
    }

    /// The effective value of any broker key, typed or not; `None` when it is unknown or null.
    pub fn value(&self, name: &str) -> Option<Value> {
        effective_value(&self.effective, name)
    }
}

/// One `id@host:port`; the host may be an IPv6 address in brackets.
pub fn parse_voter(text: &str) -> Option<(i32, String, u16)> {
    let (id, address) = text.trim().split_once('@')?;
    let id: i32 = id.trim().parse().ok().filter(|id| *id >= 0)?;
    let (host, port) = parse_server(address)?;
    Some((id, host, port))
}

/// One `host:port`; the host may be an IPv6 address in brackets.
pub fn parse_server(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |v6| v6.strip_suffix(']'))?;
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}
