//! One fetcher: asks its leader for all its partitions over and over, appends what comes, truncates what differs (Kafka's
//! `ReplicaFetcherThread`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ParseResponseErrorCode;
use tracing::{debug, info, warn};

use super::session::{FetchSession, Positions, SessionKey, SessionRequest};
use super::{Assigned, Context};
use crate::log::EpochEndOffset;
use crate::partition::{AppendAsFollowerError, FollowerPosition, Partition, Replicated};
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData,
    ReplicaState,
};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::rpc::{Peer, RpcError, Settings};
use crate::types::{BrokerId, Offset, TimestampMs};

/// The first rest of a partition that failed; doubles up to `replica.fetch.backoff.ms`.
const BACKOFF_MIN_MS: i64 = 50;
const LIST_OFFSETS_VERSION: i16 = 9;
const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;

/// A partition that failed, and when it may be fetched again.
struct Resting {
    until_ms: i64,
    backoff_ms: i64,
}

/// One connection to one leader.
pub struct Fetcher {
    context: Arc<Context>,
    leader: BrokerId,
    assigned: Arc<Assigned>,
    session: FetchSession,
    /// Host and port that the metadata had, and the connection there.
    peer: Option<((Arc<str>, u16), Peer)>,
    resting: BTreeMap<SessionKey, Resting>,
}

impl Fetcher {
    pub(super) fn new(context: Arc<Context>, leader: BrokerId, assigned: Arc<Assigned>) -> Self {
        Self {
            context,
            leader,
            assigned,
            session: FetchSession::default(),
            peer: None,
            resting: BTreeMap::new(),
        }
    }

    /// Ends with the broker.
    pub async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        let fetching = async {
            loop {
                self.round().await;
            }
        };
        shutdown.run_until_cancelled(fetching).await;
    }

    async fn round(&mut self) {
        let (positions, are_all) = self.positions();
        if positions.is_empty() && are_all {
            self.peer = None;
            self.session.forget();
            self.assigned.added.notified().await;
            return;
        }
        let broker_epoch = self.context.replicas.broker_epoch();
        let (Some(peer), false, true) = (self.peer(), positions.is_empty(), broker_epoch >= 0)
        else {
            // Nobody to ask, or nothing to ask for yet.
            tokio::time::sleep(Duration::from_millis(BACKOFF_MIN_MS as u64)).await;
            return;
        };
        let request = self.session.next(positions);
        let version = fetch_version(&self.context);
        let request = self.request(request, broker_epoch, version);
        let timeout = self.context.config.load().replica_socket_timeout_ms.max(1);
        let timeout = Duration::from_millis(timeout as u64);
        let stats = &self.assigned.stats;
        stats.requested(self.context.clock.monotonic_ms());
        match peer.call(version, &request, timeout).await {
            Ok(response) => self.take(&peer, response).await,
            Err(error) => self.disconnected(&error).await,
        }
    }

    /// Where the partitions are that still follow this leader and may be fetched now, and whether these are all: others
    /// rest, or wait for the quota (KIP-73).
    fn positions(&mut self) -> (Positions, bool) {
        let now_ms = self.context.clock.monotonic_ms();
        let is_over_quota = self.context.replicas.quotas().follower.is_exceeded(now_ms);
        let mut positions = Positions::new();
        let mut are_all = true;
        let leader = self.leader;
        let resting = &mut self.resting;
        self.assigned.lock().retain(|key, followed| {
            let position = followed.partition.follower_position();
            let Some(position) = position.filter(|position| position.leader == leader) else {
                resting.remove(key);
                return false;
            };
            let is_held_back = is_over_quota
                && followed.partition.is_follower_throttled()
                && !followed.is_in_sync();
            let is_rested = resting.get(key).is_none_or(|rest| rest.until_ms <= now_ms);
            if is_rested && !is_held_back {
                positions.insert(*key, position);
            } else {
                are_all = false;
            }
            true
        });
        (positions, are_all)
    }

    /// The connection to where the leader listens for brokers now.
    fn peer(&mut self) -> Option<Peer> {
        let image = self.context.images.loaded();
        let config = self.context.config.load();
        let broker = image.cluster.broker(self.leader)?;
        let endpoint = broker.listener(&config.inter_broker_listener_name)?;
        let place = (Arc::clone(&endpoint.host), endpoint.port);
        match &self.peer {
            Some((known, peer)) if *known == place => Some(peer.clone()),
            _ => {
                let config = self.context.config.load();
                let name = "replica.socket.receive.buffer.bytes";
                let size = config.replica_socket_receive_buffer_bytes;
                let settings = Settings {
                    client_id: format!("broker-{}-fetcher", self.context.replicas.broker_id())
                        .into(),
                    // -1, too, leaves it to the system.
                    receive_buffer_bytes: u32::try_from(size).ok().filter(|_| config.is_set(name)),
                    ..Settings::of(&config)
                };
                let peer = Peer::new(&place.0, place.1, settings);
                self.session.forget();
                self.peer = Some((place, peer.clone()));
                Some(peer)
            }
        }
    }

    fn request(&self, session: SessionRequest, broker_epoch: i64, version: i16) -> FetchRequest {
        let config = self.context.config.load();
        let broker_id = self.context.replicas.broker_id();
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((topic_id, index), position) in session.changed {
            let partition = FetchPartition {
                partition: index,
                current_leader_epoch: position.leader_epoch,
                fetch_offset: position.fetch_offset,
                last_fetched_epoch: position.last_fetched_epoch,
                log_start_offset: position.log_start_offset,
                partition_max_bytes: config.replica_fetch_max_bytes,
                ..FetchPartition::default()
            };
            match topics.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition),
                _ => topics.push(FetchTopic {
                    topic_id,
                    partitions: vec![partition],
                    ..FetchTopic::default()
                }),
            }
        }
        let forgotten = session
            .forgotten
            .into_iter()
            .map(|(topic_id, index)| ForgottenTopic {
                topic_id,
                partitions: vec![index],
                ..ForgottenTopic::default()
            });
        let mut request = FetchRequest {
            max_wait_ms: config.replica_fetch_wait_max_ms,
            min_bytes: config.replica_fetch_min_bytes,
            max_bytes: config.replica_fetch_response_max_bytes,
            session_id: session.id,
            session_epoch: session.epoch,
            topics,
            forgotten_topics_data: forgotten.collect(),
            ..FetchRequest::default()
        };
        if version >= 15 {
            request.replica_state = ReplicaState {
                replica_id: broker_id,
                replica_epoch: broker_epoch,
            };
        } else {
            request.replica_id = broker_id;
        }
        request
    }

    async fn disconnected(&mut self, error: &RpcError) {
        debug!(leader = self.leader, %error, "fetch failed");
        self.session.forget();
        let pause = i64::from(self.context.config.load().replica_fetch_backoff_ms);
        let pause = pause.clamp(1, 4 * BACKOFF_MIN_MS) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn take(&mut self, peer: &Peer, response: FetchResponse<Bytes>) {
        match response.error_code.err() {
            None => {}
            Some(ErrorCode::FetchSessionIdNotFound) => return self.session.forget(),
            Some(ErrorCode::InvalidFetchSessionEpoch | ErrorCode::FetchSessionTopicIdError) => {
                return self.session.reset();
            }
            Some(code) => {
                info!(leader = self.leader, ?code, "the leader refused a fetch");
                self.session.reset();
                tokio::time::sleep(Duration::from_millis(BACKOFF_MIN_MS as u64)).await;
                return;
            }
        }
        self.session.answered(response.session_id);
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let partition = self.assigned.partition(key);
                if let (Some(partition), Some(asked)) = (partition, self.session.asked(key)) {
                    let asked = *asked;
                    self.take_partition(peer, &partition, asked, data).await;
                }
            }
        }
    }

    async fn take_partition(
        &mut self,
        peer: &Peer,
        partition: &Arc<Partition>,
        asked: FollowerPosition,
        data: PartitionData<Bytes>,
    ) {
        let key = (partition.topic_id, partition.topic_partition.partition);
        let taken = match data.error_code.err() {
            None if data.diverging_epoch.end_offset >= 0 => {
                let diverging = EpochEndOffset {
                    leader_epoch: data.diverging_epoch.epoch,
                    end_offset: data.diverging_epoch.end_offset,
                };
                partition.truncate_to_leader(asked.leader_epoch, diverging)
            }
            None => self.append(partition, asked, data).await,
            Some(ErrorCode::OffsetOutOfRange) => {
                match self.leaders_ends(peer, partition, asked).await {
                    Some((start, end)) => {
                        let reset = partition.reset_to_leader(asked.leader_epoch, start, end);
                        // Should the leader refuse again there is nothing new to do: not at once.
                        self.rest(key);
                        return self.finish(partition, reset);
                    }
                    None => return self.rest(key),
                }
            }
            // Leader and follower hear of an election one after the other.
            Some(code) => {
                debug!(tp = %partition.topic_partition, leader = self.leader, ?code, "fetch of a partition failed");
                return self.rest(key);
            }
        };
        if taken.is_ok() {
            self.resting.remove(&key);
        }
        self.finish(partition, taken);
    }

    fn finish(&mut self, partition: &Partition, taken: Result<(), AppendAsFollowerError>) {
        match taken {
            Ok(()) | Err(AppendAsFollowerError::Stale) => {}
            Err(AppendAsFollowerError::Failed(error)) => {
                warn!(tp = %partition.topic_partition, leader = self.leader, %error, "records of the leader were not taken");
                let key = (partition.topic_id, partition.topic_partition.partition);
                if let Some(followed) = self.assigned.lock().get_mut(&key) {
                    followed.is_failed = true;
                }
                self.rest(key);
            }
        }
    }

    async fn append(
        &self,
        partition: &Arc<Partition>,
        asked: FollowerPosition,
        data: PartitionData<Bytes>,
    ) -> Result<(), AppendAsFollowerError> {
        let records = data.records.0.unwrap_or_default();
        let size_bytes = records.len() as u64;
        let replicated = Replicated {
            leader_epoch: asked.leader_epoch,
            fetch_offset: asked.fetch_offset,
            records,
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
        };
        partition.append_as_follower(replicated, self.context.clock.wall_ms())?;
        let next_offset = partition.offsets()?.next_offset;
        self.taken(partition, size_bytes, data.high_watermark - next_offset);
        // With flush.messages the next fetch says that these records are here for good.
        if let Some(durable) = partition.wait_durable(next_offset)
            && let Ok(durable) = durable.await
        {
            durable?;
        }
        Ok(())
    }

    fn taken(&self, partition: &Partition, size_bytes: u64, lag: i64) {
        let key = (partition.topic_id, partition.topic_partition.partition);
        if let Some(followed) = self.assigned.lock().get_mut(&key) {
            followed.lag = Some(lag.max(0));
            followed.is_failed = false;
        }
        self.assigned.stats.fetched(size_bytes);
        let metrics = &self.context.replicas.metrics().replication;
        metrics.bytes_in.fetch_add(size_bytes, Relaxed);
        if size_bytes > 0 && partition.is_added_replica() {
            metrics.reassigned_in.fetch_add(size_bytes, Relaxed);
        }
        if partition.is_follower_throttled() {
            let quota = &self.context.replicas.quotas().follower;
            quota.record(size_bytes, self.context.clock.monotonic_ms());
        }
    }

    /// Leaves the partition out of fetches for a while, longer each time.
    fn rest(&mut self, key: SessionKey) {
        let longest = i64::from(self.context.config.load().replica_fetch_backoff_ms);
        let now_ms = self.context.clock.monotonic_ms();
        let resting = self.resting.entry(key).or_insert(Resting {
            until_ms: 0,
            backoff_ms: BACKOFF_MIN_MS.min(longest),
        });
        resting.until_ms = now_ms + resting.backoff_ms;
        resting.backoff_ms = (2 * resting.backoff_ms).min(longest.max(1));
    }

    /// Both ends of the leader's log.
    async fn leaders_ends(
        &self,
        peer: &Peer,
        partition: &Partition,
        asked: FollowerPosition,
    ) -> Option<(Offset, Offset)> {
        let start = self.list_offset(peer, partition, asked, EARLIEST).await?;
        let end = self.list_offset(peer, partition, asked, LATEST).await?;
        Some((start, end))
    }

    async fn list_offset(
        &self,
        peer: &Peer,
        partition: &Partition,
        asked: FollowerPosition,
        timestamp: TimestampMs,
    ) -> Option<Offset> {
        let name = &partition.topic_partition.topic;
        let request = ListOffsetsRequest {
            replica_id: self.context.replicas.broker_id(),
            topics: vec![ListOffsetsTopic {
                name: kafka_protocol::protocol::StrBytes::from_string(name.to_string()),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition.topic_partition.partition,
                    current_leader_epoch: asked.leader_epoch,
                    timestamp,
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let timeout = self.context.config.load().replica_socket_timeout_ms.max(1);
        let timeout = Duration::from_millis(timeout as u64);
        let answer = peer.call(LIST_OFFSETS_VERSION, &request, timeout).await;
        let answer = answer.ok()?.topics.into_iter().next()?;
        let answer = answer.partitions.into_iter().next()?;
        (answer.error_code == 0).then_some(answer.offset)
    }
}

/// The version that every broker of the cluster has (`MetadataVersion.fetchRequestVersion`).
fn fetch_version(context: &Context) -> i16 {
    match context.images.loaded().features.level("metadata.version") {
        27.. => 18,
        21.. => 17,
        19.. => 16,
        11.. => 15,
        _ => 13,
    }
}
