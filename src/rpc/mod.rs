//! Outgoing connections to brokers and controllers, in Kafka's framing: what fetchers, heartbeats, forwarded requests and
//! raft call other nodes with.
//!
//! A [`Peer`] is one connection to one address, cheap to clone; who must not wait behind somebody else's long poll
//! takes a peer of its own. Requests are pipelined and answered in order. The connection is made by the first request and
//! again after it broke, with growing rests in between; what was under way fails then and is not sent again.

mod connection;
mod liveness;
mod request;

#[cfg(test)]
mod tests;

pub use liveness::{Lifeline, until_accepted, until_refused};
pub use request::Request;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Config;
use connection::{Connection, Outgoing};

/// Requests that wait for their turn; more callers wait with their requests.
const QUEUE_MAX: usize = 64;
const API_VERSIONS: i16 = 18;
/// Length of the size in front of a frame.
const SIZE_BYTES: usize = 4;

/// How a peer behaves. The defaults are those of connections between brokers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Client id in every request header.
    pub client_id: Arc<str>,
    /// `socket.connection.setup.timeout.ms`; doubles up to `connect_timeout_max` while no connection can be made.
    pub connect_timeout: Duration,
    /// `socket.connection.setup.timeout.max.ms`
    pub connect_timeout_max: Duration,
    /// Size of the socket's receive buffer; `None` leaves it to the system, whose buffers grow with the need.
    pub receive_buffer_bytes: Option<u32>,
    /// First rest after a connection could not be made; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Requests that were sent and not answered yet, at most.
    pub in_flight_max: usize,
    /// A longer answer breaks the connection.
    pub response_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: "ottla".into(),
            connect_timeout: Duration::from_secs(10),
            connect_timeout_max: Duration::from_secs(30),
            receive_buffer_bytes: None,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            in_flight_max: 16,
            response_bytes_max: 100 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// As the configuration says.
    pub fn of(config: &Config) -> Self {
        let millis = |ms: i64| Duration::from_millis(ms.max(1).unsigned_abs());
        Self {
            connect_timeout: millis(config.socket_connection_setup_timeout_ms),
            connect_timeout_max: millis(config.socket_connection_setup_timeout_max_ms),
            ..Self::default()
        }
    }

    /// After an attempt that failed. A maximum below the first one changes nothing, as in Kafka.
    fn next_connect_timeout(&self, last: Duration) -> Duration {
        (last * 2).min(self.connect_timeout_max.max(self.connect_timeout))
    }

    /// For connections that are worth no more than `longest` at a time, because they are tried again at once.
    #[must_use]
    pub fn connecting_within(self, longest: Duration) -> Self {
        Self {
            connect_timeout: self.connect_timeout.min(longest),
            connect_timeout_max: self.connect_timeout_max.min(longest),
            ..self
        }
    }
}

/// Why a call has no answer. Except after `Unreachable` and `Encode` the other side may have acted on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    #[error("{target} cannot be reached: {reason}")]
    Unreachable { target: Arc<str>, reason: Arc<str> },
    #[error("the connection to {target} broke: {reason}")]
    Disconnected { target: Arc<str>, reason: Arc<str> },
    #[error("no answer from {0} in time")]
    TimedOut(Arc<str>),
    #[error("{target} sent an answer that cannot be read: {reason}")]
    Malformed { target: Arc<str>, reason: String },
    #[error("the request has no form in this version: {0}")]
    Encode(String),
}

/// A request whose body is bytes already.
#[derive(Clone, Debug)]
pub struct RawRequest {
    pub api_key: i16,
    pub api_version: i16,
    /// Request header version 2 and response header version 1.
    pub flexible: bool,
    pub body: Bytes,
}

/// One connection to one address. It is closed when the last clone is gone.
#[derive(Clone)]
pub struct Peer {
    target: Arc<str>,
    client_id: Arc<str>,
    requests: mpsc::Sender<Outgoing>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.target)
    }
}

impl Peer {
    /// A peer at `host:port`; nothing is sent before the first call. Needs a tokio runtime.
    pub fn new(host: &str, port: u16, settings: Settings) -> Self {
        let target: Arc<str> = format!("{host}:{port}").into();
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let peer = Self {
            target: Arc::clone(&target),
            client_id: Arc::clone(&settings.client_id),
            requests,
        };
        let connection = Connection::new(target, (host.to_owned(), port), settings, queue);
        tokio::spawn(connection.run());
        peer
    }

    /// `host:port`, for logs.
    pub fn target(&self) -> &Arc<str> {
        &self.target
    }

    /// Sends `request` in `version` and waits for its answer, both within `timeout`.
    pub async fn call<R: Request>(
        &self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, RpcError> {
        let raw = encode_body(request, version)?;
        let mut answer = self.call_raw(raw, timeout).await?;
        R::decode_response(&mut answer, version).map_err(|reason| RpcError::Malformed {
            target: Arc::clone(&self.target),
            reason,
        })
    }

    /// Sends a body as it is; gives the body of the answer.
    pub async fn call_raw(
        &self,
        request: RawRequest,
        timeout: Duration,
    ) -> Result<Bytes, RpcError> {
        let deadline = Instant::now() + timeout;
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing {
            head: head(&request, Some(&self.client_id))?,
            body: request.body,
            // ApiVersions is always answered in response header version 0 (KIP-511).
            flexible: request.flexible && request.api_key != API_VERSIONS,
            deadline,
            reply,
        };
        let round_trip = async {
            let gone = || RpcError::Disconnected {
                target: Arc::clone(&self.target),
                reason: "the runtime is stopping".into(),
            };
            let sent = self.requests.send(outgoing).await;
            sent.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        tokio::time::timeout_at(deadline, round_trip)
            .await
            .unwrap_or_else(|_| Err(RpcError::TimedOut(Arc::clone(&self.target))))
    }
}

/// Size and header in front of the body. The correlation id is filled in when it is sent.
fn head(request: &RawRequest, client_id: Option<&str>) -> Result<BytesMut, RpcError> {
    let client_id_bytes = client_id.map_or(0, str::len);
    let header_bytes = 10 + client_id_bytes + usize::from(request.flexible);
    let size = i32::try_from(header_bytes + request.body.len());
    let too_long = |_| RpcError::Encode("longer than a frame can be".into());
    let mut head = BytesMut::with_capacity(4 + header_bytes);
    head.put_i32(size.map_err(too_long)?);
    head.put_i16(request.api_key);
    head.put_i16(request.api_version);
    head.put_i32(0);
    match client_id {
        Some(client_id) => {
            head.put_i16(i16::try_from(client_id_bytes).map_err(too_long)?);
            head.put_slice(client_id.as_bytes());
        }
        None => head.put_i16(-1),
    }
    if request.flexible {
        head.put_u8(0);
    }
    Ok(head)
}

fn encode_body<R: Request>(request: &R, version: i16) -> Result<RawRequest, RpcError> {
    let mut body = BytesMut::with_capacity(256);
    request
        .encode_body(&mut body, version)
        .map_err(RpcError::Encode)?;
    Ok(RawRequest {
        api_key: R::KEY,
        api_version: version,
        flexible: R::is_flexible(version),
        body: body.freeze(),
    })
}

/// Header and body of a request that travels inside another one; its correlation id is 0.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    client_id: Option<&str>,
) -> Result<Bytes, RpcError> {
    let raw = encode_body(request, version)?;
    let mut bytes = head(&raw, client_id)?;
    bytes.extend_from_slice(&raw.body);
    Ok(bytes.freeze().slice(SIZE_BYTES..))
}

/// The answer to [`encode_request`]'s, header and body.
pub fn decode_response<R: Request>(mut bytes: Bytes, version: i16) -> Result<R::Response, String> {
    connection::take_header(&mut bytes, 0, R::is_flexible(version)).map_err(|e| e.to_string())?;
    R::decode_response(&mut bytes, version)
}
