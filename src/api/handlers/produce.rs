//! Produce (key 0), v3-13; 0-2 are only listed. Appends record batches to the partitions led here.
//! acks=0 gets no answer and closes the connection if it failed, acks=1 answers after the local append (and the flush, if `flush.messages` asks for one), acks=all
//! when the high watermark passed the records or `timeout_ms` is over.
//! Versions: v5 log start offset - v7 zstd (KIP-110) - v8 record errors (KIP-467) - v9 flexible - v10 leader hints
//! (KIP-951) - v11 TRANSACTION_ABORTABLE (KIP-890) - v12 transactions V2 - v13 topic ids (KIP-516).
//!
//! All Produce requests that one read of a connection brought come as one run: each partition gets one append
//! with all its batches, and the answers share one buffer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::leader_hints::{LeaderEndpoint, LeaderHints};
use crate::api::reply::{self, Chunk, Malformed, Reply, ResponseFrame};
use crate::api::{RequestContext, Services};
use crate::log::AppendInfo;
use crate::partition::{Committed, Partition};
use crate::protocol::batch::{self, AppendOrigin, ProduceError, ValidBatch, ValidateContext};
use crate::protocol::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{Offset, TimestampMs, is_internal_topic};

const ACKS_ALL: i16 = -1;
const LEADER_HINTS_FROM: i16 = 10;
const TOPIC_IDS_FROM: i16 = 13;

/// A single request: a run of one.
pub fn handle(context: RequestContext, body: &mut Bytes) -> Result<Reply, Malformed> {
    let services = Arc::clone(&context.services);
    let mut replies = Vec::with_capacity(1);
    handle_run(
        &services,
        vec![(context, std::mem::take(body))],
        &mut replies,
    );
    Ok(replies.pop().unwrap_or(Reply::Close))
}

/// Handles requests of one connection in order. Stops at the first that is malformed, with [`Reply::Close`].
pub fn handle_run(
    services: &Arc<Services>,
    requests: Vec<(RequestContext, Bytes)>,
    replies: &mut Vec<Reply>,
) {
    let mut run = Run {
        now_ms: services.clock.wall_ms(),
        calls: Vec::new(),
        targets: Vec::new(),
    };
    let mut malformed = false;
    for (context, mut body) in requests {
        let Ok(request) = ProduceRequest::decode(&mut body, context.version) else {
            malformed = true;
            break;
        };
        run.add(context, request);
    }
    run.append();
    run.answer(replies);
    if malformed {
        replies.push(Reply::Close);
    }
}

/// One request and the results of its partitions, in the order of the request.
struct Call {
    context: RequestContext,
    request: ProduceRequest,
    results: Vec<Result<AppendInfo, Refused>>,
    /// What acks=all still waits for: index into `results`, and the news.
    uncommitted: Vec<(usize, oneshot::Receiver<Committed>)>,
}

/// Why a partition took nothing.
struct Refused {
    error: ProduceError,
    /// -1 where the fault was found before the log was looked at.
    log_start_offset: Offset,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error: error.into(),
            log_start_offset: -1,
        }
    }
}

impl Refused {
    /// Kafka tells the log start offset with faults that the log finds.
    fn at(partition: &Partition, error: ProduceError) -> Self {
        let known = error.log_start_offset_known;
        let offsets = known.then(|| partition.offsets().ok()).flatten();
        Self {
            error,
            log_start_offset: offsets.map_or(-1, |offsets| offsets.log_start_offset),
        }
    }
}

/// A partition and all batches of the run for it.
struct Target {
    partition: Arc<Partition>,
    acks_all: bool,
    batches: Vec<ValidBatch>,
    /// For each batch: the call and the place in its results.
    places: Vec<(usize, usize)>,
}

struct Run {
    now_ms: TimestampMs,
    calls: Vec<Call>,
    targets: Vec<Target>,
}

impl Run {
    /// Validates a request's batches and sorts them to their partitions.
    fn add(&mut self, context: RequestContext, mut request: ProduceRequest) {
        // Of a partition that is there twice Kafka keeps the last; topics without partitions get no answer.
        request.topic_data.retain_mut(|topic| {
            if topic.partition_data.len() > 1 {
                keep_last(&mut topic.partition_data);
            }
            !topic.partition_data.is_empty()
        });
        let refused = refusal_of_all(&request);
        let call_index = self.calls.len();
        let mut results = Vec::new();
        for topic in &request.topic_data {
            for data in &topic.partition_data {
                let place = (call_index, results.len());
                let admitted = || {
                    admit(
                        &context,
                        &request,
                        topic,
                        data.index,
                        data.records.clone(),
                        self.now_ms,
                    )
                };
                let refused = refused.clone().map(|error| Refused {
                    error,
                    log_start_offset: -1,
                });
                results.push(match refused.map_or_else(admitted, Err) {
                    Ok((partition, batch)) => {
                        self.queue(partition, request.acks == ACKS_ALL, batch, place);
                        // Replaced by the append's result.
                        Err(Error::from(ErrorCode::UnknownServerError).into())
                    }
                    Err(error) => Err(error),
                });
            }
        }
        self.calls.push(Call {
            context,
            request,
            results,
            uncommitted: Vec::new(),
        });
    }

    fn queue(
        &mut self,
        partition: Arc<Partition>,
        acks_all: bool,
        batch: ValidBatch,
        place: (usize, usize),
    ) {
        let same =
            |t: &&mut Target| Arc::ptr_eq(&t.partition, &partition) && t.acks_all == acks_all;
        if let Some(target) = self.targets.iter_mut().rev().find(same) {
            target.batches.push(batch);
            target.places.push(place);
        } else {
            self.targets.push(Target {
                partition,
                acks_all,
                batches: vec![batch],
                places: vec![place],
            });
        }
    }

    fn append(&mut self) {
        for target in &self.targets {
            let results =
                target
                    .partition
                    .append_as_leader(&target.batches, target.acks_all, self.now_ms);
            let batches = target.batches.iter().zip(results);
            for ((call, slot), (batch, result)) in target.places.iter().zip(batches) {
                let call = &mut self.calls[*call];
                if let Ok(info) = &result
                    && let Some(waiting) = wait_for(target, call.request.acks, info.last_offset + 1)
                {
                    call.uncommitted.push((*slot, waiting));
                }
                call.results[*slot] = result.map_err(|error| {
                    if batch.origin == AppendOrigin::OpenTransaction
                        && error.code == ErrorCode::InvalidTxnState
                    {
                        return refuse_transactional(call.context.version);
                    }
                    let found_by_log = !matches!(
                        error.code,
                        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError
                    );
                    let error = ProduceError {
                        log_start_offset_known: found_by_log,
                        ..error.into()
                    };
                    Refused::at(&target.partition, error)
                });
            }
        }
    }

    /// One reply for each call; answers that are ready one after the other share a buffer.
    fn answer(self, replies: &mut Vec<Reply>) {
        let mut buffer = BytesMut::new();
        let flush = |buffer: &mut BytesMut, replies: &mut Vec<Reply>| {
            if !buffer.is_empty() {
                let chunks = vec![Chunk::Bytes(buffer.split().freeze())];
                replies.push(Reply::Now(ResponseFrame { chunks }));
            }
        };
        for call in self.calls {
            if call.request.acks == 0 {
                if call.results.iter().any(Result::is_err) {
                    flush(&mut buffer, replies);
                    replies.push(Reply::Close);
                    return;
                }
            } else if call.uncommitted.is_empty() {
                if buffer.capacity() == 0 {
                    buffer.reserve(4096);
                }
                if call.encode_into(&mut buffer).is_err() {
                    flush(&mut buffer, replies);
                    replies.push(Reply::Close);
                    return;
                }
            } else {
                flush(&mut buffer, replies);
                replies.push(Reply::Later(Box::pin(call.wait_committed())));
            }
        }
        flush(&mut buffer, replies);
    }
}

impl Call {
    async fn wait_committed(mut self) -> Option<ResponseFrame> {
        let timeout = Duration::from_millis(self.request.timeout_ms.max(0) as u64);
        let deadline = Instant::now() + timeout;
        for (slot, waiting) in std::mem::take(&mut self.uncommitted) {
            let committed = match tokio::time::timeout_at(deadline, waiting).await {
                Ok(Ok(committed)) => committed,
                Ok(Err(_)) => Err(ErrorCode::NotLeaderOrFollower.into()),
                Err(_) => Err(ErrorCode::RequestTimedOut.into()),
            };
            if let Err(error) = committed {
                self.results[slot] = Err(error.into());
            }
        }
        let mut buffer = BytesMut::with_capacity(256);
        self.encode_into(&mut buffer).ok()?;
        Some(ResponseFrame {
            chunks: vec![Chunk::Bytes(buffer.freeze())],
        })
    }

    fn encode_into(self, buffer: &mut BytesMut) -> Result<(), String> {
        let mut results = self.results.into_iter();
        let mut hints = LeaderHints::new(&self.context);
        let responses = self.request.topic_data.into_iter().map(|topic| {
            let answers = topic.partition_data.iter().zip(results.by_ref());
            let answers = answers.map(|(data, result)| {
                let mut response = partition_response(data.index, result);
                if self.context.version >= LEADER_HINTS_FROM
                    && response.error_code == ErrorCode::NotLeaderOrFollower.code()
                {
                    let version = self.context.version;
                    response.current_leader =
                        current_leader(&mut hints, version, &topic, data.index);
                }
                response
            });
            let partition_responses = answers.collect();
            TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses,
            }
        });
        let responses = responses.collect();
        let response = ProduceResponse {
            responses,
            node_endpoints: hints.into_endpoints().into_iter().map(node).collect(),
            ..ProduceResponse::default()
        };
        reply::encode_into(buffer, self.context.framing, &response)
    }
}

fn current_leader(
    hints: &mut LeaderHints<'_>,
    version: i16,
    topic: &TopicProduceData,
    index: i32,
) -> LeaderIdAndEpoch {
    let (leader_id, leader_epoch) = if version >= TOPIC_IDS_FROM {
        hints.by_id(topic.topic_id, index)
    } else {
        hints.by_name(&topic.name, index)
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

/// What an answer waits for: acks=all for the high watermark, acks=1 for the flush that `flush.messages` asks for.
fn wait_for(target: &Target, acks: i16, offset: Offset) -> Option<oneshot::Receiver<Committed>> {
    match acks {
        ACKS_ALL => target.partition.wait_high_watermark(offset),
        0 => None,
        _ => target.partition.wait_durable(offset),
    }
}

fn keep_last(partitions: &mut Vec<PartitionProduceData>) {
    let mut last = HashMap::with_capacity(partitions.len());
    for (place, data) in partitions.iter().enumerate() {
        last.insert(data.index, place);
    }
    if last.len() < partitions.len() {
        let mut place = 0..;
        partitions.retain(|data| last.get(&data.index).copied() == place.next());
    }
}

/// Checks one partition's data as far as that goes without its lock.
fn admit(
    context: &RequestContext,
    request: &ProduceRequest,
    topic: &TopicProduceData,
    index: i32,
    records: Option<Bytes>,
    now_ms: TimestampMs,
) -> Result<(Arc<Partition>, ValidBatch), Refused> {
    if !matches!(request.acks, -1..=1) {
        return Err(Error::from(ErrorCode::InvalidRequiredAcks).into());
    }
    let replicas = &context.services.replicas;
    let partition = if context.version >= 13 {
        replicas.find_by_id(topic.topic_id, index)
    } else {
        replicas.find(&topic.name, index)
    }?;
    if is_internal_topic(&partition.topic_partition.topic) {
        return Err(Error::from(ErrorCode::InvalidTopicException).into());
    }
    let config = partition.config();
    let validate = ValidateContext {
        config: &config,
        now_ms,
        api_version: context.version,
    };
    let mut batch = batch::validate_produced(records.unwrap_or_default(), &validate)
        .map_err(|error| Refused::at(&partition, error))?;
    if batch.header.is_transactional() {
        batch.origin = transactional_origin(context);
    }
    Ok((partition, batch))
}

/// Why no partition of the request is looked at: one is not worth a look, or has transactional records without a
/// transactional id.
fn refusal_of_all(request: &ProduceRequest) -> Option<ProduceError> {
    let partitions = request.topic_data.iter().flat_map(|t| &t.partition_data);
    for records in partitions.filter_map(|data| data.records.as_deref()) {
        match batch::begins_transactional(records) {
            Ok(true) if request.transactional_id.is_none() => {
                return Some(Error::from(ErrorCode::TransactionalIdAuthorizationFailed).into());
            }
            Ok(true) => return None,
            Ok(false) => {}
            Err(error) => return Some(error),
        }
    }
    None
}

/// No coordinator here vouches for a transaction: it must be open in the partition already, as Apache Kafka may have left it.
/// The first batch of one is only taken where nobody asks (`transaction.partition.verification.enable`; from version 12 on
/// clients always do).
fn transactional_origin(context: &RequestContext) -> AppendOrigin {
    let config = context.services.config();
    if context.version >= 12 || config.transaction_partition_verification_enable {
        AppendOrigin::OpenTransaction
    } else {
        AppendOrigin::Client
    }
}

/// A batch that is part of no transaction, as a coordinator would refuse it.
fn refuse_transactional(version: i16) -> Refused {
    let code = if version >= 11 {
        ErrorCode::TransactionAbortable
    } else {
        ErrorCode::InvalidTxnState
    };
    Error::from(code).into()
}

/// Kafka sends a text with faults of single records and with bytes that are no batch, and none otherwise.
fn shown_message(failed: &mut ProduceError) -> Option<StrBytes> {
    let is_shown =
        !failed.record_errors.is_empty() || failed.error.code == ErrorCode::CorruptMessage;
    let text = failed.error.message.take().filter(|_| is_shown)?;
    Some(StrBytes::from_string(text.into_owned()))
}

fn partition_response(index: i32, result: Result<AppendInfo, Refused>) -> PartitionProduceResponse {
    match result {
        Ok(info) => PartitionProduceResponse {
            index,
            base_offset: info.first_offset,
            log_append_time_ms: info.log_append_time_ms,
            log_start_offset: info.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(Refused {
            error: mut failed,
            log_start_offset,
        }) => PartitionProduceResponse {
            index,
            error_code: failed.error.code(),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset,
            error_message: shown_message(&mut failed),
            record_errors: failed
                .record_errors
                .into_iter()
                .map(|at| BatchIndexAndErrorMessage {
                    batch_index: at.batch_index,
                    batch_index_error_message: Some(StrBytes::from_string(at.message)),
                })
                .collect(),
            ..PartitionProduceResponse::default()
        },
    }
}
