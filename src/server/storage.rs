//! Who the log directories belong to: reads their `meta.properties`, formats directories that are new.

use tracing::info;

use super::broker::StartError;
use crate::config::Config;
use crate::log::{LogDir, LogDirs, MetaProperties};
use crate::types::{random_uuid, uuid_to_base64};

/// The cluster's id. Checks that all directories belong to one cluster and to this node. Directories without `meta.properties` are
/// formatted: a node on an empty disk just starts.
pub fn identify(config: &Config, dirs: &LogDirs, date: &str) -> Result<String, StartError> {
    let known = dirs.dirs().iter().find_map(|dir| dir.meta_properties());
    let cluster_id = known.map_or_else(
        || uuid_to_base64(random_uuid()),
        |meta| meta.cluster_id.clone(),
    );
    for dir in dirs.dirs() {
        if let Some(meta) = dir.meta_properties() {
            check(config, dir, &cluster_id, meta)?;
        } else {
            let meta = MetaProperties {
                cluster_id: cluster_id.clone(),
                node_id: config.node_id,
                directory_id: Some(random_uuid()),
            };
            info!(dir = %dir.path().display(), cluster_id, "formatting new log directory");
            dir.format(meta, date)?;
        }
    }
    Ok(cluster_id)
}

fn check(
    config: &Config,
    dir: &LogDir,
    cluster_id: &str,
    meta: &MetaProperties,
) -> Result<(), StartError> {
    let refuse = |reason: String| {
        Err(StartError::Format {
            dir: dir.path().display().to_string(),
            reason,
        })
    };
    if meta.node_id != config.node_id {
        return refuse(format!(
            "belongs to node {}, but node.id is {}: correct node.id or log.dirs",
            meta.node_id, config.node_id
        ));
    }
    if meta.cluster_id != cluster_id {
        return refuse(format!(
            "belongs to cluster {}, but another of log.dirs to {cluster_id}: take the stranger out of log.dirs",
            meta.cluster_id
        ));
    }
    Ok(())
}
