//! Fetch (key 1), v4-18, for consumers and followers. Answers with ranges of log files, which the connection sends from the page
//! cache; waits up to `max_wait_ms` for `min_bytes`, woken by the append itself.
//! Versions: v5 log start offset - v7 sessions (KIP-227) - v9 leader epochs (KIP-320) - v10 zstd - v11 rack (KIP-392) -
//! v12 flexible - v13 topic ids (KIP-516) - v15 replica state - v16 node endpoints (KIP-951) - v17 directory id - v18 high watermark.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::api::leader_hints::{LeaderEndpoint, LeaderHints};
use crate::api::reply::{Chunk, FileRange, Malformed, Reply, ResponseFrame};
use crate::api::{RequestContext, metadata_fetch};
use crate::log::{AbortedTxn, LogSlice};
use crate::partition::{FetchWait, FollowerFetch, Isolation, Partition, ReadRequest, ReadResult};
use crate::protocol::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchRequest, FetchResponse,
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::protocol::wire::Records;
use crate::protocol::{Error, ErrorCode};
use crate::replica::{FetchContext, PartitionKey, TopicRef, Wanted};
use crate::types::{BrokerId, Uuid};

const TOPIC_IDS_FROM: i16 = 13;
const RACKS_FROM: i16 = 11;
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const LEADER_HINTS_FROM: i16 = 16;

type TopicResponse = FetchableTopicResponse<FileRange>;

pub fn handle(context: RequestContext, body: &mut Bytes) -> Result<Reply, Malformed> {
    let request = FetchRequest::decode(body, context.version).map_err(|e| Malformed {
        api: "fetch",
        reason: e.to_string(),
    })?;
    if context.connection.is_controller {
        return Ok(metadata_fetch::handle(context, request));
    }
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        1 => Isolation::ReadCommitted,
        _ => {
            return Ok(refuse_partitions(
                &context,
                &request,
                ErrorCode::UnknownServerError,
            ));
        }
    };
    let session = match open_session(&context, &request) {
        Ok(session) => session,
        Err(code) => return Ok(refuse(&context, code)),
    };
    let limits = context.services.config();
    let replica_id = if context.version >= 15 {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let targets = resolve(&context, &session);
    let follower = (replica_id >= 0).then_some(Follower {
        replica_id,
        broker_epoch: request.replica_state.replica_epoch,
    });
    let is_rack_aware = limits.replica_selector_class.as_deref() == Some(RACK_AWARE_SELECTOR);
    let rack = Some(&request.rack_id).filter(|rack| is_rack_aware && !rack.is_empty());
    let fetch = Fetch {
        rack: rack.filter(|_| follower.is_none()).cloned(),
        isolation: if follower.is_some() {
            Isolation::LogEnd
        } else {
            isolation
        },
        // Clients that tell their rack know that followers answer, too (KIP-392).
        leader_only: follower.is_some() || context.version < RACKS_FROM,
        follower,
        min_bytes: i64::from(request.min_bytes),
        size_bytes_max: request.max_bytes.clamp(0, limits.fetch_max_bytes) as usize,
        targets,
        session,
        context,
    };
    Ok(fetch.start(Duration::from_millis(request.max_wait_ms.max(0) as u64)))
}

/// A Fetch with its partitions looked up.
struct Fetch {
    context: RequestContext,
    session: FetchContext,
    isolation: Isolation,
    leader_only: bool,
    follower: Option<Follower>,
    /// The consumer's, where `replica.selector.class` asks for replicas near it.
    rack: Option<StrBytes>,
    min_bytes: i64,
    size_bytes_max: usize,
    /// One for each wanted partition of the session context, in order.
    targets: Vec<Result<Arc<Partition>, Error>>,
}

/// The broker that fetches to replicate.
#[derive(Clone, Copy)]
struct Follower {
    replica_id: BrokerId,
    broker_epoch: i64,
}

/// What one round over the partitions read.
struct Round {
    results: Vec<Result<ReadResult, Error>>,
    size_bytes: i64,
    /// Records are held back by an open transaction: its marker, not its bytes, brings more.
    held_back: bool,
    /// A partition that is led here failed, or there is news that is no record: the fetcher must hear of it now.
    urgent: bool,
}

impl Follower {
    fn fetch(self, wanted: &Wanted, now_ms: i64) -> FollowerFetch {
        FollowerFetch {
            replica_id: self.replica_id,
            broker_epoch: self.broker_epoch,
            fetch_offset: wanted.fetch_offset,
            log_start_offset: wanted.log_start_offset,
            now_ms,
        }
    }
}

impl Fetch {
    fn start(self, max_wait: Duration) -> Reply {
        let round = self.read(true);
        let nothing_to_wait_for = self.targets.iter().all(Result::is_err);
        if round.urgent
            || nothing_to_wait_for
            || max_wait.is_zero()
            || round.size_bytes >= self.min_bytes
        {
            return self.encode(round).map_or(Reply::Close, Reply::Now);
        }
        let wait = self.park(&round);
        // An append may have come between the read and the parking.
        let again = self.read(false);
        if again.urgent || again.size_bytes >= self.min_bytes {
            return self.encode(again).map_or(Reply::Close, Reply::Now);
        }
        let deadline = Instant::now() + max_wait;
        Reply::Later(Box::pin(async move {
            let round = self.wait(wait, deadline).await;
            self.encode(round)
        }))
    }

    /// Enough bytes or out of time: either way the answer is what is there now. An append to an open transaction is nothing
    /// yet for read_committed consumers: they wait on.
    async fn wait(&self, mut wait: Arc<FetchWait>, deadline: Instant) -> Round {
        loop {
            let woken = tokio::time::timeout_at(deadline, wait.wait()).await;
            let round = self.read(false);
            let may_wait = self.isolation == Isolation::ReadCommitted && !round.urgent;
            if woken.is_err() || !may_wait || self.is_enough(&round) {
                return round;
            }
            wait = self.park(&round);
            let again = self.read(false);
            if again.urgent || self.is_enough(&again) {
                return again;
            }
        }
    }

    fn is_enough(&self, round: &Round) -> bool {
        round.size_bytes >= self.min_bytes
    }

    fn park(&self, round: &Round) -> Arc<FetchWait> {
        let wait = FetchWait::new(if round.held_back {
            1
        } else {
            self.min_bytes - round.size_bytes
        });
        // Records that the quota holds back must not wake who does not get them.
        let is_held_back = self.held_back();
        for partition in self.targets.iter().flatten() {
            if is_held_back(partition) {
                continue;
            }
            partition.park_fetch(&wait, self.isolation);
        }
        wait
    }

    /// Which partitions' records the quota keeps from the follower now (KIP-73).
    fn held_back(&self) -> impl Fn(&Partition) -> bool + use<> {
        let services = &self.context.services;
        let quota = &services.replicas.quotas().leader;
        let follower = self
            .follower
            .filter(|_| quota.is_exceeded(services.clock.monotonic_ms()));
        move |partition| follower.is_some_and(|f| partition.may_hold_back(f.replica_id))
    }

    /// Only the first round of a request tells where a follower is.
    fn read(&self, is_first: bool) -> Round {
        let mut round = Round {
            results: Vec::with_capacity(self.targets.len()),
            size_bytes: 0,
            held_back: false,
            urgent: false,
        };
        let mut left = self.size_bytes_max;
        let now_ms = match self.follower {
            Some(_) => self.context.services.clock.monotonic_ms(),
            None => 0,
        };
        let is_held_back = self.held_back();
        for ((_, wanted), target) in self.session.wanted().iter().zip(&self.targets) {
            let partition = match target {
                Ok(partition) => partition,
                Err(error) => {
                    round.results.push(Err(error.clone()));
                    continue;
                }
            };
            // The first batch of a response comes whole even where it is larger than every limit (KIP-74).
            let min_one_batch = round.size_bytes == 0;
            let limit = left.min(wanted.size_bytes_max.max(0) as usize);
            let read = ReadRequest {
                offset: wanted.fetch_offset,
                size_bytes_max: limit,
                isolation: self.isolation,
                current_leader_epoch: wanted.current_leader_epoch,
                last_fetched_epoch: wanted.last_fetched_epoch,
                min_one_batch,
                leader_only: self.leader_only,
                replica_id: self.follower.map(|follower| follower.replica_id),
            };
            let mut result = match self.follower.filter(|_| is_first) {
                Some(follower) => {
                    let fetch = follower.fetch(wanted, now_ms);
                    partition
                        .read_as_leader(&read, &fetch)
                        .map(|(result, news)| {
                            round.urgent |= news;
                            result
                        })
                }
                None => partition.read(&read),
            };
            if let Ok(read) = &mut result
                && is_held_back(partition)
            {
                read.slice = None;
            }
            if let (Some(rack), Ok(read)) = (&self.rack, &mut result)
                && let Some(id) = self.nearer_replica(partition, wanted, rack)
            {
                read.slice = None;
                read.preferred_read_replica = Some(id);
            }
            let size_bytes = result
                .as_ref()
                .ok()
                .and_then(|r| r.slice.as_ref())
                .map_or(0, |slice| slice.len);
            if self.isolation == Isolation::ReadCommitted
                && let Ok(read) = &result
            {
                round.held_back |= read.last_stable_offset < read.high_watermark;
            }
            round.urgent |= !is_plain(&result);
            round.size_bytes += size_bytes as i64;
            left = left.saturating_sub(size_bytes);
            round.results.push(result);
        }
        round
    }

    /// A replica in the consumer's rack, unless this one is there (KIP-392).
    fn nearer_replica(
        &self,
        partition: &Partition,
        wanted: &Wanted,
        rack: &StrBytes,
    ) -> Option<BrokerId> {
        let image = self.context.services.images.load();
        let is_near = |id: BrokerId| {
            let broker = image.cluster.broker(id).filter(|broker| !broker.fenced);
            broker.is_some_and(|broker| {
                broker.rack.as_deref() == Some(rack.as_str())
                    && broker.listener(&self.context.connection.listener).is_some()
            })
        };
        partition.preferred_read_replica(wanted.fetch_offset, &is_near)
    }

    fn encode(&self, round: Round) -> Option<ResponseFrame> {
        let mut responses: Vec<TopicResponse> = Vec::new();
        let mut hints = LeaderHints::new(&self.context);
        let (mut replicated_bytes, mut reassigned_bytes, mut throttled_bytes) = (0, 0, 0);
        let wanted = self.session.wanted();
        let answers = wanted.iter().zip(&self.targets).zip(round.results);
        let (failed, read): (Vec<_>, Vec<_>) =
            answers.partition(|((_, target), _)| target.is_err());
        for (((key, _), target), result) in read.into_iter().chain(failed) {
            let (size_bytes, high_watermark, log_start_offset) = match &result {
                Ok(r) => (
                    r.slice.as_ref().map_or(0, |s| s.len),
                    r.high_watermark,
                    r.log_start_offset,
                ),
                Err(_) => (0, -1, -1),
            };
            // What is neither records nor offsets must be told, as an error must.
            let failed = !is_plain(&result);
            if !self
                .session
                .must_answer(key, failed, size_bytes, high_watermark, log_start_offset)
            {
                continue;
            }
            if let (Ok(partition), None) = (target, self.follower) {
                let bytes = result.is_ok().then_some(size_bytes as u64);
                partition.metrics.fetched(bytes);
            }
            if let (Ok(partition), Some(_)) = (target, self.follower) {
                replicated_bytes += size_bytes as u64;
                if result.as_ref().is_ok_and(|read| read.for_added_replica) {
                    reassigned_bytes += size_bytes as u64;
                }
                if partition.is_leader_throttled() {
                    throttled_bytes += size_bytes as u64;
                }
            }
            let mut data = self.partition_data(key.1, result);
            if self.context.version >= LEADER_HINTS_FROM && is_hinted(data.error_code) {
                data.current_leader = current_leader(&mut hints, key);
            }
            match responses.last_mut() {
                Some(topic) if is_topic(topic, &key.0) => topic.partitions.push(data),
                _ => responses.push(topic_response(&key.0, data)),
            }
        }
        let services = &self.context.services;
        if replicated_bytes > 0 {
            let counter = &services.metrics.replication.bytes_out;
            counter.fetch_add(replicated_bytes, Relaxed);
            let counter = &services.metrics.replication.reassigned_out;
            counter.fetch_add(reassigned_bytes, Relaxed);
        }
        if throttled_bytes > 0 {
            let quota = &services.replicas.quotas().leader;
            quota.record(throttled_bytes, services.clock.monotonic_ms());
        }
        let response = FetchResponse {
            session_id: self.session.session_id(),
            responses,
            node_endpoints: hints.into_endpoints().into_iter().map(node).collect(),
            ..FetchResponse::default()
        };
        encode(&self.context, response)
    }

    fn partition_data(
        &self,
        partition_index: i32,
        result: Result<ReadResult, Error>,
    ) -> PartitionData<FileRange> {
        match result {
            Ok(read) => PartitionData {
                partition_index,
                high_watermark: read.high_watermark,
                last_stable_offset: read.last_stable_offset,
                log_start_offset: read.log_start_offset,
                preferred_read_replica: read.preferred_read_replica.unwrap_or(-1),
                diverging_epoch: read.diverging_epoch.map_or_else(Default::default, |end| {
                    EpochEndOffset {
                        epoch: end.leader_epoch,
                        end_offset: end.end_offset,
                    }
                }),
                aborted_transactions: (self.isolation == Isolation::ReadCommitted)
                    .then(|| read.aborted.iter().map(aborted_transaction).collect()),
                records: Records(read.slice.and_then(file_range)),
                ..PartitionData::default()
            },
            Err(error) => PartitionData {
                partition_index,
                error_code: error.code(),
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                aborted_transactions: is_unknown(error.code).then(Vec::new),
                ..PartitionData::default()
            },
        }
    }
}

fn aborted_transaction(txn: &AbortedTxn) -> AbortedTransaction {
    AbortedTransaction {
        producer_id: txn.producer_id,
        first_offset: txn.first_offset,
    }
}

/// Whether there is nothing to tell but records and offsets.
fn is_plain(result: &Result<ReadResult, Error>) -> bool {
    let plain =
        |read: &ReadResult| read.diverging_epoch.is_none() && read.preferred_read_replica.is_none();
    result.as_ref().is_ok_and(plain)
}

/// Whether the answer names the leader.
fn is_hinted(error_code: i16) -> bool {
    error_code == ErrorCode::NotLeaderOrFollower.code()
        || error_code == ErrorCode::FencedLeaderEpoch.code()
}

fn current_leader(hints: &mut LeaderHints<'_>, (topic, index): &PartitionKey) -> LeaderIdAndEpoch {
    let (leader_id, leader_epoch) = match topic {
        TopicRef::Name(name) => hints.by_name(name, *index),
        TopicRef::Id(id) => hints.by_id(*id, *index),
    };
    LeaderIdAndEpoch {
        leader_id,
        leader_epoch,
    }
}

fn node(leader: LeaderEndpoint) -> NodeEndpoint {
    NodeEndpoint {
        node_id: leader.node_id,
        host: leader.host,
        port: leader.port,
        rack: leader.rack,
    }
}

/// What this broker does not host is answered with an empty list of aborted transactions, other failures with none.
fn is_unknown(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId
    )
}

fn open_session(
    context: &RequestContext,
    request: &FetchRequest,
) -> Result<FetchContext, ErrorCode> {
    let by_id = context.version >= TOPIC_IDS_FROM;
    let wanted = request.topics.iter().flat_map(|topic| {
        let topic_ref = topic_ref(by_id, &topic.topic, topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |p| ((topic_ref.clone(), p.partition), wanted(p)))
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let topic_ref = topic_ref(by_id, &topic.topic, topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |p| (topic_ref.clone(), *p))
    });
    let mut wanted: Vec<(PartitionKey, Wanted)> = wanted.collect();
    if wanted.len() > 1 {
        keep_last(&mut wanted);
    }
    if context.version < 7 {
        return Ok(FetchContext::Sessionless { wanted });
    }
    context.services.fetch_sessions.context(
        request.session_id,
        request.session_epoch,
        by_id,
        wanted,
        &forgotten.collect::<Vec<_>>(),
        context.services.clock.monotonic_ms(),
        || Uuid::new_v4().as_u128() as i32,
    )
}

/// Of a partition that is there twice the last counts, in the place of the first.
fn keep_last(wanted: &mut Vec<(PartitionKey, Wanted)>) {
    let last: HashMap<PartitionKey, Wanted> = wanted.iter().cloned().collect();
    if last.len() == wanted.len() {
        return;
    }
    let mut left = last;
    wanted.retain_mut(|(key, value)| match left.remove(key) {
        Some(last) => {
            *value = last;
            true
        }
        None => false,
    });
}

fn topic_ref(by_id: bool, name: &StrBytes, id: Uuid) -> TopicRef {
    if by_id {
        TopicRef::Id(id)
    } else {
        TopicRef::Name(name.clone())
    }
}

fn wanted(partition: &FetchPartition) -> Wanted {
    Wanted {
        fetch_offset: partition.fetch_offset,
        current_leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
        log_start_offset: partition.log_start_offset,
        size_bytes_max: partition.partition_max_bytes,
        was_served: false,
    }
}

fn resolve(context: &RequestContext, session: &FetchContext) -> Vec<Result<Arc<Partition>, Error>> {
    let replicas = &context.services.replicas;
    let find = |(topic, index): &PartitionKey| match topic {
        TopicRef::Name(name) => replicas.find(name, *index),
        TopicRef::Id(id) => replicas.find_by_id(*id, *index),
    };
    let named = |error: Error, wanted: &Wanted| match error.code {
        // The session knows the name of the deleted topic; only the partition is unknown.
        ErrorCode::UnknownTopicId if wanted.was_served => ErrorCode::UnknownTopicOrPartition.into(),
        _ => error,
    };
    let wanted = session.wanted().iter();
    wanted
        .map(|(key, wanted)| find(key).map_err(|error| named(error, wanted)))
        .collect()
}

fn is_topic(response: &TopicResponse, topic: &TopicRef) -> bool {
    match topic {
        TopicRef::Name(name) => response.topic == *name,
        TopicRef::Id(id) => response.topic_id == *id,
    }
}

fn topic_response(topic: &TopicRef, data: PartitionData<FileRange>) -> TopicResponse {
    let partitions = vec![data];
    match topic {
        TopicRef::Name(name) => FetchableTopicResponse {
            topic: name.clone(),
            partitions,
            ..FetchableTopicResponse::default()
        },
        TopicRef::Id(id) => FetchableTopicResponse {
            topic_id: *id,
            partitions,
            ..FetchableTopicResponse::default()
        },
    }
}

fn file_range(slice: LogSlice) -> Option<FileRange> {
    Some(FileRange {
        file: slice.file?,
        position: slice.position,
        size_bytes: slice.len,
    })
}

/// Below version 13 the partitions get the code as well.
fn refuse_partitions(context: &RequestContext, request: &FetchRequest, code: ErrorCode) -> Reply {
    let topics = request
        .topics
        .iter()
        .filter(|_| context.version < TOPIC_IDS_FROM);
    let responses = topics.map(|topic| {
        let partitions = topic.partitions.iter().map(|p| PartitionData {
            partition_index: p.partition,
            error_code: code.code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: Some(Vec::new()),
            ..PartitionData::default()
        });
        FetchableTopicResponse {
            topic: topic.topic.clone(),
            partitions: partitions.collect(),
            ..FetchableTopicResponse::default()
        }
    });
    let response = FetchResponse {
        error_code: code.code(),
        responses: responses.collect(),
        ..FetchResponse::default()
    };
    encode(context, response).map_or(Reply::Close, Reply::Now)
}

fn refuse(context: &RequestContext, code: ErrorCode) -> Reply {
    let response = FetchResponse {
        error_code: code.code(),
        ..FetchResponse::default()
    };
    encode(context, response).map_or(Reply::Close, Reply::Now)
}

fn encode(context: &RequestContext, response: FetchResponse<FileRange>) -> Option<ResponseFrame> {
    let chunks: Vec<Chunk> = response.encode_chunks(context.version).ok()?;
    Some(ResponseFrame::from_chunks(context.framing, chunks))
}
