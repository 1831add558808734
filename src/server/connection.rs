//! One client connection: takes every complete frame that a read brings, answers in order, writes the answers
//! of one round with one system call. Spawned by the listener, one task each.
//!
//! Order: a request starts only when every earlier one is answered, except that Produce follows Produce: its
//! appends happen in order anyway, so acks=all waits overlap. Bounds: a frame by `socket.request.max.bytes` and by the time in
//! which it must get on, a connection's requests by [`FREE_BYTES`] and what it takes of the memory of all ([`RequestMemory`]),
//! unsent answers by [`BACKLOG_BYTES_MAX`] and the one that crosses it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::closing_order;
use super::request_memory::{Charge, RequestMemory};
use crate::api::{self, BoxFuture, Chunk, ConnectionInfo, Reply, ResponseFrame, Services};

/// What a read asks for at least, and at most: a frame's buffer grows with the bytes that have come, not with the size that was claimed.
const READ_CHUNK_BYTES: usize = 64 * 1024;
const READ_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// What the requests of a connection may hold uncounted: the room of a read, and as much that waits or is not complete.
const FREE_BYTES: usize = 2 * READ_CHUNK_BYTES;
/// What a frame that waits costs besides its bytes.
const FRAME_OVERHEAD_BYTES: usize = 128;
/// How much of a frame, or its rest, must come in [`Limits::frame_timeout`]. A line of 5 kbit/s is fast enough.
const FRAME_PROGRESS_BYTES: usize = 16 * 1024;
/// No further reading while this much waits to be handled or sent.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;
/// Most Produce frames that are appended together.
const RUN_FRAMES_MAX: usize = 256;

/// Limits shared by all connections of a broker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; also how long a peer may leave its answers unread.
    pub idle_max: Duration,
    /// How long a frame that has begun may stand still.
    pub frame_timeout: Duration,
    /// For requests beyond [`FREE_BYTES`] a connection.
    pub memory: Arc<RequestMemory>,
}

/// An answer in its place.
enum Slot {
    Ready(ResponseFrame),
    Waiting {
        answer: BoxFuture<Option<ResponseFrame>>,
        /// What its request holds meanwhile.
        request_bytes: usize,
    },
}

/// Serves `stream` until the peer leaves, misbehaves, idles too long, or `shutdown` is called.
pub async fn serve(
    stream: TcpStream,
    info: Arc<ConnectionInfo>,
    services: Arc<Services>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let peer = info.peer;
    let connection = Connection {
        info,
        services,
        charge: Charge::new(Arc::clone(&limits.memory)),
        input: BytesMut::new(),
        input_bytes_max: 0,
        progress: (Instant::now(), 0),
        frames: VecDeque::new(),
        request_bytes: 0,
        pending: VecDeque::new(),
        pending_is_produce: false,
        output: VecDeque::new(),
        output_bytes: 0,
        closing: false,
        refused: false,
        limits,
    };
    if let Err(error) = connection.run(stream, shutdown).await {
        debug!(%peer, %error, "connection closed");
    }
}

struct Connection {
    info: Arc<ConnectionInfo>,
    services: Arc<Services>,
    limits: Limits,
    /// Bytes of a frame that is not complete. Holds no memory while empty.
    input: BytesMut,
    /// The most that the buffer behind `input` has held: it keeps that while a large frame follows another.
    input_bytes_max: usize,
    /// When the frame in `input` last got on, and its bytes then.
    progress: (Instant, usize),
    /// Complete frames, without their size prefix, that wait for earlier answers.
    frames: VecDeque<Bytes>,
    /// Of `frames`, and of requests whose answers are pending.
    request_bytes: usize,
    /// Covers what requests hold.
    charge: Charge,
    /// Answers in order, from the first one that is not ready.
    pending: VecDeque<Slot>,
    /// Whether all of `pending` are Produce, so that another may follow.
    pending_is_produce: bool,
    output: VecDeque<Chunk>,
    output_bytes: usize,
    /// No further requests; what is pending and unsent still goes out.
    closing: bool,
    /// The input has ended, or a size came that is not taken: the frames before that are worked off, then it ends.
    refused: bool,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, shutdown: CancellationToken) -> io::Result<()> {
        let begins = closing_order::connection(stream);
        let Some(mut stream) = shutdown.run_until_cancelled(begins).await else {
            return Ok(());
        };
        let mut idle = Box::pin(tokio::time::sleep(self.limits.idle_max));
        let mut last_active = Instant::now();
        loop {
            self.handle_frames();
            // Good requests that came before a bad size are answered first.
            if self.refused && self.frames.is_empty() {
                self.closing = true;
            }
            self.release_ready();
            if self.write_output(&stream)? {
                last_active = Instant::now();
            }
            if self.closing && self.pending.is_empty() && self.output.is_empty() {
                return Ok(());
            }
            if !self.frames.is_empty()
                && self.may_start_next()
                && self.output_bytes < BACKLOG_BYTES_MAX
            {
                continue;
            }
            let counted = self.counted_bytes();
            let is_covered = self.charge.cover(counted);
            let wants_input = self.wants_input();
            let reads = wants_input && is_covered;
            self.watch_frame(&mut idle, reads);
            tokio::select! {
                biased;
                (reply, bytes) = next_pending(&mut self.pending), if !self.pending.is_empty() => {
                    self.request_bytes -= bytes;
                    match reply {
                        Some(frame) => self.push_output(frame),
                        None => self.abort(),
                    }
                },
                ready = stream.writable(), if !self.output.is_empty() => ready?,
                () = self.charge.wait(counted), if wants_input && !is_covered => {}
                ready = stream.readable(), if reads => {
                    ready?;
                    last_active = Instant::now();
                    if !self.read_input(&mut stream, last_active).await? {
                        // What was asked before the peer shut its side is still answered.
                        self.refused = true;
                    }
                }
                () = shutdown.cancelled(), if !self.closing => {
                    self.pending.retain(|slot| matches!(slot, Slot::Ready(_)) || self.pending_is_produce);
                    self.abort();
                }
                () = idle.as_mut() => {
                    if !self.rest_idle(&mut idle, last_active, reads) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Moves the deadline; `false` when the connection, or a frame in it, has been still for too long.
    fn rest_idle(&self, idle: &mut Pin<Box<Sleep>>, last_active: Instant, reads: bool) -> bool {
        let has_begun = reads && !self.input.is_empty();
        if has_begun && self.progress.0.elapsed() >= self.limits.frame_timeout {
            debug!(peer = %self.info.peer, "a frame does not get on");
            return false;
        }
        let waits_for_us = !self.pending.is_empty() && self.output.is_empty();
        let from = if waits_for_us {
            Instant::now()
        } else {
            last_active
        };
        idle.as_mut().reset(from + self.limits.idle_max);
        waits_for_us || last_active.elapsed() < self.limits.idle_max
    }

    /// Lets `idle` end in time for a frame that has begun. The timer may be early, so it moves once in [`Limits::frame_timeout`] at most.
    fn watch_frame(&mut self, idle: &mut Pin<Box<Sleep>>, reads: bool) {
        if self.input.is_empty() {
            return;
        }
        if !reads {
            // It does not get on because of us.
            self.progress.0 = Instant::now();
        }
        let deadline = self.progress.0 + self.limits.frame_timeout;
        if idle.deadline() > deadline {
            idle.as_mut().reset(deadline);
        }
    }

    /// While an answer is pending that the next request must wait for, no more is taken than is free: a frame that has been counted can
    /// start once it is complete, so that nobody holds the memory of all for as long as a Fetch of theirs waits.
    fn wants_input(&self) -> bool {
        !self.closing
            && !self.refused
            && self.output_bytes < BACKLOG_BYTES_MAX
            && (self.counted_bytes() == 0 || self.may_start_next())
    }

    /// What the memory of all must cover before the next read.
    fn counted_bytes(&self) -> usize {
        let input = self.input.len() + self.read_bytes();
        (self.request_bytes + input.max(self.input_bytes_max)).saturating_sub(FREE_BYTES)
    }

    /// Room of the next read; what the buffer has held already is covered.
    fn read_bytes(&self) -> usize {
        let have = self.input.len();
        let missing = peek_size(&self.input).map_or(0, |size| (size + 4).saturating_sub(have));
        missing
            .min(have)
            .clamp(READ_CHUNK_BYTES, READ_CHUNK_BYTES_MAX)
            .max(self.input_bytes_max.saturating_sub(have))
    }

    /// Reads what is there and cuts it into frames. `false` at the end of the stream.
    async fn read_input(&mut self, stream: &mut TcpStream, now: Instant) -> io::Result<bool> {
        let (have, room) = (self.input.len(), self.read_bytes());
        self.input.reserve(room);
        let mut input = (&mut self.input).limit(room);
        match std::future::poll_fn(|cx| Poll::Ready(read_once(stream, &mut input, cx))).await {
            Poll::Pending => return Ok(true),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(0)) => return Ok(false),
            Poll::Ready(Ok(_)) => {}
        }
        self.input_bytes_max = self.input_bytes_max.max(self.input.len());
        let is_next = self.cut_frames() || have == 0;
        if is_next || self.input.len() >= self.progress.1 + FRAME_PROGRESS_BYTES {
            self.progress = (now, self.input.len());
        }
        Ok(true)
    }

    /// Tells whether there was a complete one.
    fn cut_frames(&mut self) -> bool {
        let waiting = self.frames.len();
        while let Some(size) = peek_size(&self.input) {
            // Kafka closes without an answer on sizes it does not take.
            if size == 0 || size > self.limits.request_bytes_max {
                debug!(peer = %self.info.peer, size, "frame size out of bounds");
                self.refused = true;
                self.drop_input();
                break;
            }
            if self.input.len() < size + 4 {
                break;
            }
            self.input.advance(4);
            let frame = self.input.split_to(size).freeze();
            self.request_bytes += cost(&frame);
            self.frames.push_back(frame);
            // What follows a large frame does not keep its buffer, unless it needs that itself.
            if self.input_bytes_max > FREE_BYTES && peek_size(&self.input) <= Some(FREE_BYTES) {
                self.input = BytesMut::from(&self.input[..]);
                self.input_bytes_max = self.input.len();
            }
        }
        if self.input.is_empty() {
            self.drop_input();
        }
        if !self.may_start_next() {
            // A small frame that has to wait does not keep the buffer that it came in.
            for frame in self.frames.range_mut(waiting..) {
                *frame = Bytes::copy_from_slice(frame);
            }
        }
        self.frames.len() > waiting
    }

    fn drop_input(&mut self) {
        self.input = BytesMut::new();
        self.input_bytes_max = 0;
    }

    /// Asked also for a frame of which only the front is there.
    fn may_start_next(&self) -> bool {
        let next: &[u8] = match self.frames.front() {
            Some(frame) => frame,
            None => self.input.get(4..).unwrap_or_default(),
        };
        self.pending.is_empty() || (self.pending_is_produce && api::is_produce(next))
    }

    /// Starts every frame that may start now.
    fn handle_frames(&mut self) {
        while !self.closing
            && !self.frames.is_empty()
            && self.may_start_next()
            && self.output_bytes < BACKLOG_BYTES_MAX
        {
            if api::is_produce(&self.frames[0]) {
                self.handle_produce_run();
            } else if let Some(frame) = self.take_frame() {
                let bytes = cost(&frame);
                let reply = api::dispatch(&self.services, &self.info, frame);
                self.push_reply(reply, false, bytes);
            }
        }
    }

    /// Hands all Produce requests at the front over together: one append a partition, one buffer of answers.
    fn handle_produce_run(&mut self) {
        let mut run = Vec::with_capacity(self.frames.len().min(RUN_FRAMES_MAX));
        while run.len() < RUN_FRAMES_MAX
            && self.frames.front().is_some_and(|f| api::is_produce(f))
            && let Some(frame) = self.take_frame()
        {
            run.push(frame);
        }
        let mut replies = Vec::with_capacity(1);
        api::dispatch_produce_run(&self.services, &self.info, run, &mut replies);
        for reply in replies {
            if self.closing {
                break;
            }
            // The records are written: what waits is only their answer.
            self.push_reply(reply, true, 0);
        }
    }

    fn take_frame(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.request_bytes -= cost(&frame);
        Some(frame)
    }

    fn push_reply(&mut self, reply: Reply, is_produce: bool, request_bytes: usize) {
        match reply {
            Reply::Silent => {}
            Reply::Close => self.abort(),
            Reply::Now(frame) if self.pending.is_empty() => self.push_output(frame),
            Reply::Now(frame) => self.pending.push_back(Slot::Ready(frame)),
            Reply::Later(answer) => {
                self.pending_is_produce =
                    is_produce && (self.pending.is_empty() || self.pending_is_produce);
                self.request_bytes += request_bytes;
                self.pending.push_back(Slot::Waiting {
                    answer,
                    request_bytes,
                });
            }
        }
    }

    /// Takes no further request; earlier answers still go out.
    fn abort(&mut self) {
        self.closing = true;
        while self.take_frame().is_some() {}
        self.drop_input();
    }

    fn push_output(&mut self, frame: ResponseFrame) {
        for chunk in frame.chunks {
            self.output_bytes += chunk.size_bytes();
            self.output.push_back(chunk);
        }
    }

    /// Moves answers that are ready, up to the first that is not, to the output.
    fn release_ready(&mut self) {
        while matches!(self.pending.front(), Some(Slot::Ready(_))) {
            if let Some(Slot::Ready(frame)) = self.pending.pop_front() {
                self.push_output(frame);
            }
        }
    }

    /// Writes until all is out or the socket is full. Tells whether any byte went.
    fn write_output(&mut self, stream: &TcpStream) -> io::Result<bool> {
        let mut progress = false;
        loop {
            let more_follows = self.output.len() > 1;
            let Some(chunk) = self.output.front_mut() else {
                break;
            };
            if chunk.size_bytes() == 0 {
                self.output.pop_front();
                continue;
            }
            let result = stream.try_io(Interest::WRITABLE, || {
                write_chunk(stream, chunk, more_follows)
            });
            match result {
                Ok(written) => {
                    progress = true;
                    self.output_bytes -= written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(progress)
    }
}

/// Sends the front of `chunk` and shortens it by what went.
fn write_chunk(stream: &TcpStream, chunk: &mut Chunk, more_follows: bool) -> io::Result<usize> {
    match chunk {
        Chunk::Bytes(bytes) => {
            let more = if more_follows {
                SendFlags::MORE
            } else {
                SendFlags::empty()
            };
            let written = rustix::net::send(stream.as_fd(), bytes, more | SendFlags::NOSIGNAL)?;
            bytes.advance(written);
            Ok(written)
        }
        Chunk::File(range) => {
            let mut position = range.position;
            let written = rustix::fs::sendfile(
                stream.as_fd(),
                &*range.file,
                Some(&mut position),
                range.size_bytes,
            )?;
            if written == 0 {
                // The file was truncated under the answer: its size is on the wire, so only closing is left.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            range.position = position;
            range.size_bytes -= written;
            Ok(written)
        }
    }
}

/// Size of the frame at the front of `input`, if its prefix is there. Negative sizes come out enormous.
fn peek_size(input: &BytesMut) -> Option<usize> {
    let prefix = input.first_chunk::<4>()?;
    Some(usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(usize::MAX - 4))
}

/// One read. Tokio's `poll_read` knows that a short read emptied the socket, and saves the next system call.
fn read_once(
    stream: &mut TcpStream,
    input: &mut impl BufMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    std::pin::pin!(stream.read_buf(input)).poll(cx)
}

/// Waits for the first pending answer, takes it off, and returns it with the bytes that its request held.
async fn next_pending(pending: &mut VecDeque<Slot>) -> (Option<ResponseFrame>, usize) {
    let answered = match pending.front_mut() {
        Some(Slot::Waiting {
            answer,
            request_bytes,
        }) => (answer.await, *request_bytes),
        Some(Slot::Ready(frame)) => (Some(std::mem::take(frame)), 0),
        None => (None, 0),
    };
    pending.pop_front();
    answered
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}
