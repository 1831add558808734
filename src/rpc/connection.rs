//! The task behind a [`super::Peer`]: connects, writes what is queued, matches answers to requests.
//!
//! ```text
//! idle --(a request)--> connecting --> connected --(end of stream, bad answer, overdue request)--> idle
//!                            |failed: everything queued fails
//!                            +--> resting --(50 ms doubling to 1 s)--> idle
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use super::{RpcError, Settings};
use crate::protocol::wire::Reader;

/// Room that a read asks for.
const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Where the correlation id stands in a frame's head.
const CORRELATION_ID: std::ops::Range<usize> = 8..12;

/// A request on its way.
pub(super) struct Outgoing {
    /// Size prefix and request header.
    pub(super) head: BytesMut,
    pub(super) body: Bytes,
    /// Response header version 1.
    pub(super) flexible: bool,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Bytes, RpcError>>,
}

/// A request that was written, or is about to be.
struct InFlight {
    correlation_id: i32,
    flexible: bool,
    deadline: Instant,
    reply: oneshot::Sender<Result<Bytes, RpcError>>,
}

/// The connection and its queue.
pub(super) struct Connection {
    target: Arc<str>,
    address: (String, u16),
    settings: Settings,
    queue: mpsc::Receiver<Outgoing>,
    backoff: Duration,
    connect_timeout: Duration,
    next_correlation_id: i32,
    /// In the order of sending, which is the order of the answers. Bounded by `in_flight_max`.
    in_flight: VecDeque<InFlight>,
}

impl Connection {
    pub(super) fn new(
        target: Arc<str>,
        address: (String, u16),
        settings: Settings,
        queue: mpsc::Receiver<Outgoing>,
    ) -> Self {
        Self {
            target,
            address,
            backoff: settings.backoff_min,
            connect_timeout: settings.connect_timeout,
            settings,
            queue,
            next_correlation_id: 0,
            in_flight: VecDeque::new(),
        }
    }

    /// Ends when the last peer is gone.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            if first.reply.is_closed() {
                continue;
            }
            let (host, port) = &self.address;
            let connecting = connect(host, *port, self.settings.receive_buffer_bytes);
            let connected = tokio::time::timeout(self.connect_timeout, connecting).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    self.backoff = self.settings.backoff_min;
                    self.connect_timeout = self.settings.connect_timeout;
                    self.serve(stream, first).await;
                }
                Err(error) => self.rest(first, &error.to_string()).await,
            }
        }
    }

    /// Fails what is queued, and lets some time pass before the next attempt.
    async fn rest(&mut self, first: Outgoing, reason: &str) {
        debug!(target_node = %self.target, reason, "connection could not be made");
        let error = RpcError::Unreachable {
            target: Arc::clone(&self.target),
            reason: reason.into(),
        };
        let _ = first.reply.send(Err(error.clone()));
        while let Ok(queued) = self.queue.try_recv() {
            let _ = queued.reply.send(Err(error.clone()));
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(self.settings.backoff_max);
        self.connect_timeout = self.settings.next_connect_timeout(self.connect_timeout);
    }

    async fn serve(&mut self, stream: TcpStream, first: Outgoing) {
        let broken = self.exchange(stream, first).await;
        let error = RpcError::Disconnected {
            target: Arc::clone(&self.target),
            reason: broken.to_string().into(),
        };
        if !self.in_flight.is_empty() {
            debug!(target_node = %self.target, %error, "connection broke");
        }
        for waiting in self.in_flight.drain(..) {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    /// Writes and reads until the connection is of no more use; tells why.
    async fn exchange(&mut self, mut stream: TcpStream, first: Outgoing) -> io::Error {
        let (mut reader, mut writer) = stream.split();
        let mut input = BytesMut::new();
        let mut output = BytesMut::new();
        self.enqueue(first, &mut output);
        loop {
            let overdue = self.in_flight.front().map(|oldest| oldest.deadline);
            let wants_more = self.in_flight.len() < self.settings.in_flight_max;
            input.reserve(missing_bytes(&input).clamp(1, READ_CHUNK_BYTES));
            let done = tokio::select! {
                written = writer.write_buf(&mut output), if !output.is_empty() => written.map(drop),
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => self.take_answers(&mut input),
                    Err(error) => Err(error),
                },
                next = self.queue.recv(), if wants_more => match next {
                    Some(next) => {
                        self.enqueue(next, &mut output);
                        Ok(())
                    }
                    None => return io::Error::other("nobody uses it"),
                },
                // Answers come in order: behind an overdue one all others are late too.
                () = tokio::time::sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    Err(io::ErrorKind::TimedOut.into())
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn enqueue(&mut self, mut request: Outgoing, output: &mut BytesMut) {
        // Its caller has given up: sending it would only make others wait.
        if request.reply.is_closed() {
            return;
        }
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        request.head[CORRELATION_ID].copy_from_slice(&correlation_id.to_be_bytes());
        output.extend_from_slice(&request.head);
        output.extend_from_slice(&request.body);
        self.in_flight.push_back(InFlight {
            correlation_id,
            flexible: request.flexible,
            deadline: request.deadline,
            reply: request.reply,
        });
    }

    /// Hands out every complete answer of `input`.
    fn take_answers(&mut self, input: &mut BytesMut) -> io::Result<()> {
        while let Some(size) = peek_size(input) {
            if size > self.settings.response_bytes_max {
                return Err(bad(format!("an answer of {size} bytes")));
            }
            if input.len() < size + 4 {
                return Ok(());
            }
            input.advance(4);
            let mut frame = input.split_to(size).freeze();
            let Some(request) = self.in_flight.pop_front() else {
                return Err(bad("an answer that nothing was asked for".into()));
            };
            match take_header(&mut frame, request.correlation_id, request.flexible) {
                Ok(()) => drop(request.reply.send(Ok(frame))),
                Err(error) => {
                    self.in_flight.push_front(request);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Connects to the first of the host's addresses that answers. The buffer is set before: the window of a connection follows from it.
pub(super) async fn connect(
    host: &str,
    port: u16,
    receive_buffer_bytes: Option<u32>,
) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(size) = receive_buffer_bytes {
            socket.set_recv_buffer_size(size)?;
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bad(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Takes the response header off, which must have that correlation id.
pub(super) fn take_header(frame: &mut Bytes, expected: i32, flexible: bool) -> io::Result<()> {
    let correlation_id = frame.try_get_i32().map_err(|e| bad(e.to_string()))?;
    if correlation_id != expected {
        return Err(bad(format!(
            "correlation id {correlation_id} where {expected} was due"
        )));
    }
    if flexible {
        let mut reader = Reader::new(frame);
        reader
            .tagged_fields(|_, _| Ok(()))
            .map_err(|e| bad(e.to_string()))?;
        let read = reader.position();
        frame.advance(read);
    }
    Ok(())
}

/// Size of the frame at the front, if its prefix is there. Negative sizes come out enormous.
fn peek_size(input: &BytesMut) -> Option<usize> {
    let prefix = input.first_chunk::<4>()?;
    Some(usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(usize::MAX - 4))
}

/// What the frame at the front still lacks.
fn missing_bytes(input: &BytesMut) -> usize {
    peek_size(input).map_or(READ_CHUNK_BYTES, |size| {
        (size + 4).saturating_sub(input.len())
    })
}
