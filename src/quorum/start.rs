//! From the configuration to a running metadata log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoint;
use super::meta_log::{MetaLogParams, OpenraftMetaLog, QuorumError};
use super::transport::RpcTransport;
use super::types::{VoterEndpoint, VoterNode};
use crate::clock::Clock;
use crate::config::{Config, TopicConfig};
use crate::log::{LogDir, LogDirs};
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, Uuid};

impl OpenraftMetaLog {
    /// Starts this node's voter of the quorum that `config` or the formatted directory describes.
    pub async fn start(
        config: &Config,
        log_dirs: &LogDirs,
        clock: &Clock,
    ) -> Result<Arc<Self>, QuorumError> {
        let log_dir = Arc::clone(log_dirs.metadata());
        let addresses = static_voters(config);
        let voters = first_voters(config, &log_dir, &addresses)?;
        let params = MetaLogParams {
            node_id: config.node_id,
            log_dir,
            config: Arc::new(metadata_topic_config(config)),
            voters,
            transport: Arc::new(RpcTransport::new(addresses.clone())),
            addresses,
            clock: clock.clone(),
        };
        Ok(Arc::new(Self::open(params).await?))
    }
}

/// The voters of a quorum that has no log yet: as `storage format` wrote them, else as `controller.quorum.voters` names them,
/// else this node alone.
fn first_voters(
    config: &Config,
    log_dir: &LogDir,
    addresses: &BTreeMap<BrokerId, VoterEndpoint>,
) -> Result<BTreeMap<BrokerId, VoterNode>, QuorumError> {
    let dir = log_dir.path().join(format!("{CLUSTER_METADATA_TOPIC}-0"));
    let formatted = checkpoint::read_voters(&dir.join(checkpoint::file_name(0, 0)))?;
    if let Some(formatted) = formatted {
        return Ok(formatted);
    }
    if addresses.keys().any(|id| *id != config.node_id) {
        // Nobody knows the directories of the others.
        let voter = |endpoint: &VoterEndpoint| VoterNode {
            directory_id: Uuid::nil(),
            endpoints: vec![endpoint.clone()],
        };
        let voters = addresses.iter().map(|(id, at)| (*id, voter(at)));
        return Ok(voters.collect());
    }
    let own = own_voter(config, log_dir.directory_id().unwrap_or(Uuid::nil()));
    Ok(BTreeMap::from([(config.node_id, own)]))
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
