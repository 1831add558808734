//! What a handler gives back, and its encoding into a frame. A response is bytes with, for Fetch, ranges of
//! log files spliced in: those go from the page cache to the socket without passing through the process.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::header;
use crate::protocol::messages::{
    add_raft_voter, broker_heartbeat, describe_log_dirs, list_offsets, metadata, offset_commit,
    offset_fetch, produce, write_txn_markers,
};
use crate::protocol::wire::Payload;

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// How a request ends.
pub enum Reply {
    /// The answer, ready to be written.
    Now(ResponseFrame),
    /// The answer comes later; its place in the order is fixed already. `None` closes the connection.
    Later(BoxFuture<Option<ResponseFrame>>),
    /// No bytes go back: Produce with acks=0.
    Silent,
    /// The connection is closed once earlier answers are out: what Kafka does with what it cannot parse.
    Close,
}

/// A range of a file, to be sent as it is.
#[derive(Clone, Debug)]
pub struct FileRange {
    pub file: Arc<File>,
    pub position: u64,
    pub size_bytes: usize,
}

/// Piece of an encoded response.
#[derive(Clone, Debug)]
pub enum Chunk {
    Bytes(Bytes),
    File(FileRange),
}

impl Chunk {
    pub fn size_bytes(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::File(range) => range.size_bytes,
        }
    }
}

/// One complete response on its way out, its size prefix included.
#[derive(Debug, Default)]
pub struct ResponseFrame {
    pub chunks: Vec<Chunk>,
}

impl ResponseFrame {
    /// Frames `body` behind the size and the response header.
    pub fn encode(framing: Framing, body: &impl ResponseBody) -> Result<Self, String> {
        let mut buffer = BytesMut::with_capacity(128);
        encode_into(&mut buffer, framing, body)?;
        Ok(Self {
            chunks: vec![Chunk::Bytes(buffer.freeze())],
        })
    }

    /// Frames a body that was encoded in pieces.
    pub fn from_chunks(framing: Framing, body: Vec<Chunk>) -> Self {
        let header_bytes = if framing.flexible { 5 } else { 4 };
        let size_bytes = header_bytes + body.iter().map(Chunk::size_bytes).sum::<usize>();
        let mut head = BytesMut::with_capacity(16);
        head.put_i32(i32::try_from(size_bytes).expect("answers are bounded by fetch.max.bytes"));
        header::encode_response_header(&mut head, framing.correlation_id, framing.flexible);
        let mut chunks = Vec::with_capacity(body.len() + 1);
        chunks.push(Chunk::Bytes(head.freeze()));
        chunks.extend(body);
        Self { chunks }
    }
}

/// What the frame around a response depends on.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    pub correlation_id: i32,
    pub version: i16,
    /// Response header version 1; never for ApiVersions.
    pub flexible: bool,
}

/// Appends one framed response to `buffer`; several may share a buffer and one write.
pub fn encode_into(
    buffer: &mut BytesMut,
    framing: Framing,
    body: &impl ResponseBody,
) -> Result<(), String> {
    let start = buffer.len();
    buffer.put_i32(0);
    header::encode_response_header(buffer, framing.correlation_id, framing.flexible);
    body.encode_body(buffer, framing.version)?;
    let size_bytes =
        i32::try_from(buffer.len() - start - 4).expect("responses are far below 2 GiB");
    buffer[start..start + 4].copy_from_slice(&size_bytes.to_be_bytes());
    Ok(())
}

/// A message that can be the body of a response.
pub trait ResponseBody {
    /// Fails where a field is set that `version` cannot carry: a bug in the handler.
    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String>;
}

impl<T: kafka_protocol::protocol::Encodable> ResponseBody for T {
    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
        self.encode(buffer, version).map_err(|e| e.to_string())
    }
}

/// The bytes of a request do not follow its schema. The connection is closed, as Kafka does.
#[derive(Debug, thiserror::Error)]
#[error("malformed {api} request: {reason}")]
pub struct Malformed {
    pub api: &'static str,
    pub reason: String,
}

/// A message that can be the body of a request.
pub trait RequestBody: Sized {
    type Response: ResponseBody;
    fn decode_body(body: &mut Bytes, version: i16) -> Result<Self, String>;
}

impl<T> RequestBody for T
where
    T: kafka_protocol::protocol::Request,
    T::Response: ResponseBody,
{
    type Response = T::Response;

    fn decode_body(body: &mut Bytes, version: i16) -> Result<Self, String> {
        T::decode(body, version).map_err(|e| e.to_string())
    }
}

/// Our own messages, where the crate is short of a version or too slow.
macro_rules! own_messages {
    ($($module:ident::{$request:ident, $response:ident},)*) => {$(
        impl RequestBody for $module::$request {
            type Response = $module::$response;

            fn decode_body(body: &mut Bytes, version: i16) -> Result<Self, String> {
                Self::decode(body, version).map_err(|e| e.to_string())
            }
        }

        impl ResponseBody for $module::$response {
            fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
                self.encode(buffer, version).map_err(|e| e.to_string())
            }
        }
    )*};
}

own_messages! {
    add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse},
    broker_heartbeat::{BrokerHeartbeatRequest, BrokerHeartbeatResponse},
    describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse},
    list_offsets::{ListOffsetsRequest, ListOffsetsResponse},
    offset_commit::{OffsetCommitRequest, OffsetCommitResponse},
    offset_fetch::{OffsetFetchRequest, OffsetFetchResponse},
    produce::{ProduceRequest, ProduceResponse},
    write_txn_markers::{WriteTxnMarkersRequest, WriteTxnMarkersResponse},
}

impl RequestBody for metadata::MetadataRequest {
    type Response = kafka_protocol::messages::MetadataResponse;

    fn decode_body(body: &mut Bytes, version: i16) -> Result<Self, String> {
        Self::decode(body, version).map_err(|e| e.to_string())
    }
}

impl Payload for FileRange {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl From<FileRange> for Chunk {
    fn from(range: FileRange) -> Self {
        Self::File(range)
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
