//! From the configuration to a running metadata log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::meta_log::{MetaLogParams, OpenraftMetaLog, QuorumError};
use super::network::NoTransport;
use super::types::{VoterEndpoint, VoterNode};
use crate::clock::Clock;
use crate::config::{Config, TopicConfig};
use crate::log::LogDirs;
use crate::types::{BrokerId, Uuid};

impl OpenraftMetaLog {
    /// Starts the quorum that `config` describes: so far always one voter, this node. The directory of the metadata log
    /// must have been formatted.
    pub async fn start(
        config: &Config,
        log_dirs: &LogDirs,
        clock: &Clock,
    ) -> Result<Arc<Self>, QuorumError> {
        refuse_other_voters(config)?;
        let log_dir = Arc::clone(log_dirs.metadata());
        let node = VoterNode {
            directory_id: log_dir.directory_id().unwrap_or(Uuid::nil()),
            endpoints: controller_endpoints(config),
        };
        let params = MetaLogParams {
            node_id: config.node_id,
            log_dir,
            config: Arc::new(metadata_topic_config(config)),
            voters: BTreeMap::from([(config.node_id, node)]),
            transport: Arc::new(NoTransport),
            clock: clock.clone(),
        };
        Ok(Arc::new(Self::open(params).await?))
    }
}

/// `controller.quorum.voters` is a list of `id@host:port`.
fn refuse_other_voters(config: &Config) -> Result<(), QuorumError> {
    let ids = config.controller_quorum_voters.iter();
    let other = ids
        .filter_map(|voter| voter.split('@').next()?.trim().parse::<BrokerId>().ok())
        .find(|id| *id != config.node_id);
    match other {
        Some(other) => Err(QuorumError::Raft(format!(
            "controller.quorum.voters names voter {other}, but quorums of several controllers are not supported yet: \
             leave only node {} in it",
            config.node_id
        ))),
        None => Ok(()),
    }
}

pub(super) fn controller_endpoints(config: &Config) -> Vec<VoterEndpoint> {
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
