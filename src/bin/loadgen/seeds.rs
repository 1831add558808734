//! Valid request frames of every API and version for the fuzzer. They come out of the codec crate's own decoders: a buffer
//! that makes up whatever is read from it leads every decoder along a valid path, and remembers what it made up.

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    self as m, FetchRequest, ProduceRequest, RequestHeader, UnregisterBrokerRequest,
};
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, Request, StrBytes};
use uuid::Uuid;

use crate::batch;
use crate::setup::topic_name;
use crate::stats::now_ms;
use crate::wire::frame;

/// The topics that made-up names hit now and then, by the length of the name.
pub const TOPICS: [&str; 2] = ["t0", "fuzz"];
/// A broker that does not exist, and may come to harm.
pub const PHANTOM: i32 = 1_000;
const BUDGET: usize = 600;
const TRIES: usize = 60;

/// A valid frame without its size.
#[derive(Clone)]
pub struct Seed {
    pub bytes: Vec<u8>,
    /// How many bytes at its front are left as they are.
    pub fixed: usize,
}

impl Seed {
    fn any(bytes: Vec<u8>) -> Self {
        Self { bytes, fixed: 0 }
    }

    pub fn key_and_version(&self) -> (i16, i16) {
        let field = |at: usize| i16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        (field(0), field(2))
    }
}

/// xorshift64*: small, fast, and the same everywhere for the same seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 up to `n`, `n` not included.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The buffer that makes up what is read from it.
struct Dream<'a> {
    rng: &'a mut Rng,
    topic_id: Uuid,
    made: Vec<u8>,
}

impl Dream<'_> {
    fn small(&mut self, values: &[i64]) -> i64 {
        if self.made.len() > BUDGET {
            0
        } else {
            self.rng.pick(values)
        }
    }

    fn made_up(&mut self, n: usize) -> Bytes {
        let n = n.min(1 << 16);
        let name = TOPICS.iter().find(|t| t.len() == n);
        let bytes = match name {
            Some(t) if self.rng.below(4) > 0 => t.as_bytes().to_vec(),
            _ => (0..n).map(|_| b'a' + self.rng.below(26) as u8).collect(),
        };
        self.made.extend_from_slice(&bytes);
        bytes.into()
    }
}

impl Buf for Dream<'_> {
    fn remaining(&self) -> usize {
        usize::MAX >> 8
    }

    fn chunk(&self) -> &[u8] {
        &[]
    }

    fn advance(&mut self, _: usize) {}

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let v = self.small(&[0, 0, 0, 1, 1, 2, 2, 3, 5]) as u8;
        self.made.put_u8(v);
        Ok(v)
    }

    fn try_get_i8(&mut self) -> Result<i8, TryGetError> {
        self.try_get_u8().map(|v| v as i8)
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        let v = self.small(&[0, 1, 2, 2, 4, 4, 7, -1]) as i16;
        self.made.put_i16(v);
        Ok(v)
    }

    fn try_get_u16(&mut self) -> Result<u16, TryGetError> {
        self.try_get_i16().map(|v| v as u16)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let v = self.small(&[0, 0, 1, 1, 1, 2, 3, 5, -1]) as i32;
        self.made.put_i32(v);
        Ok(v)
    }

    fn try_get_u32(&mut self) -> Result<u32, TryGetError> {
        self.try_get_i32().map(i32::cast_unsigned)
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        let v = self.small(&[0, 0, 1, -1, -2, 5, 1000, now_ms()]);
        self.made.put_i64(v);
        Ok(v)
    }

    fn try_get_f64(&mut self) -> Result<f64, TryGetError> {
        self.made.put_f64(1.5);
        Ok(1.5)
    }

    fn try_copy_to_slice(&mut self, dst: &mut [u8]) -> Result<(), TryGetError> {
        if dst.len() == 16 && self.rng.below(3) > 0 {
            let id = *self.topic_id.as_bytes();
            self.made.extend_from_slice(&id);
            dst.copy_from_slice(&id);
        } else {
            let bytes = self.made_up(dst.len());
            UninitSlice::new(dst)[..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

impl ByteBuf for Dream<'_> {
    fn peek_bytes(&mut self, r: std::ops::Range<usize>) -> Bytes {
        vec![0; r.len()].into()
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.made_up(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        if size > 1 << 16 {
            Err(NotEnoughBytesError)
        } else {
            Ok(self.made_up(size))
        }
    }
}

fn dreamt<R: Request + Message>(rng: &mut Rng, topic_id: Uuid, each: usize, out: &mut Vec<Seed>) {
    for version in R::VERSIONS.min..=R::VERSIONS.max {
        let mut got = 0;
        for _ in 0..TRIES {
            let mut dream = Dream {
                rng: &mut *rng,
                topic_id,
                made: Vec::new(),
            };
            if R::decode(&mut dream, version).is_err() {
                continue;
            }
            let body = dream.made;
            // The version after the newest known one is often the same on the wire.
            for v in [version, version + 1] {
                if v == version || (v > R::VERSIONS.max && got == 0) {
                    out.push(Seed::any(with_header::<R>(version, v, &body)));
                }
            }
            got += 1;
            if got == each {
                break;
            }
        }
    }
}

fn with_header<R: Request>(layout: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut buf = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")));
    // Encoding a header into memory cannot fail; an empty seed would do no harm either.
    if header
        .encode(&mut buf, <R as HeaderVersion>::header_version(layout))
        .is_err()
    {
        return Vec::new();
    }
    buf.put_slice(body);
    buf.to_vec()
}

fn produce(topic_id: Uuid, out: &mut Vec<Seed>) {
    let (small, _) = batch::filled(300, 10, now_ms());
    let (large, _) = batch::filled(4000, 100, now_ms());
    for version in ProduceRequest::VERSIONS.min..=ProduceRequest::VERSIONS.max {
        for bytes in [&small, &large] {
            let partition =
                PartitionProduceData::default().with_records(Some(Bytes::from(bytes.clone())));
            let mut topic = TopicProduceData::default().with_partition_data(vec![partition]);
            if version >= 13 {
                topic = topic.with_topic_id(topic_id);
            } else {
                topic = topic.with_name(topic_name(TOPICS[1]));
            }
            let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(100);
            push(&request.with_topic_data(vec![topic]), version, out);
        }
    }
}

fn fetch(topic_id: Uuid, out: &mut Vec<Seed>) {
    for version in FetchRequest::VERSIONS.min..=FetchRequest::VERSIONS.max {
        for (session, epoch) in [(0, -1), (0, 0)] {
            let partition = FetchPartition::default()
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(1000);
            let mut topic = FetchTopic::default().with_partitions(vec![partition]);
            if version >= 13 {
                topic = topic.with_topic_id(topic_id);
            } else {
                topic = topic.with_topic(topic_name(TOPICS[1]));
            }
            let mut request = FetchRequest::default()
                .with_max_wait_ms(5)
                .with_max_bytes(1000)
                .with_topics(vec![topic]);
            if version >= 7 {
                request = request.with_session_id(session).with_session_epoch(epoch);
            }
            push(&request, version, out);
        }
    }
}

/// The request in one version, unless that version lacks a field that is set.
pub fn push<R: Request>(request: &R, version: i16, out: &mut Vec<Seed>) {
    if let Ok(mut bytes) = frame(request, version, 7) {
        bytes.drain(..4);
        out.push(Seed::any(bytes));
    }
}

/// Which broker goes is fixed: one that runs alone obeys.
fn unregister(out: &mut Vec<Seed>) {
    let request = UnregisterBrokerRequest::default().with_broker_id(m::BrokerId(PHANTOM));
    push(&request, 0, out);
    if let Some(seed) = out.last_mut() {
        seed.fixed = seed.bytes.len() - 1;
    }
}

/// At most `each` made up for every version of every API.
pub fn all(rng: &mut Rng, topic_id: Uuid, each: usize) -> Vec<Seed> {
    let mut out = Vec::new();
    produce(topic_id, &mut out);
    fetch(topic_id, &mut out);
    unregister(&mut out);
    macro_rules! every {
        ($($request:ident)*) => { $( dreamt::<m::$request>(rng, topic_id, each, &mut out); )* };
    }
    every!(ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest
        SyncGroupRequest DescribeGroupsRequest ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest
        CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest InitProducerIdRequest
        OffsetForLeaderEpochRequest AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest
        WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest
        DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
        DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest
        DescribeDelegationTokenRequest DeleteGroupsRequest ElectLeadersRequest
        IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest VoteRequest BeginQuorumEpochRequest EndQuorumEpochRequest
        DescribeQuorumRequest AlterPartitionRequest UpdateFeaturesRequest EnvelopeRequest
        FetchSnapshotRequest DescribeClusterRequest DescribeProducersRequest
        BrokerRegistrationRequest BrokerHeartbeatRequest DescribeTransactionsRequest
        ListTransactionsRequest AllocateProducerIdsRequest ConsumerGroupHeartbeatRequest
        ConsumerGroupDescribeRequest ControllerRegistrationRequest
        GetTelemetrySubscriptionsRequest PushTelemetryRequest AssignReplicasToDirsRequest
        ListConfigResourcesRequest DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest
        ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest AddRaftVoterRequest
        RemoveRaftVoterRequest UpdateRaftVoterRequest InitializeShareGroupStateRequest
        ReadShareGroupStateRequest WriteShareGroupStateRequest DeleteShareGroupStateRequest
        ReadShareGroupStateSummaryRequest DescribeShareGroupOffsetsRequest
        AlterShareGroupOffsetsRequest DeleteShareGroupOffsetsRequest);
    out.retain(|seed| seed.bytes.len() >= 8);
    out
}
