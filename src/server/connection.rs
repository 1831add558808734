//! One client connection: takes every complete frame that a read brings, answers in order, writes the answers
//! of one round with one system call. Spawned by the listener, one task each.
//!
//! Order: a request starts only when every earlier one is answered, except that Produce follows Produce: its
//! appends happen in order anyway, so acks=all waits overlap. Bounds: a frame by `socket.request.max.bytes`, all
//! large frames together by the memory pool, decoded-ahead bytes and unsent bytes per connection by the consts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::api::{self, BoxFuture, Chunk, ConnectionInfo, Reply, ResponseFrame, Services};

/// What a read asks for while no frame is partly there.
const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Frames up to this size need no permit of the memory pool.
const SMALL_FRAME_BYTES: usize = 64 * 1024;
/// No further reading while this much waits to be handled or sent.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;
/// Most Produce frames that are appended together.
const RUN_FRAMES_MAX: usize = 256;
/// Unit of the memory pool's permits.
const PERMIT_BYTES: usize = 1024;

/// Limits shared by all connections of a broker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; also how long a peer may leave its answers unread.
    pub idle_max: Duration,
    /// Permits of [`PERMIT_BYTES`] for frames above [`SMALL_FRAME_BYTES`].
    pub memory: Arc<Semaphore>,
}

/// A semaphore for `bytes` of request memory.
pub fn memory_pool(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(
        (bytes / PERMIT_BYTES).min(Semaphore::MAX_PERMITS),
    ))
}

/// A complete request frame, its size prefix taken off.
struct Frame {
    bytes: Bytes,
    /// Held until the request is handled.
    permit: Option<OwnedSemaphorePermit>,
}

/// An answer in its place.
enum Slot {
    Ready(ResponseFrame),
    Waiting(BoxFuture<Option<ResponseFrame>>),
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
        input: BytesMut::new(),
        frames: VecDeque::new(),
        frame_bytes: 0,
        permit: None,
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
    /// Complete frames that wait for earlier answers.
    frames: VecDeque<Frame>,
    frame_bytes: usize,
    /// Permit of the frame that `input` is collecting.
    permit: Option<OwnedSemaphorePermit>,
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
    async fn run(mut self, mut stream: TcpStream, shutdown: CancellationToken) -> io::Result<()> {
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
            let wants_permit = self.frame_wants_permit();
            tokio::select! {
                biased;
                reply = next_pending(&mut self.pending), if !self.pending.is_empty() => match reply {
                    Some(frame) => self.push_output(frame),
                    None => self.abort(),
                },
                ready = stream.writable(), if !self.output.is_empty() => ready?,
                permit = acquire(&self.limits.memory, wants_permit.unwrap_or(0)), if wants_permit.is_some() => {
                    self.permit = permit;
                }
                ready = stream.readable(), if wants_permit.is_none() && self.wants_input() => {
                    ready?;
                    last_active = Instant::now();
                    if !self.read_input(&mut stream).await? {
                        // What was asked before the peer shut its side is still answered.
                        self.refused = true;
                    }
                }
                () = shutdown.cancelled(), if !self.closing => {
                    self.pending.retain(|slot| matches!(slot, Slot::Ready(_)) || self.pending_is_produce);
                    self.abort();
                }
                () = idle.as_mut() => {
                    if !self.rest_idle(&mut idle, last_active) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Moves the idle deadline; `false` when the connection has been still for too long.
    fn rest_idle(&self, idle: &mut Pin<Box<Sleep>>, last_active: Instant) -> bool {
        let waits_for_us = !self.pending.is_empty() && self.output.is_empty();
        let from = if waits_for_us {
            Instant::now()
        } else {
            last_active
        };
        idle.as_mut().reset(from + self.limits.idle_max);
        waits_for_us || last_active.elapsed() < self.limits.idle_max
    }

    fn wants_input(&self) -> bool {
        !self.closing
            && !self.refused
            && self.frame_bytes < BACKLOG_BYTES_MAX
            && self.output_bytes < BACKLOG_BYTES_MAX
    }

    /// Size of the frame being collected, if it is large and has no permit.
    fn frame_wants_permit(&self) -> Option<usize> {
        let size = peek_size(&self.input)?;
        (size > SMALL_FRAME_BYTES && self.permit.is_none() && !self.closing).then_some(size)
    }

    /// Reads what is there and cuts it into frames. `false` at the end of the stream.
    async fn read_input(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        let missing =
            peek_size(&self.input).map_or(0, |size| (size + 4).saturating_sub(self.input.len()));
        // A large frame's buffer grows with the bytes that have come, not with the size that was claimed.
        self.input.reserve(
            missing
                .min(self.input.len().max(READ_CHUNK_BYTES))
                .max(READ_CHUNK_BYTES),
        );
        match std::future::poll_fn(|cx| Poll::Ready(read_once(stream, &mut self.input, cx))).await {
            Poll::Pending => return Ok(true),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(0)) => return Ok(false),
            Poll::Ready(Ok(_)) => {}
        }
        self.cut_frames();
        Ok(true)
    }

    fn cut_frames(&mut self) {
        while let Some(size) = peek_size(&self.input) {
            // Kafka closes without an answer on sizes it does not take.
            if size == 0 || size > self.limits.request_bytes_max {
                debug!(peer = %self.info.peer, size, "frame size out of bounds");
                self.refused = true;
                self.input = BytesMut::new();
                return;
            }
            if self.input.len() < size + 4 {
                return;
            }
            self.input.advance(4);
            let bytes = self.input.split_to(size).freeze();
            self.frame_bytes += size;
            self.frames.push_back(Frame {
                bytes,
                permit: self.permit.take(),
            });
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    fn may_start_next(&self) -> bool {
        let next_is_produce = self
            .frames
            .front()
            .is_some_and(|f| api::is_produce(&f.bytes));
        self.pending.is_empty() || (self.pending_is_produce && next_is_produce)
    }

    /// Starts every frame that may start now.
    fn handle_frames(&mut self) {
        while !self.closing
            && !self.frames.is_empty()
            && self.may_start_next()
            && self.output_bytes < BACKLOG_BYTES_MAX
        {
            if api::is_produce(&self.frames[0].bytes) {
                self.handle_produce_run();
            } else if let Some(frame) = self.take_frame() {
                let reply = api::dispatch(&self.services, &self.info, frame.bytes);
                self.push_reply(reply, false);
            }
        }
    }

    /// Hands all Produce requests at the front over together: one append a partition, one buffer of answers.
    fn handle_produce_run(&mut self) {
        let mut run = Vec::with_capacity(self.frames.len().min(RUN_FRAMES_MAX));
        let mut permits = Vec::new();
        while run.len() < RUN_FRAMES_MAX
            && self
                .frames
                .front()
                .is_some_and(|f| api::is_produce(&f.bytes))
            && let Some(frame) = self.take_frame()
        {
            run.push(frame.bytes);
            permits.extend(frame.permit);
        }
        let mut replies = Vec::with_capacity(1);
        api::dispatch_produce_run(&self.services, &self.info, run, &mut replies);
        for reply in replies {
            if self.closing {
                break;
            }
            self.push_reply(reply, true);
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.frame_bytes -= frame.bytes.len();
        Some(frame)
    }

    fn push_reply(&mut self, reply: Reply, is_produce: bool) {
        match reply {
            Reply::Silent => {}
            Reply::Close => self.abort(),
            Reply::Now(frame) if self.pending.is_empty() => self.push_output(frame),
            Reply::Now(frame) => self.pending.push_back(Slot::Ready(frame)),
            Reply::Later(future) => {
                self.pending_is_produce =
                    is_produce && (self.pending.is_empty() || self.pending_is_produce);
                self.pending.push_back(Slot::Waiting(future));
            }
        }
    }

    /// Takes no further request; earlier answers still go out.
    fn abort(&mut self) {
        self.closing = true;
        self.frames.clear();
        self.frame_bytes = 0;
        self.permit = None;
        self.input = BytesMut::new();
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
    input: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    std::pin::pin!(stream.read_buf(input)).poll(cx)
}

/// Waits for the first pending answer, takes it off, and returns it.
async fn next_pending(pending: &mut VecDeque<Slot>) -> Option<ResponseFrame> {
    let frame = match pending.front_mut()? {
        Slot::Waiting(future) => future.await,
        Slot::Ready(frame) => Some(std::mem::take(frame)),
    };
    pending.pop_front();
    frame
}

async fn acquire(memory: &Arc<Semaphore>, frame_bytes: usize) -> Option<OwnedSemaphorePermit> {
    let permits = u32::try_from(frame_bytes / PERMIT_BYTES).unwrap_or(u32::MAX);
    Arc::clone(memory).acquire_many_owned(permits).await.ok()
}
