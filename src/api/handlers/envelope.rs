//! Envelope (key 58), v0. A request that a broker passes on for its client, with who the client is (KIP-590). It is answered
//! as if the client had asked the controller itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, EnvelopeRequest, EnvelopeResponse};
use kafka_protocol::protocol::Decodable;
use tracing::debug;

use crate::api::dispatch::gate;
use crate::api::reply::{Chunk, Malformed, Reply, ResponseFrame};
use crate::api::{ConnectionInfo, RequestContext};
use crate::protocol::ErrorCode;
use crate::protocol::principal::Principal;

/// What brokers pass on (`ApiKeys.forwardable`).
const FORWARDABLE: &[i16] = &[
    19, 20, 30, 31, 33, 37, 38, 39, 40, 43, 44, 45, 46, 49, 51, 55, 57, 64, 80, 81,
];
/// Those that ask for nothing to be changed: any controller answers, from what it knows.
const READS: &[i16] = &[46, 55];
/// Size of the prefix of a frame, which an answer in an envelope does not have.
const PREFIX_BYTES: usize = 4;

pub fn handle(context: RequestContext, body: &mut Bytes) -> Result<Reply, Malformed> {
    let request = EnvelopeRequest::decode(body, context.version).map_err(|reason| Malformed {
        api: "envelope",
        reason: reason.to_string(),
    })?;
    Ok(Reply::Later(Box::pin(async move {
        let response = match answer(&context, request).await {
            Ok(answer) => EnvelopeResponse::default().with_response_data(Some(answer)),
            Err(code) => EnvelopeResponse::default().with_error_code(code.code()),
        };
        ResponseFrame::encode(context.framing, &response).ok()
    })))
}

/// The answer to what is inside, header and body.
async fn answer(context: &RequestContext, request: EnvelopeRequest) -> Result<Bytes, ErrorCode> {
    let client = Arc::new(client(&context.connection, &request)?);
    let inside = request.request_data;
    let key = inside
        .first_chunk::<2>()
        .map(|key| i16::from_be_bytes(*key));
    let key = key.ok_or(ErrorCode::UnsupportedVersion)?;
    if ApiKey::try_from(key).is_err() {
        return Err(ErrorCode::UnsupportedVersion);
    }
    if !FORWARDABLE.contains(&key) {
        return Err(ErrorCode::InvalidRequest);
    }
    let leader = context.services.quorum.leader().borrow().leader_id;
    let is_active = leader == Some(context.services.config().node_id);
    if !is_active && !READS.contains(&key) {
        return Err(ErrorCode::NotController);
    }
    let unsupported = |_| ErrorCode::UnsupportedVersion;
    let gated = gate(&context.services, &client, inside);
    let (spec, inner, mut body) = gated.map_err(unsupported)?;
    debug!(
        api = spec.name,
        principal = client.principal.text(),
        client_address = %client.peer.ip(),
        client_id = inner.client_id(),
        broker = %context.connection.peer,
        "request passed on by a broker"
    );
    let frame = match (spec.run)(inner, &mut body).map_err(|_| ErrorCode::UnsupportedVersion)? {
        Reply::Now(frame) => Some(frame),
        Reply::Later(later) => later.await,
        Reply::Silent | Reply::Close => None,
    };
    let frame = frame.ok_or(ErrorCode::UnknownServerError)?;
    let mut bytes = BytesMut::new();
    for chunk in frame.chunks {
        match chunk {
            Chunk::Bytes(piece) => bytes.extend_from_slice(&piece),
            // No API that is passed on answers with files.
            Chunk::File(_) => return Err(ErrorCode::UnknownServerError),
        }
    }
    Ok(bytes.freeze().slice(PREFIX_BYTES..))
}

/// The client's own connection, as far as its broker tells of it.
fn client(
    connection: &ConnectionInfo,
    request: &EnvelopeRequest,
) -> Result<ConnectionInfo, ErrorCode> {
    let address = &request.client_host_address[..];
    let address = <[u8; 4]>::try_from(address)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from))
        .map_err(|_| ErrorCode::InvalidRequest)?;
    let principal = request.request_principal.clone();
    let principal = principal.and_then(Principal::from_bytes);
    Ok(ConnectionInfo {
        listener: Arc::clone(&connection.listener),
        is_controller: connection.is_controller,
        peer: SocketAddr::new(address, 0),
        principal: principal.ok_or(ErrorCode::PrincipalDeserializationFailure)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_who_its_broker_says() {
        let broker = ConnectionInfo {
            listener: "CONTROLLER".into(),
            is_controller: true,
            peer: SocketAddr::from(([10, 0, 0, 1], 40_000)),
            principal: Principal::anonymous(),
        };
        let alice = Principal {
            name: kafka_protocol::protocol::StrBytes::from_static_str("alice"),
            ..Principal::anonymous()
        };
        let request = EnvelopeRequest::default()
            .with_request_principal(Some(alice.to_bytes()))
            .with_client_host_address(Bytes::from_static(&[10, 0, 0, 7]));
        let known = client(&broker, &request).unwrap();
        assert_eq!(known.principal, alice);
        assert_eq!(known.peer.ip(), IpAddr::from([10, 0, 0, 7]));
        assert_eq!(
            (&*known.listener, known.is_controller),
            ("CONTROLLER", true)
        );
        let v6 = request
            .clone()
            .with_client_host_address(Bytes::from_static(&[1; 16]));
        assert!(client(&broker, &v6).unwrap().peer.is_ipv6());
        let nowhere = request
            .clone()
            .with_client_host_address(Bytes::from_static(&[1; 5]));
        assert_eq!(
            client(&broker, &nowhere).unwrap_err(),
            ErrorCode::InvalidRequest
        );
        for unreadable in [None, Some(Bytes::from_static(b"alice"))] {
            let request = request.clone().with_request_principal(unreadable);
            let refused = client(&broker, &request).unwrap_err();
            assert_eq!(refused, ErrorCode::PrincipalDeserializationFailure);
        }
    }
}
