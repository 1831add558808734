//! Asking the active controller on another node.

use std::time::Duration;

use kafka_protocol::messages::AllocateProducerIdsRequest;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::event_loop::MemoryLog;
use crate::clock::Clock;
use crate::config::Config;
use crate::controller::{Handle, Remote};
use crate::metadata::Images;
use crate::quorum::VoterEndpoint;

#[tokio::test]
async fn a_controller_that_does_not_answer_in_time_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let log = MemoryLog::new(Some(2));
    log.others_listen_at(VoterEndpoint {
        name: "CONTROLLER".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().expect("bound").port(),
    });
    let settings = [
        ("node.id", "1"),
        ("log.dirs", "/nowhere"),
        ("controller.socket.timeout.ms", "50"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = Config::load(None, &settings).expect("settings");
    let remote = Remote::new(&config, log);
    let handle = Handle::elsewhere(Images::new(), Clock::system(), remote);
    let asking = handle.allocate_producer_ids(AllocateProducerIdsRequest::default());
    let hearing = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            // Until the other side has had enough of the silence.
            stream.read_to_end(&mut request).await.expect("read");
            assert!(request.len() > 10);
        }
    };
    tokio::select! {
        answer = asking => panic!("{answer:?}"),
        heard = tokio::time::timeout(Duration::from_secs(4), hearing) => heard.expect("twice"),
    }
}
