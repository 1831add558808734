//! What a handler gives back, and its encoding into a frame. A response is bytes with, for Fetch, ranges of
//! log files spliced in: those go from the page cache to the socket without passing through the process.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

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
    /// Frames `body` behind the size and the response header. `flexible` selects response header version 1.
    pub fn encode<B: ResponseBody>(
        correlation_id: i32,
        flexible: bool,
        body: &B,
        version: i16,
    ) -> Result<Self, String> {
        let mut buffer = BytesMut::with_capacity(128);
        encode_into(&mut buffer, correlation_id, flexible, body, version)?;
        Ok(Self { chunks: vec![Chunk::Bytes(buffer.freeze())] })
    }

    /// Frames a body that was encoded in pieces.
    pub fn from_chunks(correlation_id: i32, flexible: bool, body: Vec<Chunk>) -> Self {
        let header_bytes = if flexible { 5 } else { 4 };
        let size_bytes = header_bytes + body.iter().map(Chunk::size_bytes).sum::<usize>();
        let mut head = BytesMut::with_capacity(16);
        head.put_i32(i32::try_from(size_bytes).expect("answers are bounded by fetch.max.bytes"));
        head.put_i32(correlation_id);
        if flexible {
            head.put_u8(0);
        }
        let mut chunks = Vec::with_capacity(body.len() + 1);
        chunks.push(Chunk::Bytes(head.freeze()));
        chunks.extend(body);
        Self { chunks }
    }
}

/// Appends one framed response to `buffer`; several may share a buffer and one write.
pub fn encode_into(
    buffer: &mut BytesMut,
    correlation_id: i32,
    flexible: bool,
    body: &impl ResponseBody,
    version: i16,
) -> Result<(), String> {
    let start = buffer.len();
    buffer.put_i32(0);
    buffer.put_i32(correlation_id);
    if flexible {
        buffer.put_u8(0);
    }
    body.encode_body(buffer, version)?;
    let size_bytes = i32::try_from(buffer.len() - start - 4).expect("responses are far below 2 GiB");
    buffer[start..start + 4].copy_from_slice(&size_bytes.to_be_bytes());
    Ok(())
}

/// A message that can be the body of a response.
pub trait ResponseBody {
    /// Fails where a field is set that `version` cannot carry: a bug in the handler.
    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String>;
    /// Whether the version uses tagged fields, which also decides the response header's version.
    fn is_flexible(version: i16) -> bool;
}

impl<T> ResponseBody for T
where
    T: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion,
{
    fn encode_body(&self, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
        self.encode(buffer, version).map_err(|e| e.to_string())
    }

    fn is_flexible(version: i16) -> bool {
        T::header_version(version) > 0
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
