//! From a frame to a reply: key and version, header, body, handler. What Kafka closes on, this closes on.

use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::Services;
use super::context::{ConnectionInfo, RequestContext};
use super::handlers::{api_versions, produce};
use super::reply::{Framing, Reply};
use super::table::{self, ApiSpec};
use crate::protocol::header::RequestHeader;

/// Key of Produce, whose requests are handled in runs.
const PRODUCE: i16 = 0;
const API_VERSIONS: i16 = 18;

/// Key and version at the front of a request frame.
fn peek(frame: &Bytes) -> Option<(i16, i16)> {
    let [k0, k1, v0, v1] = *frame.first_chunk::<4>()?;
    Some((i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1])))
}

/// Whether a frame goes through [`dispatch_produce_run`].
pub fn is_produce(frame: &[u8]) -> bool {
    frame.first_chunk::<2>() == Some(&PRODUCE.to_be_bytes())
}

/// Answers one request. Anything that cannot be parsed ends in [`Reply::Close`].
pub fn dispatch(services: &Arc<Services>, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Reply {
    match gate(services, connection, frame) {
        Ok((spec, context, mut body)) => match (spec.run)(context, &mut body) {
            Ok(reply) => reply,
            Err(malformed) => close(connection, &malformed.to_string()),
        },
        Err(reply) => reply,
    }
}

/// Answers a run of Produce requests of one connection, in order; one reply each, until one closes.
pub fn dispatch_produce_run(
    services: &Arc<Services>,
    connection: &Arc<ConnectionInfo>,
    frames: Vec<Bytes>,
    replies: &mut Vec<Reply>,
) {
    let mut requests = Vec::with_capacity(frames.len());
    let mut refused = None;
    for frame in frames {
        match gate(services, connection, frame) {
            Ok((_, context, body)) => requests.push((context, body)),
            Err(reply) => {
                refused = Some(reply);
                break;
            }
        }
    }
    produce::handle_run(services, requests, replies);
    replies.extend(refused);
}

pub(super) type Gated = (&'static ApiSpec, RequestContext, Bytes);

/// Checks, in this order: key and version, then the header. Nothing is decoded before.
pub(super) fn gate(
    services: &Arc<Services>,
    connection: &Arc<ConnectionInfo>,
    mut frame: Bytes,
) -> Result<Gated, Reply> {
    let Some((key, version)) = peek(&frame) else {
        return Err(close(connection, "frame shorter than a request header"));
    };
    let Some(spec) = table::lookup(key) else {
        return Err(close(connection, &format!("unknown api key {key}")));
    };
    if !spec.is_served_on(connection.is_controller) {
        let reason = format!("{} is not served on this listener", spec.name);
        return Err(close(connection, &reason));
    }
    let known_version = spec.served.contains(&version);
    if !known_version && key != API_VERSIONS {
        return Err(close(
            connection,
            &format!("version {version} of {} is not served", spec.name),
        ));
    }
    services.metrics.request(key, version);
    // A version of ApiVersions that is not known has the header of the newest.
    let flexible =
        spec.request_is_flexible(version.clamp(*spec.served.start(), *spec.served.end()));
    let header = RequestHeader::decode(&mut frame, flexible)
        .map_err(|e| close(connection, &format!("malformed request header: {e}")))?;
    if !known_version {
        return Err(api_versions::unsupported_version(header.correlation_id));
    }
    let context = RequestContext {
        services: Arc::clone(services),
        connection: Arc::clone(connection),
        version,
        framing: Framing {
            correlation_id: header.correlation_id,
            version,
            flexible: flexible && key != API_VERSIONS,
        },
        client_id: header.client_id,
    };
    Ok((spec, context, frame))
}

fn close(connection: &ConnectionInfo, reason: &str) -> Reply {
    debug!(peer = %connection.peer, reason, "closing connection");
    Reply::Close
}
