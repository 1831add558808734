//! One blocking connection to a broker: typed set-up requests through the codec crate, raw frames for the load itself.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// Anything that ends a run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T> = Result<T, Failure>;

const CLIENT_ID: &str = "loadgen";

pub struct Connection {
    pub stream: TcpStream,
    next_correlation_id: i32,
}

impl Connection {
    pub fn open(broker: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self {
            stream,
            next_correlation_id: 1,
        })
    }

    /// Sends one request and decodes its answer.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> Outcome<R::Response> {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.stream.write_all(&frame(request, version, id)?)?;
        let mut answer = Bytes::from(self.read_frame()?);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))?;
        if header.correlation_id != id {
            return Err(format!("correlation id {} for {id}", header.correlation_id).into());
        }
        Ok(R::Response::decode(&mut answer, version)?)
    }

    /// The next answer without its size.
    pub fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        read_frame(&mut self.stream)
    }
}

pub fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut body = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// A whole request frame, size included.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Outcome<Vec<u8>> {
    let mut buf = BytesMut::new();
    buf.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    header.encode(&mut buf, R::header_version(version))?;
    request.encode(&mut buf, version)?;
    let size = (buf.len() - 4) as u32;
    (&mut buf[0..4]).put_u32(size);
    Ok(buf.to_vec())
}

/// Header and start of a flexible raw request.
fn raw_header(key: ApiKey, version: i16) -> Vec<u8> {
    let mut buf = vec![0; 4];
    buf.put_i16(key as i16);
    buf.put_i16(version);
    buf.put_i32(0);
    buf.put_i16(CLIENT_ID.len() as i16);
    buf.put_slice(CLIENT_ID.as_bytes());
    buf.put_u8(0); // no tags
    buf
}

fn finish(mut buf: Vec<u8>) -> Vec<u8> {
    let size = (buf.len() - 4) as u32;
    buf[0..4].copy_from_slice(&size.to_be_bytes());
    buf
}

fn put_varint(buf: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        buf.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    buf.put_u8(n as u8);
}

fn put_compact_string(buf: &mut Vec<u8>, s: &str) {
    put_varint(buf, s.len() as u32 + 1);
    buf.put_slice(s.as_bytes());
}

/// A Produce v9 frame with one batch for one partition. The batch is the last thing but three bytes of tags.
pub fn produce_frame(topic: &str, partition: i32, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut buf = raw_header(ApiKey::Produce, 9);
    buf.put_u8(0); // transactional id null
    buf.put_i16(acks);
    buf.put_i32(30_000);
    buf.put_u8(2);
    put_compact_string(&mut buf, topic);
    buf.put_u8(2);
    buf.put_i32(partition);
    put_varint(&mut buf, batch.len() as u32 + 1);
    buf.put_slice(batch);
    buf.put_slice(&[0, 0, 0]);
    finish(buf)
}

/// Where the batch starts in a frame of `produce_frame`.
pub fn batch_position(frame: &[u8], batch_size: usize) -> usize {
    frame.len() - 3 - batch_size
}

/// What a Fetch v12 asks of one partition.
pub struct FetchLimits {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
}

/// A Fetch v12 frame without a session for one partition.
pub fn fetch_frame(topic: &str, partition: i32, offset: i64, limits: &FetchLimits) -> Vec<u8> {
    let mut buf = raw_header(ApiKey::Fetch, 12);
    buf.put_i32(-1); // a consumer
    buf.put_i32(limits.max_wait_ms);
    buf.put_i32(limits.min_bytes);
    buf.put_i32(limits.max_bytes);
    buf.put_u8(0); // read uncommitted
    buf.put_i32(0);
    buf.put_i32(-1); // no session
    buf.put_u8(2);
    put_compact_string(&mut buf, topic);
    buf.put_u8(2);
    buf.put_i32(partition);
    buf.put_i32(-1); // current leader epoch
    buf.put_i64(offset);
    buf.put_i32(-1); // last fetched epoch
    buf.put_i64(-1); // log start offset
    buf.put_i32(limits.max_bytes);
    buf.put_slice(&[0, 0]); // tags
    buf.put_u8(1); // no forgotten topics
    buf.put_u8(1); // rack ""
    buf.put_u8(0);
    finish(buf)
}

fn take_varint(buf: &mut &[u8]) -> Option<u32> {
    let mut n = 0u32;
    for shift in (0..35).step_by(7) {
        if !buf.has_remaining() {
            return None;
        }
        let b = buf.get_u8();
        n |= u32::from(b & 0x7f).checked_shl(shift)?;
        if b & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn skip(buf: &mut &[u8], n: usize) -> Option<()> {
    (buf.len() >= n).then(|| buf.advance(n))
}

/// Error code and base offset of a Produce v9 answer (without its size).
pub fn produce_answer(mut body: &[u8]) -> Option<(i16, i64)> {
    let buf = &mut body;
    skip(buf, 4)?;
    (take_varint(buf)? == 0).then_some(())?;
    take_varint(buf)?;
    let name = take_varint(buf)? as usize;
    skip(buf, name - 1)?;
    take_varint(buf)?;
    skip(buf, 4)?;
    (buf.len() >= 10).then(|| (buf.get_i16(), buf.get_i64()))
}

pub struct FetchAnswer {
    pub error: i16,
    pub high_watermark: i64,
    /// Where the records are in the body, possibly with a part of a batch at the end.
    pub records: std::ops::Range<usize>,
}

/// The one partition of a Fetch v12 answer (without its size).
pub fn fetch_answer(body: &[u8]) -> Option<FetchAnswer> {
    let mut rest = body;
    let buf = &mut rest;
    skip(buf, 4)?;
    take_varint(buf)?;
    skip(buf, 4)?;
    (buf.len() >= 2).then_some(())?;
    let top = buf.get_i16();
    skip(buf, 4)?;
    let topics = take_varint(buf)?;
    if top != 0 || topics != 2 {
        return Some(FetchAnswer {
            error: top,
            high_watermark: -1,
            records: 0..0,
        });
    }
    let name = take_varint(buf)? as usize;
    skip(buf, name - 1)?;
    take_varint(buf)?;
    skip(buf, 4)?;
    (buf.len() >= 26).then_some(())?;
    let error = buf.get_i16();
    let high_watermark = buf.get_i64();
    skip(buf, 16)?;
    let aborted = take_varint(buf)?;
    skip(buf, (aborted.max(1) as usize - 1) * 17)?;
    skip(buf, 4)?;
    let size = take_varint(buf)?.max(1) as usize - 1;
    let start = body.len() - buf.len();
    (buf.len() >= size).then_some(FetchAnswer {
        error,
        high_watermark,
        records: start..start + size,
    })
}
