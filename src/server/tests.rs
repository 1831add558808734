//! A whole broker in this process, asked over real sockets: framing, order of answers, what closes a connection.

mod listeners;
mod replication;
mod request_memory;
mod roles;
mod storage;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    MetadataRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tempfile::TempDir;

use super::Broker;
use crate::config::Config;
use crate::protocol::batch::BatchBuilder;
use crate::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use crate::protocol::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

const PRODUCE: (i16, i16) = (0, 9);
const FETCH: (i16, i16) = (1, 12);

/// A broker on a free port and an empty directory; both go with it.
struct Fixture {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
    address: SocketAddr,
    dir: TempDir,
}

impl Fixture {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().expect("temporary directory"), settings)
    }

    fn start_in(dir: TempDir, settings: &[(&str, &str)]) -> Self {
        let overrides = [
            (
                "listeners",
                "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0".to_owned(),
            ),
            ("advertised.listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
            ("log.dirs", dir.path().display().to_string()),
            ("ottla.http.listener", String::new()),
        ];
        let mut overrides = overrides
            .map(|(key, value)| (key.to_owned(), value))
            .to_vec();
        overrides.extend(
            settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let config = Config::load(None, &overrides).expect("settings of the test");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let broker = runtime
            .block_on(Broker::start(config))
            .expect("the broker starts");
        let mut addresses = broker.addresses().iter();
        let address = addresses.find(|(listener, _)| listener == "PLAINTEXT");
        let address = address.expect("a listener for clients").1;
        Self {
            runtime,
            broker: Some(broker),
            address,
            dir,
        }
    }

    fn restart(mut self) -> Self {
        self.stop();
        let Self { runtime, dir, .. } = self;
        drop(runtime);
        Self::start_in(dir, &[])
    }

    fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the listener is open");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout is not zero");
        stream.set_nodelay(true).expect("socket option");
        stream
    }
}

/// A framed request.
fn frame((key, version): (i16, i16), correlation_id: i32, flexible: bool, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut bytes = BytesMut::new();
    header
        .encode(&mut bytes, if flexible { 2 } else { 1 })
        .expect("header");
    bytes.extend_from_slice(body);
    let mut framed = (bytes.len() as u32).to_be_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    framed
}

fn request<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("request");
    frame(
        (R::KEY, version),
        correlation_id,
        R::header_version(version) == 2,
        &body,
    )
}

/// The next response: correlation id, and what follows it.
fn response(stream: &mut TcpStream) -> (i32, Bytes) {
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer");
    let mut body = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut body).expect("the whole answer");
    let id = i32::from_be_bytes(body[..4].try_into().expect("four bytes"));
    (id, Bytes::from(body).slice(4..))
}

fn create_topic(stream: &mut TcpStream, name: &'static str) {
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let create = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    stream.write_all(&request(&create, 4, 1)).expect("sent");
    let mut body = response(stream).1;
    let created = CreateTopicsResponse::decode(&mut body, 4).expect("response");
    assert_eq!(created.topics[0].error_code, 0);
}

fn produce(topic: &'static str, value: &str, correlation_id: i32) -> Vec<u8> {
    let request = produce_request(topic, value);
    let mut body = BytesMut::new();
    request.encode(&mut body, PRODUCE.1).expect("request");
    frame(PRODUCE, correlation_id, true, &body)
}

fn produce_request(topic: &'static str, value: &str) -> ProduceRequest {
    let mut batch = BatchBuilder::new();
    batch.append(1, None, Some(value.as_bytes()));
    let data = PartitionProduceData {
        index: 0,
        records: Some(batch.build()),
    };
    let topic = TopicProduceData {
        name: StrBytes::from_static_str(topic),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    }
}

fn fetch(topic: &'static str, fetch_offset: i64, max_wait_ms: i32, correlation_id: i32) -> Vec<u8> {
    let partition = FetchPartition {
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: StrBytes::from_static_str(topic),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let mut body = BytesMut::new();
    request.encode(&mut body, FETCH.1).expect("request");
    frame(FETCH, correlation_id, true, &body)
}

/// Error code and base offset.
fn produced(mut body: Bytes) -> (i16, i64) {
    let produced = ProduceResponse::decode(&mut body.split_off(1), PRODUCE.1).expect("response");
    let partition = &produced.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn produced_offset(body: Bytes) -> i64 {
    let (error_code, base_offset) = produced(body);
    assert_eq!(error_code, 0);
    base_offset
}

fn fetched_bytes(mut body: Bytes) -> usize {
    let fetched =
        FetchResponse::<Bytes>::decode(&mut body.split_off(1), FETCH.1).expect("response");
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.0.as_ref().map_or(0, Bytes::len)
}

/// Whether the broker closes the connection without another byte.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn requests_split_at_every_byte_are_answered() {
    let broker = Fixture::start();
    let mut stream = broker.connect();
    let bytes = request(&ApiVersionsRequest::default(), 0, 7);
    for at in 1..bytes.len() {
        stream.write_all(&bytes[..at]).expect("sent");
        std::thread::yield_now();
        stream.write_all(&bytes[at..]).expect("sent");
        let (id, mut body) = response(&mut stream);
        assert_eq!(id, 7);
        let versions = ApiVersionsResponse::decode(&mut body, 0).expect("response");
        assert!(versions.api_keys.len() > 30);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = Fixture::start();
    let mut stream = broker.connect();
    create_topic(&mut stream, "ordered");
    let mut burst = Vec::new();
    for id in 0..100 {
        burst.extend(match id % 4 {
            0 => request(&MetadataRequest::default(), 4, id),
            1 => fetch("ordered", 0, 0, id),
            _ => produce("ordered", "value", id),
        });
    }
    stream.write_all(&burst).expect("sent");
    let mut next_offset = 0;
    for id in 0..100 {
        let (answered, body) = response(&mut stream);
        assert_eq!(answered, id);
        if id % 4 >= 2 {
            assert_eq!(produced_offset(body), next_offset);
            next_offset += 1;
        }
    }
}

#[test]
fn an_append_wakes_the_fetch_that_waits_for_it() {
    let broker = Fixture::start();
    let mut consumer = broker.connect();
    create_topic(&mut consumer, "tail");
    consumer
        .write_all(&fetch("tail", 0, 60_000, 1))
        .expect("sent");
    let mut producer = broker.connect();
    producer
        .write_all(&produce("tail", "news", 2))
        .expect("sent");
    assert_eq!(produced_offset(response(&mut producer).1), 0);
    // The read timeout is far below the fetch's own: only the append can answer it.
    assert!(fetched_bytes(response(&mut consumer).1) > 0);
}

#[test]
fn what_cannot_be_parsed_closes_after_earlier_answers() {
    let broker = Fixture::start();
    let good = request(&ApiVersionsRequest::default(), 0, 1);
    let truncated = frame((3, 4), 2, false, &[]);
    for bad in [
        vec![0, 0, 0, 0],
        vec![0xff; 4],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame((999, 0), 2, false, &[]),
        frame((3, 99), 2, false, &[]),
        frame((0, 2), 2, false, &[]),
        truncated,
    ] {
        let mut stream = broker.connect();
        stream
            .write_all(&[&good[..], &bad[..], &good[..]].concat())
            .expect("sent");
        assert_eq!(response(&mut stream).0, 1, "{bad:?}");
        assert!(is_closed(&mut stream), "{bad:?}");
    }
    // Only ApiVersions answers a version it does not know, in version 0.
    let mut stream = broker.connect();
    stream
        .write_all(&frame((18, 99), 3, true, &[]))
        .expect("sent");
    let (id, mut body) = response(&mut stream);
    let versions = ApiVersionsResponse::decode(&mut body, 0).expect("response");
    assert_eq!(
        (id, versions.error_code, versions.api_keys.len()),
        (3, 35, 1)
    );
}

#[test]
fn topics_and_records_survive_a_restart() {
    let broker = Fixture::start();
    let mut stream = broker.connect();
    create_topic(&mut stream, "kept");
    stream
        .write_all(&produce("kept", "before", 1))
        .expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 0);
    let mut broker = broker.restart();
    let mut stream = broker.connect();
    stream.write_all(&fetch("kept", 0, 0, 2)).expect("sent");
    assert!(fetched_bytes(response(&mut stream).1) > 0);
    stream
        .write_all(&produce("kept", "after", 3))
        .expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 1);
    broker.stop();
    assert!(is_closed(&mut stream));
    assert!(broker.dir.path().join(".kafka_cleanshutdown").exists());
}

#[test]
fn idle_and_surplus_connections_are_closed() {
    let broker = Fixture::start_with(&[
        ("connections.max.idle.ms", "200"),
        ("max.connections.per.ip", "2"),
    ]);
    let (mut first, mut second) = (broker.connect(), broker.connect());
    for stream in [&mut first, &mut second] {
        stream
            .write_all(&request(&ApiVersionsRequest::default(), 0, 1))
            .expect("sent");
        assert_eq!(response(stream).0, 1);
    }
    assert!(is_closed(&mut broker.connect()), "the third of one address");
    // Nothing is sent any more: only the idle limit can close them before the read times out.
    let started = std::time::Instant::now();
    assert!(is_closed(&mut first) && is_closed(&mut second));
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn an_answer_that_nobody_reads_stops_the_broker_reading_too() {
    let broker = Fixture::start_with(&[("connections.max.idle.ms", "500")]);
    let mut stream = broker.connect();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .expect("timeout is not zero");
    let bytes = request(&ApiVersionsRequest::default(), 0, 1).repeat(1000);
    // Without back-pressure this would go on until memory is gone; with it the broker stops taking requests and,
    // as the answers stay unread, closes.
    let refused = (0..10_000).find_map(|_| stream.write_all(&bytes).err());
    assert!(refused.is_some());
}
