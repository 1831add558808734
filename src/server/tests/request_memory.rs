//! Requests that are claimed, half sent or trickled: what they may hold, and that nobody else waits for them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiVersionsRequest;

use super::*;

/// All requests together may hold 1 MiB, which is also the largest frame.
const TIGHT: &[(&str, &str)] = &[
    ("queued.max.request.bytes", "1048576"),
    ("socket.request.max.bytes", "1048576"),
];

fn large_produce(id: i32) -> Vec<u8> {
    produce_of(900_000, id)
}

fn produce_of(value_bytes: usize, id: i32) -> Vec<u8> {
    produce("large", &"x".repeat(value_bytes), id)
}

/// Connections that say that `size_bytes` will follow, and send only the front of a request.
fn claimers(broker: &Fixture, count: usize, size_bytes: u32) -> Vec<TcpStream> {
    let claim = |_| {
        let mut stream = broker.connect();
        let front = &produce("large", "x", 1)[4..20];
        let claim = [&size_bytes.to_be_bytes()[..], front].concat();
        stream.write_all(&claim).expect("sent");
        stream
    };
    (0..count).map(claim).collect()
}

fn is_taken(stream: &mut TcpStream) {
    assert_eq!(produced(response(stream).1).0, 0);
}

#[test]
fn silent_claims_hold_nothing_and_delay_nobody() {
    let broker = Fixture::start();
    let mut stream = broker.connect();
    create_topic(&mut stream, "large");
    let _silent = claimers(&broker, 6, 100 * 1024 * 1024);
    stream.write_all(&large_produce(1)).expect("sent");
    is_taken(&mut stream);

    let broker = Fixture::start_with(TIGHT);
    let mut stream = broker.connect();
    create_topic(&mut stream, "large");
    let _silent = claimers(&broker, 50, 1024 * 1024);
    // Two frames at a time: one could overdraw, so it is the other one that shows that the memory is free for both.
    let mut overdrawn = broker.connect();
    overdrawn
        .write_all(&produce_of(300_000, 1)[..200_000])
        .expect("sent");
    stream.write_all(&produce_of(500_000, 1)).expect("sent");
    is_taken(&mut stream);
}

#[test]
fn half_sent_requests_do_not_wait_for_each_other() {
    let broker = Fixture::start_with(TIGHT);
    create_topic(&mut broker.connect(), "large");
    let frame = large_produce(1);
    let halves = (0..4).map(|_| {
        let mut stream = broker.connect();
        stream.write_all(&frame[..450_000]).expect("sent");
        stream
    });
    let halves: Vec<TcpStream> = halves.collect();
    std::thread::scope(|threads| {
        for mut stream in halves {
            let rest = &frame[450_000..];
            threads.spawn(move || {
                stream.write_all(rest).expect("sent");
                is_taken(&mut stream);
            });
        }
    });
}

#[test]
fn connections_that_die_give_their_memory_back() {
    let broker = Fixture::start_with(TIGHT);
    let mut stream = broker.connect();
    create_topic(&mut stream, "large");
    let frame = large_produce(1);
    for _ in 0..20 {
        for _ in 0..3 {
            let mut dies = broker.connect();
            dies.write_all(&frame[..700_000]).expect("sent");
        }
        stream.write_all(&frame).expect("sent");
        is_taken(&mut stream);
    }
}

#[test]
fn a_request_that_does_not_get_on_is_closed_and_a_slow_one_is_not() {
    // The time for a frame is never more than that for an idle connection.
    let broker = Fixture::start_with(&[("connections.max.idle.ms", "1500")]);
    let mut slow = broker.connect();
    create_topic(&mut slow, "large");
    let mut trickle = claimers(&broker, 1, 1000).remove(0);
    let frame = large_produce(1);
    let started = Instant::now();
    let mut refused = None;
    for chunk in frame.chunks(20 * 1024) {
        slow.write_all(chunk).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        if refused.is_none() && trickle.write_all(&[0]).is_err() {
            refused = Some(started.elapsed());
        }
    }
    is_taken(&mut slow);
    assert!(started.elapsed() > Duration::from_secs(3), "slow enough");
    let refused = refused.expect("the trickle is closed");
    assert!(refused > Duration::from_secs(1), "{refused:?}");
    // Small requests, each sent in two parts, go on as long as they like.
    let small = request(&ApiVersionsRequest::default(), 0, 7);
    for _ in 0..20 {
        slow.write_all(&small[..9]).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        slow.write_all(&small[9..]).expect("sent");
        assert_eq!(response(&mut slow).0, 7);
    }
}
