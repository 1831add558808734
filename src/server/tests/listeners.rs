//! Listeners that come and go while the broker runs.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::{Fixture, is_closed, request, response};

/// Sets `listeners` of the broker, or takes the setting away.
fn set_listeners(stream: &mut TcpStream, listeners: Option<String>) {
    const DELETE: i8 = 1;
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("listeners"))
        .with_config_operation(if listeners.is_some() { 0 } else { DELETE })
        .with_value(listeners.map(StrBytes::from_string));
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configs(vec![config]);
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    stream.write_all(&request(&alter, 0, 1)).expect("sent");
    let mut body = response(stream).1;
    let altered = IncrementalAlterConfigsResponse::decode(&mut body, 0).expect("response");
    let altered = &altered.responses[0];
    assert_eq!(altered.error_code, 0, "{:?}", altered.error_message);
}

/// A connection that is served, as soon as there is one. Who closes as this comes lets it in and out again.
fn connect(address: &str) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let served = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(&request(&ApiVersionsRequest::default(), 0, 7))?;
            let answered = stream.peek(&mut [0])? > 0;
            Ok(answered.then_some(stream))
        });
        if let Ok(Some(mut stream)) = served {
            assert_eq!(response(&mut stream).0, 7);
            return stream;
        }
        assert!(Instant::now() < deadline, "{served:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_listener_is_opened_and_closed_with_its_connections() {
    let broker = Fixture::start_with(&[(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,NEW:PLAINTEXT,OTHER:PLAINTEXT",
    )]);
    let mut stream = broker.connect();
    // Whoever holds the port on one address of this machine keeps others from having it on all.
    let held = TcpListener::bind("127.0.0.5:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    let address = format!("127.0.0.6:{port}");
    let all = "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    set_listeners(&mut stream, Some(format!("{all},NEW://{address}")));
    let mut added = connect(&address);
    // Another takes its port.
    set_listeners(&mut stream, Some(format!("{all},OTHER://{address}")));
    assert!(is_closed(&mut added));
    let mut other = connect(&address);
    set_listeners(&mut stream, None);
    assert!(is_closed(&mut other));
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "still open");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The others stay.
    let versions = request(&ApiVersionsRequest::default(), 0, 8);
    stream.write_all(&versions).expect("sent");
    assert_eq!(response(&mut stream).0, 8);
}
