//! `latency`: an open loop. Every record carries the moment it was meant to be sent; ack and end-to-end latency are
//! both counted from it, so that a broker that stalls is charged for everything that had to wait.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::fetch::Tail;
use crate::stats::{Histogram, Meter, now_ms};
use crate::wire::{
    Connection, FetchLimits, Outcome, batch_position, produce_answer, produce_frame, read_frame,
};
use crate::{Common, LatencyArgs, batch, setup};

/// The value's first eight bytes: nanoseconds after the start of the run.
fn stamp_position(batch: &[u8], value_bytes: usize) -> usize {
    batch.len() - 1 - value_bytes
}

struct Shared {
    start: Instant,
    warm_nanos: u64,
    acks: Mutex<Histogram>,
    end_to_end: Mutex<Histogram>,
    received: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn count(&self, into: &Mutex<Histogram>, due_nanos: u64) {
        if due_nanos < self.warm_nanos {
            return;
        }
        let took = self
            .start
            .elapsed()
            .saturating_sub(Duration::from_nanos(due_nanos));
        if let Ok(mut h) = into.lock() {
            h.add(took);
        }
    }
}

pub fn run(common: &Common, args: &LatencyArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    let factor = common.replication_factor;
    let leader = setup::create_replicated(&mut conn, &args.topic, 1, factor, &[])?.remove(0);
    let mut conn = Connection::open(&leader)?;
    let end = setup::end_offsets(&mut conn, &args.topic, 1)?[0];
    let total = (args.rate * (common.warmup + common.seconds)) as u64;
    let warm_count = (args.rate * common.warmup) as u64;
    let shared = Arc::new(Shared {
        start: Instant::now(),
        warm_nanos: (common.warmup * 1e9) as u64,
        acks: Mutex::new(Histogram::new()),
        end_to_end: Mutex::new(Histogram::new()),
        received: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let tail = Tail::new(&leader, &args.topic, 0, end)?;
    let consumer = thread::spawn({
        let (shared, bytes) = (shared.clone(), args.record_bytes);
        move || consume(tail, bytes, &shared)
    });
    let stream = conn.stream.try_clone()?;
    let interval = Duration::from_secs_f64(1.0 / args.rate);
    let acks = thread::spawn({
        let shared = shared.clone();
        move || read_acks(stream, total, interval, &shared)
    });
    let mut meter = Meter::start(&common.pid);
    let mut frame = Frame::new(args);
    for i in 0..total {
        if i == warm_count {
            meter = Meter::start(&common.pid);
        }
        let due = interval * i as u32;
        wait_until(shared.start + due);
        conn.stream
            .write_all(frame.stamped(due.as_nanos() as u64))?;
    }
    let mut out = Map::new();
    out.insert("mode".into(), json!("latency"));
    out.insert("rate".into(), json!(args.rate));
    meter.stop(
        total - warm_count,
        (total - warm_count) * args.record_bytes as u64,
        &mut out,
    );
    acks.join().map_err(|_| "the ack thread panicked")??;
    let deadline = Instant::now() + Duration::from_secs(10);
    while shared.received.load(Ordering::Relaxed) < total && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    shared.stop.store(true, Ordering::Relaxed);
    consumer.join().map_err(|_| "the consumer panicked")??;
    out.insert(
        "lost".into(),
        json!(total - shared.received.load(Ordering::Relaxed)),
    );
    for (name, h) in [("ack_", &shared.acks), ("e2e_", &shared.end_to_end)] {
        let h = h.lock().map_err(|_| "poisoned")?;
        h.report(name, &mut out);
        out.insert(format!("{name}samples"), json!(h.count()));
    }
    Ok(out)
}

/// One produce frame whose stamp and checksum are renewed in place.
struct Frame {
    bytes: Vec<u8>,
    batch: std::ops::Range<usize>,
    stamp: usize,
}

impl Frame {
    fn new(args: &LatencyArgs) -> Self {
        let value = vec![b'x'; args.record_bytes];
        let batch = batch::of_values(&[&value], now_ms(), None);
        let bytes = produce_frame(&args.topic, 0, -1, &batch);
        let at = batch_position(&bytes, batch.len());
        let stamp = at + stamp_position(&batch, args.record_bytes);
        Self {
            bytes,
            batch: at..at + batch.len(),
            stamp,
        }
    }

    fn stamped(&mut self, nanos: u64) -> &[u8] {
        self.bytes[self.stamp..self.stamp + 8].copy_from_slice(&nanos.to_be_bytes());
        batch::seal(&mut self.bytes[self.batch.clone()]);
        &self.bytes
    }
}

/// Sleeps most of the time and spins the last bit, for a sleep alone is late by more than an answer takes.
fn wait_until(when: Instant) {
    const SPIN: Duration = Duration::from_micros(70);
    if let Some(left) = when.checked_duration_since(Instant::now() + SPIN) {
        thread::sleep(left);
    }
    while Instant::now() < when {
        std::hint::spin_loop();
    }
}

fn read_acks(
    mut stream: std::net::TcpStream,
    total: u64,
    interval: Duration,
    shared: &Shared,
) -> Outcome<()> {
    for i in 0..total {
        let answer = read_frame(&mut stream)?;
        match produce_answer(&answer) {
            Some((0, _)) => shared.count(&shared.acks, (interval * i as u32).as_nanos() as u64),
            other => return Err(format!("produce answered {other:?}").into()),
        }
    }
    Ok(())
}

fn consume(mut tail: Tail, record_bytes: usize, shared: &Shared) -> Outcome<()> {
    let limits = FetchLimits {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    while !shared.stop.load(Ordering::Relaxed) {
        let answer = tail.fetch(&limits)?;
        if answer.error != 0 {
            return Err(format!("fetch answered {}", answer.error).into());
        }
        for batch in batch::walk(tail.records(&answer)) {
            let at = stamp_position(batch.bytes, record_bytes);
            let stamp = batch.bytes[at..]
                .first_chunk::<8>()
                .ok_or("a strange batch")?;
            shared.count(&shared.end_to_end, u64::from_be_bytes(*stamp));
            shared.received.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
