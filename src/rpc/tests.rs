//! Calls over real sockets, against a server that the tests script.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ApiVersionsRequest,
    ApiVersionsResponse,
};
use kafka_protocol::protocol::Encodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::connection::connect;
use super::{Peer, RawRequest, RpcError, Settings};
use crate::config::Config;
use crate::protocol::header::{RequestHeader, encode_response_header};
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};

/// Longer than anything here takes, and the end of a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server(TcpListener);

impl Server {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn peer(&self, settings: Settings) -> Peer {
        Peer::new("127.0.0.1", self.0.local_addr().unwrap().port(), settings)
    }

    async fn accept(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }
}

async fn read_request(stream: &mut TcpStream, flexible: bool) -> (RequestHeader, Bytes) {
    let size = stream.read_i32().await.unwrap();
    let mut frame = BytesMut::zeroed(size as usize);
    stream.read_exact(&mut frame).await.unwrap();
    let mut frame = frame.freeze();
    let header = RequestHeader::decode(&mut frame, flexible).unwrap();
    (header, frame)
}

async fn answer(stream: &mut TcpStream, correlation_id: i32, flexible: bool, body: &[u8]) {
    let mut head = BytesMut::new();
    encode_response_header(&mut head, correlation_id, flexible);
    let mut frame = BytesMut::new();
    frame.put_i32((head.len() + body.len()) as i32);
    frame.extend_from_slice(&head);
    frame.extend_from_slice(body);
    stream.write_all(&frame).await.unwrap();
}

fn raw(body: &'static [u8]) -> RawRequest {
    RawRequest {
        api_key: 9_999,
        api_version: 0,
        flexible: false,
        body: Bytes::from_static(body),
    }
}

fn reason(result: Result<Bytes, RpcError>) -> String {
    match result {
        Err(RpcError::Disconnected { reason, .. }) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_are_pipelined_and_answered_in_order() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    let calls = async {
        tokio::join!(
            peer.call_raw(raw(b"first"), PATIENCE),
            peer.call_raw(raw(b"second"), PATIENCE),
        )
    };
    let serve = async {
        let mut stream = server.accept().await;
        let (first, body) = read_request(&mut stream, false).await;
        assert_eq!(&body[..], b"first");
        assert_eq!(first.client_id.as_deref(), Some("ottla"));
        // The second is there although the first has no answer.
        let (second, body) = read_request(&mut stream, false).await;
        assert_eq!(&body[..], b"second");
        answer(&mut stream, first.correlation_id, false, b"1").await;
        answer(&mut stream, second.correlation_id, false, b"2").await;
    };
    let ((first, second), ()) = tokio::join!(calls, serve);
    assert_eq!(
        (&first.unwrap()[..], &second.unwrap()[..]),
        (&b"1"[..], &b"2"[..])
    );
}

#[tokio::test]
async fn messages_of_the_crate_and_our_own_have_their_headers() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    let allocate = AllocateProducerIdsRequest::default().with_broker_epoch(7);
    let heartbeat = BrokerHeartbeatRequest {
        broker_id: 3,
        ..BrokerHeartbeatRequest::default()
    };
    let versions = ApiVersionsRequest::default();
    let calls = async {
        tokio::join!(
            peer.call(0, &allocate, PATIENCE),
            peer.call(2, &heartbeat, PATIENCE),
            peer.call(3, &versions, PATIENCE),
        )
    };
    let serve = async {
        let mut stream = server.accept().await;
        let (header, _) = read_request(&mut stream, true).await;
        assert_eq!((header.api_key, header.api_version), (67, 0));
        let mut body = BytesMut::new();
        let response = AllocateProducerIdsResponse::default().with_producer_id_len(1000);
        response.encode(&mut body, 0).unwrap();
        answer(&mut stream, header.correlation_id, true, &body).await;

        let (header, mut bytes) = read_request(&mut stream, true).await;
        assert_eq!((header.api_key, header.api_version), (63, 2));
        let sent = BrokerHeartbeatRequest::decode(&mut bytes, 2).unwrap();
        assert_eq!(sent.broker_id, 3);
        let mut body = BytesMut::new();
        let response = BrokerHeartbeatResponse {
            is_caught_up: true,
            ..BrokerHeartbeatResponse::default()
        };
        response.encode(&mut body, 2).unwrap();
        answer(&mut stream, header.correlation_id, true, &body).await;

        // KIP-511: ApiVersions is answered in the old response header.
        let (header, _) = read_request(&mut stream, true).await;
        let mut body = BytesMut::new();
        ApiVersionsResponse::default().encode(&mut body, 3).unwrap();
        answer(&mut stream, header.correlation_id, false, &body).await;
    };
    let ((allocated, beaten, versions), ()) = tokio::join!(calls, serve);
    assert_eq!(allocated.unwrap().producer_id_len, 1000);
    assert!(beaten.unwrap().is_caught_up);
    assert_eq!(versions.unwrap().error_code, 0);
}

#[tokio::test]
async fn a_broken_connection_fails_what_is_under_way_and_is_made_again() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    let broken = async {
        let mut stream = server.accept().await;
        read_request(&mut stream, false).await;
    };
    let (result, ()) = tokio::join!(peer.call_raw(raw(b"lost"), PATIENCE), broken);
    reason(result);
    let served = async {
        let mut stream = server.accept().await;
        let (header, body) = read_request(&mut stream, false).await;
        assert_eq!(&body[..], b"again", "what failed is not sent again");
        answer(&mut stream, header.correlation_id, false, b"ok").await;
    };
    let (result, ()) = tokio::join!(peer.call_raw(raw(b"again"), PATIENCE), served);
    assert_eq!(&result.unwrap()[..], b"ok");
}

#[tokio::test]
async fn an_overdue_answer_ends_the_call_and_the_connection() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    let silent = async {
        let mut stream = server.accept().await;
        read_request(&mut stream, false).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
    };
    let call = peer.call_raw(raw(b"?"), Duration::from_millis(20));
    let (result, ()) = tokio::join!(call, silent);
    assert_eq!(result, Err(RpcError::TimedOut(peer.target().clone())));
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_unreachable() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    drop(server);
    for _ in 0..2 {
        match peer.call_raw(raw(b""), PATIENCE).await {
            Err(RpcError::Unreachable { target, .. }) => assert_eq!(&target, peer.target()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn answers_that_cannot_be_right_break_the_connection() {
    let settings = Settings {
        response_bytes_max: 100,
        ..Settings::default()
    };
    let server = Server::start().await;
    let peer = server.peer(settings);
    let too_long: &[u8] = &101_i32.to_be_bytes();
    let negative: &[u8] = &(-5_i32).to_be_bytes();
    let too_short: &[u8] = &[0, 0, 0, 2, 0, 0];
    let stranger: &[u8] = &[0, 0, 0, 4, 1, 2, 3, 4];
    for bytes in [too_long, negative, too_short, stranger] {
        let serve = async {
            let mut stream = server.accept().await;
            read_request(&mut stream, false).await;
            stream.write_all(bytes).await.unwrap();
            stream.read(&mut [0]).await.unwrap_or(0)
        };
        let (result, closed) = tokio::join!(peer.call_raw(raw(b""), PATIENCE), serve);
        reason(result);
        assert_eq!(closed, 0, "{bytes:?}");
    }
}

#[tokio::test]
async fn no_more_requests_are_sent_than_may_be_in_flight() {
    let settings = Settings {
        in_flight_max: 1,
        ..Settings::default()
    };
    let server = Server::start().await;
    let peer = server.peer(settings);
    let calls = async {
        tokio::join!(
            peer.call_raw(raw(b"first"), PATIENCE),
            peer.call_raw(raw(b"second"), PATIENCE),
        )
    };
    let serve = async {
        let mut stream = server.accept().await;
        let (first, _) = read_request(&mut stream, false).await;
        let early = tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut [0])).await;
        assert!(early.is_err(), "the second waits for the first's answer");
        answer(&mut stream, first.correlation_id, false, b"1").await;
        let (second, _) = read_request(&mut stream, false).await;
        answer(&mut stream, second.correlation_id, false, b"2").await;
    };
    let ((first, second), ()) = tokio::join!(calls, serve);
    assert_eq!(
        (first.unwrap().chunk(), second.unwrap().chunk()),
        (&b"1"[..], &b"2"[..])
    );
}

#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    let server = Server::start().await;
    let peer = server.peer(Settings::default());
    let body = vec![7_u8; 300_000];
    let serve = async {
        let mut stream = server.accept().await;
        let (header, _) = read_request(&mut stream, false).await;
        let mut frame = BytesMut::new();
        frame.put_i32(4 + body.len() as i32);
        frame.put_i32(header.correlation_id);
        frame.extend_from_slice(&body);
        for piece in [&frame[..3], &frame[3..7], &frame[7..100], &frame[100..]] {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (result, ()) = tokio::join!(peer.call_raw(raw(b""), PATIENCE), serve);
    assert!(result.unwrap() == body);
}

#[tokio::test]
async fn a_listener_that_closes_connections_lives_and_one_that_refuses_them_does_not() {
    let server = Server::start().await;
    let port = server.0.local_addr().unwrap().port();
    let mut refused = tokio::spawn(super::until_refused("127.0.0.1", port));
    // The second comes because the first was closed.
    drop(server.accept().await);
    let second = server.accept().await;
    tokio::select! {
        _ = &mut refused => panic!("somebody listens"),
        () = std::future::ready(()) => {}
    }
    drop(server);
    drop(second);
    let was_connected = tokio::time::timeout(PATIENCE, refused).await;
    assert!(was_connected.unwrap().unwrap());
    let never = tokio::time::timeout(PATIENCE, super::until_refused("127.0.0.1", port)).await;
    assert!(!never.unwrap());
}

#[tokio::test]
async fn connections_are_set_up_as_the_settings_say() {
    let settings = [
        ("node.id", "1"),
        ("log.dirs", "/nowhere"),
        ("socket.connection.setup.timeout.ms", "300"),
        ("socket.connection.setup.timeout.max.ms", "700"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let settings = Settings::of(&Config::load(None, &settings).unwrap());
    let millis = Duration::from_millis;
    assert_eq!(settings.connect_timeout, millis(300));
    assert_eq!(settings.next_connect_timeout(millis(300)), millis(600));
    assert_eq!(settings.next_connect_timeout(millis(600)), millis(700));
    let near = settings.connecting_within(millis(200));
    assert_eq!(near.connect_timeout, millis(200));
    assert_eq!(near.next_connect_timeout(millis(200)), millis(200));

    let server = Server::start().await;
    let port = server.0.local_addr().unwrap().port();
    let stream = connect("localhost", port, Some(8 * 1024)).await.unwrap();
    // The kernel doubles what is asked for.
    let size = rustix::net::sockopt::socket_recv_buffer_size(&stream).unwrap();
    assert!((8 * 1024..=16 * 1024).contains(&size), "{size}");
}
