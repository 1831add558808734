//! AlterReplicaLogDirs (key 34), v1-2. Moves replicas of this broker into other log directories, in the background (KIP-113).
//! Versions: v2 flexible.

use std::path::Path;

use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName,
};
use tracing::warn;

use crate::api::RequestContext;
use crate::types::{TopicPartition, Uuid};

pub async fn handle(
    context: RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    // Opens logs: off the thread that serves the connection.
    let altered = tokio::task::spawn_blocking(move || alter(&context, &request)).await;
    altered.unwrap_or_default()
}

fn alter(
    context: &RequestContext,
    request: &AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let mut results: Vec<(TopicName, Vec<AlterReplicaLogDirPartitionResult>)> = Vec::new();
    for dir in &request.dirs {
        for topic in &dir.topics {
            let partitions = topic.partitions.iter().map(|index| {
                let code = alter_one(context, &dir.path, &topic.name, *index);
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(code)
            });
            match results.iter_mut().find(|(name, _)| *name == topic.name) {
                Some((_, known)) => known.extend(partitions),
                None => results.push((topic.name.clone(), partitions.collect())),
            }
        }
    }
    let results = results.into_iter().map(|(name, partitions)| {
        AlterReplicaLogDirTopicResult::default()
            .with_topic_name(name)
            .with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}

fn alter_one(context: &RequestContext, path: &str, topic: &str, index: i32) -> i16 {
    let services = &context.services;
    let tp = TopicPartition::new(topic, index);
    let image = services.image();
    let registration = image.topics.partition(&tp);
    let broker_id = services.config().node_id;
    let registered = registration.map_or(Uuid::nil(), |p| p.directory(broker_id));
    let altered = services
        .replicas
        .alter_log_dir(&tp, Path::new(path), registered);
    altered.map_or_else(
        |error| {
            warn!(topic_partition = %tp, path, %error, "replica is not moved");
            error.code()
        },
        |()| 0,
    )
}
