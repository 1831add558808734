//! From the configuration to a running metadata log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::MetaLog;
use super::checkpoint;
use super::join::Joining;
use super::meta_log::{MetaLogParams, OpenraftMetaLog, QuorumError};
use super::observer::{Observer, ObserverParams, ObserverTiming};
use super::timing::QuorumTiming;
use super::transport::RpcTransport;
use super::types::{VoterEndpoint, VoterNode};
use crate::clock::Clock;
use crate::config::{Config, TopicConfig, parse_server};
use crate::log::{LogDir, LogDirs};
use crate::rpc::Settings;
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, Uuid};

/// This node's part in the quorum.
#[derive(Clone)]
pub enum Member {
    Voter(Arc<OpenraftMetaLog>),
    Observer(Arc<Observer>),
}

impl Member {
    /// Starts what `process.roles` says: a controller votes, a broker follows.
    pub async fn start(
        config: &Config,
        cluster_id: &str,
        log_dirs: &LogDirs,
        clock: &Clock,
    ) -> Result<Self, QuorumError> {
        if config.is_controller() {
            let voter = OpenraftMetaLog::start(config, log_dirs, clock).await?;
            return Ok(Self::Voter(Arc::new(voter)));
        }
        let observer = Observer::start(config, cluster_id, log_dirs, clock).await?;
        Ok(Self::Observer(Arc::new(observer)))
    }

    pub fn log(&self) -> Arc<dyn MetaLog> {
        match self {
            Self::Voter(voter) => Arc::<OpenraftMetaLog>::clone(voter),
            Self::Observer(observer) => Arc::<Observer>::clone(observer),
        }
    }

    pub fn voter(&self) -> Option<Arc<OpenraftMetaLog>> {
        match self {
            Self::Voter(voter) => Some(Arc::clone(voter)),
            Self::Observer(_) => None,
        }
    }

    /// Resolves with the reason when this node's part in the quorum has ended by itself.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let voter = self.voter().map(|voter| voter.failed());
        async move {
            match voter {
                Some(voter) => voter.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Leaves the log durable.
    pub async fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Voter(voter) => voter.shutdown().await,
            Self::Observer(observer) => observer.shutdown().await,
        }
    }
}

impl Observer {
    /// Starts following the quorum that `config` names.
    async fn start(
        config: &Config,
        cluster_id: &str,
        log_dirs: &LogDirs,
        clock: &Clock,
    ) -> Result<Self, QuorumError> {
        let bootstrap = if config.controller_quorum_voters.is_empty() {
            bootstrap_servers(config)
        } else {
            static_voters(config).into_values().collect()
        };
        let millis = |ms: i32| Duration::from_millis(u64::from(ms.unsigned_abs()));
        let request_timeout = millis(config.controller_quorum_request_timeout_ms);
        let timing = ObserverTiming {
            fetch_timeout: millis(config.controller_quorum_fetch_timeout_ms),
            request_timeout,
            connect_timeout: request_timeout.min(Settings::of(config).connect_timeout),
            retry_backoff: millis(config.controller_quorum_retry_backoff_ms),
            fetch_bytes_max: config.controller_quorum_fetch_max_bytes,
            snapshot_bytes_max: config.controller_quorum_fetch_snapshot_max_bytes,
        };
        Self::open(ObserverParams {
            node_id: config.node_id,
            cluster_id: cluster_id.into(),
            log_dir: Arc::clone(log_dirs.metadata()),
            config: Arc::new(metadata_topic_config(config)),
            bootstrap,
            timing,
            clock: clock.clone(),
        })
        .await
    }
}

impl OpenraftMetaLog {
    /// Starts this node's replica of the quorum that `config` or the formatted directory describes.
    async fn start(
        config: &Config,
        log_dirs: &LogDirs,
        clock: &Clock,
    ) -> Result<Self, QuorumError> {
        let log_dir = Arc::clone(log_dirs.metadata());
        let addresses = static_voters(config);
        let directory_id = log_dir.directory_id().unwrap_or(Uuid::nil());
        let mut voters = first_voters(&log_dir, &addresses)?;
        let mut bootstrap_servers = bootstrap_servers(config);
        let own = voters.get(&config.node_id).map(|own| own.directory_id);
        if own.is_none_or(|id| id != directory_id && !id.is_nil()) {
            // It was formatted with others as the voters: those are to be asked as well.
            let others = std::mem::take(&mut voters).into_values();
            bootstrap_servers.extend(others.flat_map(|voter| voter.endpoints));
        }
        let cluster_id = log_dir.meta_properties().map(|it| it.cluster_id.clone());
        let timing = QuorumTiming::of(config);
        let params = MetaLogParams {
            node_id: config.node_id,
            own: own_voter(config, directory_id),
            log_dir,
            config: Arc::new(metadata_topic_config(config)),
            voters,
            transport: Arc::new(RpcTransport::new(cluster_id, addresses.clone(), timing)),
            addresses,
            timing,
            joining: Joining {
                bootstrap_servers,
                auto_join: config.controller_quorum_auto_join_enable.then(|| {
                    let rest_ms = config.controller_quorum_fetch_timeout_ms.max(0);
                    Duration::from_millis(rest_ms.unsigned_abs().into())
                }),
            },
            clock: clock.clone(),
        };
        Self::open(params).await
    }
}

/// The voters of a quorum that has no log yet: as `storage format` wrote them, else as `controller.quorum.voters` names them.
/// None where neither does: the node is to be added to a quorum.
fn first_voters(
    log_dir: &LogDir,
    addresses: &BTreeMap<BrokerId, VoterEndpoint>,
) -> Result<BTreeMap<BrokerId, VoterNode>, QuorumError> {
    let dir = log_dir.path().join(format!("{CLUSTER_METADATA_TOPIC}-0"));
    let formatted = checkpoint::read_voters(&dir.join(checkpoint::file_name(0, 0)))?;
    if let Some(formatted) = formatted {
        return Ok(formatted);
    }
    // Nobody knows the directories of the others.
    let voter = |endpoint: &VoterEndpoint| VoterNode {
        directory_id: Uuid::nil(),
        endpoints: vec![endpoint.clone()],
    };
    let voters = addresses.iter().map(|(id, at)| (*id, voter(at)));
    Ok(voters.collect())
}

/// This node as a voter.
pub fn own_voter(config: &Config, directory_id: Uuid) -> VoterNode {
    VoterNode {
        directory_id,
        endpoints: controller_endpoints(config),
    }
}

/// `controller.quorum.voters`, a list of `id@host:port`. The configuration has checked its form.
fn static_voters(config: &Config) -> BTreeMap<BrokerId, VoterEndpoint> {
    let name = config.controller_listener_names.first();
    let name = name.cloned().unwrap_or_default();
    let voters = config.quorum_voters().into_iter();
    voters
        .map(|(id, host, port)| {
            let name = name.clone();
            (id, VoterEndpoint { name, host, port })
        })
        .collect()
}

/// `controller.quorum.bootstrap.servers`, a list of `host:port`. The configuration has checked its form.
fn bootstrap_servers(config: &Config) -> Vec<VoterEndpoint> {
    let name = config.controller_listener_names.first();
    let name = name.cloned().unwrap_or_default();
    let servers = config.controller_quorum_bootstrap_servers.iter();
    servers
        .filter_map(|server| parse_server(server))
        .map(|(host, port)| {
            let name = name.clone();
            VoterEndpoint { name, host, port }
        })
        .collect()
}

fn controller_endpoints(config: &Config) -> Vec<VoterEndpoint> {
    let advertised = config.advertised_listeners.iter();
    advertised
        .chain(&config.listeners)
        .find(|it| config.controller_listener_names.contains(&it.listener_name))
        .map(|it| VoterEndpoint {
            name: it.listener_name.clone(),
            host: if it.host.is_empty() {
                "localhost".into()
            } else {
                it.host.clone()
            },
            port: it.port,
        })
        .into_iter()
        .collect()
}

/// Segments as `metadata.log.segment.*` says; nothing is deleted or flushed on its own.
fn metadata_topic_config(config: &Config) -> TopicConfig {
    let settings = [
        (
            "segment.bytes",
            config.metadata_log_segment_bytes.to_string(),
        ),
        ("segment.ms", config.metadata_log_segment_ms.to_string()),
        ("cleanup.policy", "delete".into()),
        ("compression.type", "producer".into()),
        ("retention.ms", "-1".into()),
        ("retention.bytes", "-1".into()),
        ("max.message.bytes", i32::MAX.to_string()),
        ("message.timestamp.type", "CreateTime".into()),
    ];
    let overrides = settings.map(|(name, text)| (name.to_owned(), text)).into();
    TopicConfig::resolve(config, &overrides)
}
