//! DescribeLogDirs (key 35), v1-5. What this broker's log directories hold.
//! Versions: v2 flexible - v3 top-level error - v4 size of the volume (KIP-827) - v5 cordoned directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::log::LogDir;
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::replica::is_cordoned;
use crate::types::TopicPartition;

type Topics = BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>;

pub async fn handle(
    context: RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    // Asks the file systems and takes the lock of every partition: off the thread that serves the connection.
    let described = tokio::task::spawn_blocking(move || describe(&context, &request)).await;
    described.unwrap_or_default()
}

fn describe(context: &RequestContext, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let services = &context.services;
    let mut topics = topics_by_dir(context, request);
    let config = services.config();
    let dirs = services.replicas.log_dirs();
    let results = config.log_dirs.iter().map(|path| {
        let name = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let result = DescribeLogDirsResult {
            log_dir: text(&name.to_string_lossy()),
            ..DescribeLogDirsResult::default()
        };
        match dirs.named(&name) {
            Some(dir) => {
                let topics = topics.remove(dir.path()).unwrap_or_default();
                DescribeLogDirsResult {
                    is_cordoned: is_cordoned(&config, &name),
                    ..describe_dir(dir, result, topics)
                }
            }
            // It could not be used when the broker started.
            None => failed(result),
        }
    });
    DescribeLogDirsResponse {
        results: results.collect(),
        ..DescribeLogDirsResponse::default()
    }
}

fn failed(result: DescribeLogDirsResult) -> DescribeLogDirsResult {
    DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.code(),
        ..result
    }
}

fn describe_dir(
    dir: &LogDir,
    result: DescribeLogDirsResult,
    topics: Topics,
) -> DescribeLogDirsResult {
    let space = if dir.is_offline() {
        None
    } else {
        dir.space_bytes().ok()
    };
    let Some((usable_bytes, total_bytes)) = space else {
        return failed(result);
    };
    let topics = topics.into_iter().map(|(topic, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name: text(&topic),
            partitions,
        }
    });
    DescribeLogDirsResult {
        topics: topics.collect(),
        total_bytes: i64::try_from(total_bytes).unwrap_or(i64::MAX),
        usable_bytes: i64::try_from(usable_bytes).unwrap_or(i64::MAX),
        ..result
    }
}

/// The wanted partitions, by the directory that they are in.
fn topics_by_dir(
    context: &RequestContext,
    request: &DescribeLogDirsRequest,
) -> HashMap<PathBuf, Topics> {
    let wanted: Option<HashSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            let name = topic.topic.as_str();
            topic.partitions.iter().map(move |index| (name, *index))
        });
        partitions.collect()
    });
    let is_wanted = |tp: &TopicPartition| {
        let key = (&*tp.topic, tp.partition);
        wanted.as_ref().is_none_or(|wanted| wanted.contains(&key))
    };
    let mut by_dir: HashMap<PathBuf, Topics> = HashMap::new();
    let mut add = |dir: PathBuf, tp: &TopicPartition, described: DescribeLogDirsPartition| {
        let topics = by_dir.entry(dir).or_default();
        let partitions = topics.entry(Arc::clone(&tp.topic)).or_default();
        partitions.push(described);
    };
    let replicas = &context.services.replicas;
    for partition in replicas.partitions() {
        let tp = &partition.topic_partition;
        if !is_wanted(tp) {
            continue;
        }
        let size = partition.look_at_log(|log| {
            let dir = log.log_dir().path().to_owned();
            (dir, log.size_bytes(), log.next_offset())
        });
        let offsets = partition.offsets();
        // A partition whose directory failed has no log to show.
        let (Ok((dir, size_bytes, next_offset)), Ok(offsets)) = (size, offsets) else {
            continue;
        };
        let described = DescribeLogDirsPartition {
            partition_index: tp.partition,
            partition_size: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            offset_lag: (offsets.high_watermark - next_offset).max(0),
            is_future_key: false,
        };
        add(dir, tp, described);
    }
    for future in replicas.future_replicas() {
        if is_wanted(&future.topic_partition) {
            let described = DescribeLogDirsPartition {
                partition_index: future.topic_partition.partition,
                partition_size: i64::try_from(future.size_bytes).unwrap_or(i64::MAX),
                offset_lag: future.offset_lag,
                is_future_key: true,
            };
            add(future.log_dir, &future.topic_partition, described);
        }
    }
    by_dir
}
