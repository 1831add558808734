//! Our messages against the codec crate, byte for byte, and hostile bytes.

use std::fmt::{Debug, Write as _};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes, VersionRange};

use super::fetch::{FetchRequest, FetchResponse};
use super::{
    add_raft_voter, broker_heartbeat, describe_log_dirs, list_offsets, metadata, offset_commit,
    offset_fetch, produce, write_txn_markers,
};
use crate::protocol::control_records::{
    EndTxnMarker, KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord,
    SnapshotHeaderRecord, VotersRecord,
};
use crate::protocol::group_records::{
    GroupMetadataKey, GroupMetadataValue, GroupRecordKey, GroupRecordValue, OffsetCommitKey,
    OffsetCommitValue,
};
use crate::protocol::header::RequestHeader;
use crate::protocol::metadata_records::{
    MetadataRecord, TopicRecord, decode_record, encode_record, encode_record_at,
};
use crate::protocol::sample::{Rng, Sample};
use crate::protocol::transaction_records::{TransactionLogKey, TransactionLogValue};
use crate::protocol::wire::{DecodeError, EncodeError};

/// What the tests need of a message of ours.
trait Ours: Sample + Debug + PartialEq + Sized {
    const RANGE: VersionRange;
    fn encoded(&self, version: i16) -> Result<Bytes, EncodeError>;
    fn decoded(bytes: &mut Bytes, version: i16) -> Result<Self, DecodeError>;
}

macro_rules! ours {
    ($($type:ty),* $(,)?) => { $(
        impl Ours for $type {
            const RANGE: VersionRange = <$type>::VERSIONS;
            fn encoded(&self, version: i16) -> Result<Bytes, EncodeError> {
                let mut buf = BytesMut::new();
                self.encode(&mut buf, version)?;
                Ok(buf.freeze())
            }
            fn decoded(bytes: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
                Self::decode(bytes, version)
            }
        }
    )* };
}

/// Expands `$then!(arguments type, ...)` with every message that `message!` defined outside the metadata records.
macro_rules! messages {
    ($then:ident $($arguments:tt)*) => {
        $then!($($arguments)*
            metadata::MetadataRequest,
            list_offsets::ListOffsetsRequest,
            list_offsets::ListOffsetsResponse,
            describe_log_dirs::DescribeLogDirsRequest,
            describe_log_dirs::DescribeLogDirsResponse,
            offset_commit::OffsetCommitRequest,
            offset_commit::OffsetCommitResponse,
            offset_fetch::OffsetFetchRequest,
            offset_fetch::OffsetFetchResponse,
            write_txn_markers::WriteTxnMarkersRequest,
            write_txn_markers::WriteTxnMarkersResponse,
            add_raft_voter::AddRaftVoterRequest,
            add_raft_voter::AddRaftVoterResponse,
            broker_heartbeat::BrokerHeartbeatRequest,
            broker_heartbeat::BrokerHeartbeatResponse,
            produce::ProduceRequest,
            produce::ProduceResponse,
            FetchRequest,
            FetchResponse<Bytes>,
            LeaderChangeMessage,
            SnapshotHeaderRecord,
            SnapshotFooterRecord,
            KRaftVersionRecord,
            VotersRecord,
            EndTxnMarker,
            OffsetCommitKey,
            OffsetCommitValue,
            GroupMetadataKey,
            GroupMetadataValue,
            TransactionLogKey,
            TransactionLogValue,
        );
    };
}

messages!(ours);

impl FetchResponse<Bytes> {
    fn encode(&self, buf: &mut BytesMut, version: i16) -> Result<(), EncodeError> {
        let chunks: Vec<Bytes> = self.clone().encode_chunks(version)?;
        buf.extend_from_slice(&chunks.concat());
        Ok(())
    }
}

/// Calls `check::<type>(arguments)` for every message.
macro_rules! for_each_message {
    ($check:ident $arguments:tt $($type:ty),* $(,)?) => { $( $check::<$type>$arguments; )* };
}

const SAMPLES: u64 = 100;

fn samples<T: Ours>() -> impl Iterator<Item = (u64, i16, T)> {
    (T::RANGE.min..=T::RANGE.max).flat_map(|version| {
        (0..SAMPLES).map(move |seed| (seed, version, T::sample(&mut Rng::new(seed), version)))
    })
}

fn round_trips<T: Ours>() {
    for (seed, version, message) in samples::<T>() {
        let mut bytes = message.encoded(version).expect("samples fit their version");
        let decoded = T::decoded(&mut bytes, version);
        assert_eq!(decoded, Ok(message), "version {version} seed {seed}");
        assert!(bytes.is_empty(), "version {version} seed {seed}");
    }
}

#[test]
fn every_message_round_trips_in_every_version() {
    messages!(for_each_message round_trips ());
}

fn agrees<O: Ours, T: Message + Encodable + Decodable>() {
    let name = std::any::type_name::<O>();
    for (seed, version, message) in samples::<O>() {
        if !(T::VERSIONS.min..=T::VERSIONS.max).contains(&version) {
            continue;
        }
        let bytes = message.encoded(version).expect("samples fit their version");
        let mut rest = bytes.clone();
        let theirs = T::decode(&mut rest, version)
            .unwrap_or_else(|e| panic!("{name} version {version} seed {seed}: {e}"));
        assert!(rest.is_empty(), "{name} version {version} seed {seed}");
        let mut again = BytesMut::new();
        theirs.encode(&mut again, version).expect("they decoded it");
        assert_eq!(again, bytes, "{name} version {version} seed {seed}");
    }
}

/// Lines of name, version and hex.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, version: i16, bytes: &[u8]) {
        let name = name.split('<').next().unwrap_or_default();
        let name = name.rsplit("::").next().unwrap_or_default();
        let _ = write!(self.0, "{name} {version} ");
        for byte in bytes {
            let _ = write!(self.0, "{byte:02x}");
        }
        self.0.push('\n');
    }
}

fn add_samples<T: Ours>(lines: &mut Lines) {
    for (_, version, message) in samples::<T>().step_by(5) {
        let bytes = message.encoded(version).expect("samples fit their version");
        lines.add(std::any::type_name::<T>(), version, &bytes);
    }
}

/// For `compat-tests/messages`, which has Kafka's own classes read and write them.
#[test]
fn samples_for_kafkas_own_classes() {
    let mut lines = Lines::default();
    messages!(for_each_message add_samples (&mut lines));
    for seed in 0..SAMPLES {
        for record in MetadataRecord::samples(&mut Rng::new(seed)) {
            for version in 0..=record.version() {
                let bytes = encode_record_at(&record, version).expect("exists");
                // Frame version, type and version take one byte each.
                lines.add(record.name(), version, &bytes[3..]);
            }
        }
    }
    assert!(lines.0.lines().count() > 5000);
    if let Some(path) = std::env::var_os("OTTLA_MESSAGE_SAMPLES") {
        std::fs::write(path, lines.0).expect("the file for samples can be written");
    }
}

#[test]
fn bytes_are_those_of_the_codec_crate() {
    agrees::<metadata::MetadataRequest, theirs::MetadataRequest>();
    agrees::<list_offsets::ListOffsetsRequest, theirs::ListOffsetsRequest>();
    agrees::<list_offsets::ListOffsetsResponse, theirs::ListOffsetsResponse>();
    agrees::<describe_log_dirs::DescribeLogDirsRequest, theirs::DescribeLogDirsRequest>();
    agrees::<describe_log_dirs::DescribeLogDirsResponse, theirs::DescribeLogDirsResponse>();
    agrees::<offset_commit::OffsetCommitRequest, theirs::OffsetCommitRequest>();
    agrees::<offset_commit::OffsetCommitResponse, theirs::OffsetCommitResponse>();
    agrees::<offset_fetch::OffsetFetchRequest, theirs::OffsetFetchRequest>();
    agrees::<offset_fetch::OffsetFetchResponse, theirs::OffsetFetchResponse>();
    agrees::<write_txn_markers::WriteTxnMarkersRequest, theirs::WriteTxnMarkersRequest>();
    agrees::<write_txn_markers::WriteTxnMarkersResponse, theirs::WriteTxnMarkersResponse>();
    agrees::<add_raft_voter::AddRaftVoterRequest, theirs::AddRaftVoterRequest>();
    agrees::<add_raft_voter::AddRaftVoterResponse, theirs::AddRaftVoterResponse>();
    agrees::<broker_heartbeat::BrokerHeartbeatRequest, theirs::BrokerHeartbeatRequest>();
    agrees::<broker_heartbeat::BrokerHeartbeatResponse, theirs::BrokerHeartbeatResponse>();
    agrees::<produce::ProduceRequest, theirs::ProduceRequest>();
    agrees::<produce::ProduceResponse, theirs::ProduceResponse>();
    agrees::<FetchRequest, theirs::FetchRequest>();
    agrees::<FetchResponse<Bytes>, theirs::FetchResponse>();
    // Not LeaderChangeMessage and VotersRecord: the crate reads their parts in the version that the field `version` names.
    agrees::<SnapshotHeaderRecord, theirs::SnapshotHeaderRecord>();
    agrees::<SnapshotFooterRecord, theirs::SnapshotFooterRecord>();
    agrees::<KRaftVersionRecord, theirs::KRaftVersionRecord>();
    agrees::<EndTxnMarker, theirs::EndTxnMarker>();
}

/// Decoding must not hold more memory than this for each byte of input, plus a little for the first element.
const AMPLIFICATION_MAX: u64 = 64;

fn mutate(bytes: &[u8], rng: &mut Rng) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.below(bytes.len());
        match rng.below(5) {
            0 => bytes[at] = rng.next() as u8,
            1 => bytes[at] = 0xff,
            2 => bytes[at] ^= 1 << rng.below(8),
            3 => bytes.truncate(at),
            _ => {
                // The largest counts, plain and compact.
                let bomb: &[u8] = if rng.below(2) == 0 {
                    &[0x7f, 0xff, 0xff, 0xff]
                } else {
                    &[0xff, 0xff, 0xff, 0xff, 0x07]
                };
                for (to, from) in bytes[at..].iter_mut().zip(bomb) {
                    *to = *from;
                }
            }
        }
    }
    bytes.into()
}

fn check_bounded(name: &str, bytes: &Bytes, decode: impl FnOnce()) {
    let limit = AMPLIFICATION_MAX * bytes.len() as u64 + 1024;
    let measured = allocation_counter::measure(decode);
    assert!(
        measured.bytes_max <= limit,
        "{name}: {} bytes for {} of input {bytes:?}",
        measured.bytes_max,
        bytes.len()
    );
}

fn survives<T: Ours>() {
    let name = std::any::type_name::<T>();
    for (seed, version, message) in samples::<T>() {
        let rng = &mut Rng::new(seed + 77);
        let encoded = message.encoded(version).expect("samples fit their version");
        for _ in 0..8 {
            let bytes = mutate(&encoded, rng);
            check_bounded(name, &bytes, || {
                let _ = T::decoded(&mut bytes.clone(), version);
            });
        }
        let noise: Bytes = (0..rng.below(64)).map(|_| rng.next() as u8).collect();
        check_bounded(name, &noise, || {
            let _ = T::decoded(&mut noise.clone(), version);
        });
        // Arrays of the smallest elements: the densest input there is.
        let dense: Bytes = vec![1; 1 + rng.below(2000)].into();
        check_bounded(name, &dense, || {
            let _ = T::decoded(&mut dense.clone(), version);
        });
    }
}

#[test]
fn hostile_bytes_neither_panic_nor_reserve_memory() {
    messages!(for_each_message survives ());
}

#[test]
fn every_prefix_is_truncated_not_misread() {
    fn check<T: Ours>() {
        for (_, version, message) in samples::<T>().step_by(17) {
            let bytes = message.encoded(version).expect("samples fit their version");
            for len in 0..bytes.len() {
                assert!(T::decoded(&mut bytes.slice(..len), version).is_err());
            }
        }
    }
    messages!(for_each_message check ());
}

#[test]
fn unknown_versions_are_refused() {
    fn check<T: Ours>() {
        for version in [T::RANGE.min - 1, T::RANGE.max + 1] {
            let message = T::sample(&mut Rng::new(1), version);
            let refused = Err(EncodeError::UnknownVersion(version));
            assert_eq!(message.encoded(version), refused);
            let bytes = Bytes::from_static(&[0; 64]);
            let refused = Err(DecodeError::UnknownVersion(version));
            assert_eq!(T::decoded(&mut bytes.clone(), version), refused);
        }
    }
    messages!(for_each_message check ());
}

#[test]
fn null_and_long_strings_are_refused_where_the_version_has_no_place() {
    let request = offset_fetch::OffsetFetchRequest {
        topics: None,
        ..Default::default()
    };
    assert_eq!(request.encoded(1), Err(EncodeError::UnexpectedNull));
    assert!(request.encoded(2).is_ok());
    let mut null_topics = Bytes::from_static(&[0, 1, b'g', 0xff, 0xff, 0xff, 0xff]);
    let refused = Err(DecodeError::UnexpectedNull);
    assert_eq!(
        offset_fetch::OffsetFetchRequest::decode(&mut null_topics, 1),
        refused
    );
    let long = offset_fetch::OffsetFetchRequest {
        group_id: StrBytes::from_string("g".repeat(40_000)),
        ..Default::default()
    };
    assert_eq!(long.encoded(5), Err(EncodeError::TooLong));
    assert!(long.encoded(6).is_ok());
}

#[test]
fn tags_come_in_order_and_unknown_ones_are_skipped() {
    let decode = |tail: &[u8]| {
        let mut bytes: Bytes = [&[0; 22][..], tail].concat().into();
        broker_heartbeat::BrokerHeartbeatRequest::decode(&mut bytes, 1).map(|_| bytes.len())
    };
    assert_eq!(decode(&[0]), Ok(0));
    assert_eq!(decode(&[1, 9, 2, 0xaa, 0xbb]), Ok(0));
    assert_eq!(decode(&[2, 0, 1, 1, 9, 1, 0xaa, 0xcc]), Ok(1));
    assert_eq!(decode(&[2, 9, 0, 9, 0]), Err(DecodeError::BadTags));
    assert_eq!(decode(&[2, 9, 0, 3, 0]), Err(DecodeError::BadTags));
    assert_eq!(decode(&[1, 9, 3, 0xaa]), Err(DecodeError::Truncated));
    // A known tag cannot read beyond its size.
    assert_eq!(decode(&[1, 0, 1, 2, 0, 0, 0]), Err(DecodeError::BadLength));
}

#[test]
fn a_produce_request_is_read_without_copying_its_records() {
    let partition = produce::PartitionProduceData {
        index: 3,
        records: Some(Bytes::from(vec![7; 100_000])),
    };
    let topic = produce::TopicProduceData {
        name: StrBytes::from_static_str("t"),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = produce::ProduceRequest {
        topic_data: vec![topic],
        ..Default::default()
    };
    let mut frame = request.encoded(12).expect("fits");
    // What a connection hands over: a slice that is shared already.
    let _connection = frame.clone();
    let measured = allocation_counter::measure(|| {
        let _ = produce::ProduceRequest::decode(&mut frame, 12).expect("just written");
    });
    // The list of topics and the list of partitions.
    assert_eq!(measured.count_total, 2);
    assert!(measured.bytes_total < 1000, "{}", measured.bytes_total);
}

#[test]
fn fetch_chunks_interleave_bytes_and_records_in_order() {
    #[derive(Debug, PartialEq)]
    enum Chunk {
        Bytes(usize),
        Records(usize),
    }
    struct Range(usize);
    impl crate::protocol::wire::Payload for Range {
        fn size_bytes(&self) -> usize {
            self.0
        }
    }
    impl From<Bytes> for Chunk {
        fn from(bytes: Bytes) -> Self {
            Self::Bytes(bytes.len())
        }
    }
    impl From<Range> for Chunk {
        fn from(range: Range) -> Self {
            Self::Records(range.0)
        }
    }
    let partition = |size: Option<usize>| super::fetch::PartitionData {
        records: crate::protocol::wire::Records(size.map(Range)),
        ..Default::default()
    };
    let topic = super::fetch::FetchableTopicResponse {
        partitions: vec![
            partition(Some(10)),
            partition(None),
            partition(Some(0)),
            partition(Some(7)),
        ],
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    let chunks: Vec<Chunk> = response.encode_chunks(4).expect("fits");
    // Version 4: throttle 4, topics 4, name 2, partitions 4; a partition is 22, its aborted 4 and its records 4.
    let expected = vec![
        Chunk::Bytes(14 + 30),
        Chunk::Records(10),
        Chunk::Bytes(90),
        Chunk::Records(7),
    ];
    assert_eq!(chunks, expected);
}

#[test]
fn metadata_records_round_trip_in_every_version() {
    for seed in 0..SAMPLES {
        for record in MetadataRecord::samples(&mut Rng::new(seed)) {
            let bytes = encode_record(&record);
            assert_eq!(
                decode_record(bytes.clone()),
                Ok(record.clone()),
                "seed {seed}"
            );
            for version in 0..record.version() {
                let older = encode_record_at(&record, version).expect("exists");
                let decoded = decode_record(older.clone()).expect("just written");
                assert_eq!(
                    encode_record_at(&decoded, version),
                    Ok(older),
                    "seed {seed}"
                );
            }
            let rng = &mut Rng::new(seed + 99);
            for _ in 0..20 {
                let hostile = mutate(&bytes, rng);
                check_bounded(record.name(), &hostile, || {
                    let _ = decode_record(hostile.clone());
                });
            }
        }
    }
}

#[test]
fn records_have_kafkas_frame() {
    let topic = TopicRecord {
        name: "foo".to_owned(),
        topic_id: uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
    };
    let bytes = encode_record(&topic.into());
    let expected =
        b"\x01\x02\x00\x04foo\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x00";
    assert_eq!(&bytes[..], expected);
    assert_eq!(
        decode_record(Bytes::from_static(&[1, 99, 0, 0])),
        Err(DecodeError::UnknownType(99))
    );
    assert_eq!(
        decode_record(Bytes::from_static(&[2, 20, 0, 0])),
        Err(DecodeError::UnknownFrame(2))
    );
    assert_eq!(
        decode_record(Bytes::from_static(&[1, 20, 1, 0])),
        Err(DecodeError::UnknownVersion(1))
    );
}

#[test]
fn group_records_keep_their_type_and_version() {
    let key = GroupRecordKey::OffsetCommit(OffsetCommitKey {
        group: "g".to_owned(),
        topic: "t".to_owned(),
        partition: 3,
    });
    let bytes = key.encode().expect("short");
    assert_eq!(&bytes[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
    assert_eq!(GroupRecordKey::decode(&bytes), Ok(key.clone()));
    let legacy = Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x03");
    assert_eq!(GroupRecordKey::decode(&legacy), Ok(key.clone()));
    let value = GroupRecordValue::OffsetCommit(OffsetCommitValue {
        offset: 5,
        commit_timestamp: 6,
        ..Default::default()
    });
    let bytes = value.encode(3).expect("short");
    let expected = b"\0\x03\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x06";
    assert_eq!(&bytes[..], expected);
    assert_eq!(GroupRecordValue::decode(&key, &bytes), Ok(value));
    for kind in 3..=23 {
        let newer = Bytes::copy_from_slice(&[0, kind, 1, 2, 3]);
        let other = GroupRecordKey::Other(i16::from(kind));
        assert_eq!(GroupRecordKey::decode(&newer), Ok(other));
    }
    let unknown = Bytes::from_static(&[0, 99]);
    assert_eq!(
        GroupRecordKey::decode(&unknown),
        Err(DecodeError::UnknownType(99))
    );
}

#[test]
fn request_headers_take_any_client_id() {
    let decode = |bytes: &'static [u8], flexible| {
        let mut frame = Bytes::from_static(bytes);
        RequestHeader::decode(&mut frame, flexible).map(|header| (header.client_id, frame.len()))
    };
    let fixed = |tail: &[u8]| [&[0, 3, 0, 9, 0, 0, 0, 7], tail].concat().leak() as &[u8];
    let text = |text: &str| Some(StrBytes::from_string(text.to_owned()));
    assert_eq!(decode(fixed(&[0xff, 0xff, 1]), false), Ok((None, 1)));
    assert_eq!(decode(fixed(&[0, 0]), false), Ok((text(""), 0)));
    assert_eq!(
        decode(fixed(&[0, 2, b'm', b'e', 0, 5]), true),
        Ok((text("me"), 1))
    );
    assert_eq!(
        decode(fixed(&[0, 1, 0xff]), false),
        Ok((text("\u{fffd}"), 0))
    );
    assert_eq!(
        decode(fixed(&[0, 0, 1, 7, 2, 1, 1]), true),
        Ok((text(""), 0))
    );
    assert_eq!(
        decode(fixed(&[0xff, 0xfe]), false),
        Err(DecodeError::BadLength)
    );
    assert_eq!(
        decode(fixed(&[0, 9, 1]), false),
        Err(DecodeError::Truncated)
    );
    assert_eq!(decode(&[0, 3, 0], false), Err(DecodeError::Truncated));
}
