//! DescribeTopicPartitions (key 75), v0. Topics with eligible leader replicas, page by page (KIP-966).
//! A cursor names the first partition of the next page.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    TopicName,
};

use crate::api::RequestContext;
use crate::api::cluster_view::{ClusterView, TOPIC_OPERATIONS, broker_ids, text};
use crate::config::validate_topic_name;
use crate::metadata::{PartitionRegistration, TopicImage};
use crate::protocol::ErrorCode;
use crate::types::is_internal_topic;

pub fn handle(
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = context.services.config().max_request_partition_size_limit;
    describe(&ClusterView::new(context), request, limit)
}

/// At most `limit` partitions, whatever the request says.
pub(super) fn describe(
    view: &ClusterView,
    request: DescribeTopicPartitionsRequest,
    limit: i32,
) -> DescribeTopicPartitionsResponse {
    let (first, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (TopicName::default(), 0),
    };
    let all = request.topics.is_empty();
    let names: BTreeSet<TopicName> = if all {
        let names = view.image.topics.names_from(&first);
        names.map(|name| TopicName(text(name))).collect()
    } else {
        let names = request.topics.iter().map(|topic| topic.name.clone());
        names.filter(|name| *name >= first).collect()
    };
    let cursor_is_foreign = !all && request.cursor.is_some() && !names.contains(&first);
    if first_partition < 0 || cursor_is_foreign {
        return refuse(&request, ErrorCode::InvalidRequest);
    }
    let mut page = Page {
        view,
        room: request.response_partition_limit.min(limit).max(1),
        response: DescribeTopicPartitionsResponse::default(),
    };
    for name in names {
        let start = if name == first { first_partition } else { 0 };
        if !page.add(name, start, all) {
            break;
        }
    }
    page.response
}

fn refuse(
    request: &DescribeTopicPartitionsRequest,
    code: ErrorCode,
) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(topic.name.clone()))
            .with_error_code(code.code())
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

struct Page<'a> {
    view: &'a ClusterView,
    /// Partitions that still fit.
    room: i32,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Adds a topic from partition `start` on. False when the page is full, and the cursor set.
    fn add(&mut self, name: TopicName, start: i32, skip_missing: bool) -> bool {
        if self.room == 0 {
            self.stop_at(name, 0);
            return false;
        }
        let mut answer = DescribeTopicPartitionsResponseTopic::default()
            .with_is_internal(is_internal_topic(&name))
            .with_topic_authorized_operations(TOPIC_OPERATIONS);
        let Some(topic) = self.view.image.topics.by_name(&name) else {
            if !skip_missing {
                let code = match validate_topic_name(&name) {
                    Ok(()) => ErrorCode::UnknownTopicOrPartition,
                    Err(error) => error.code,
                };
                let answer = answer.with_name(Some(name)).with_error_code(code.code());
                self.response.topics.push(answer);
            }
            return true;
        };
        let count = topic.partitions.len() as i32;
        let end = count.min(start.saturating_add(self.room));
        answer.topic_id = topic.id;
        answer.partitions = self.partitions(topic, start, end);
        self.room -= answer.partitions.len() as i32;
        self.response
            .topics
            .push(answer.with_name(Some(name.clone())));
        if end < count {
            self.stop_at(name, end);
        }
        end >= count
    }

    fn stop_at(&mut self, name: TopicName, partition: i32) {
        let cursor = Cursor::default().with_topic_name(name);
        self.response.next_cursor = Some(cursor.with_partition_index(partition));
    }

    fn partitions(
        &self,
        topic: &TopicImage,
        start: i32,
        end: i32,
    ) -> Vec<DescribeTopicPartitionsResponsePartition> {
        let indexes = start..end.max(start);
        let found = indexes.filter_map(|index| Some((index, topic.partitions.get(&index)?)));
        found
            .map(|(index, partition)| self.partition(index, partition))
            .collect()
    }

    fn partition(
        &self,
        index: i32,
        partition: &PartitionRegistration,
    ) -> DescribeTopicPartitionsResponsePartition {
        let leader = self.view.leader(partition).unwrap_or(-1);
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(WireBrokerId(leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(broker_ids(&partition.replicas))
            .with_isr_nodes(broker_ids(&partition.isr))
            .with_eligible_leader_replicas(Some(broker_ids(&partition.elr)))
            .with_last_known_elr(Some(broker_ids(&partition.last_known_elr)))
            .with_offline_replicas(self.view.offline_replicas(partition))
    }
}
