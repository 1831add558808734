//! `fetch`: reads what is in the page cache over and over. `fanout`: one paced producer, N consumers at the tail.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::produce::{DONE, MEASURING, Tally, timed};
use crate::stats::{Histogram, now_ms};
use crate::wire::{
    Connection, FetchAnswer, FetchLimits, Outcome, fetch_answer, fetch_frame, produce_answer,
    produce_frame,
};
use crate::{Common, FanoutArgs, FetchArgs, batch, setup, topic_configs};

/// A consumer of one partition that keeps its buffer.
pub struct Tail {
    conn: Connection,
    topic: String,
    partition: i32,
    pub offset: i64,
    buf: Vec<u8>,
}

impl Tail {
    pub fn new(broker: &str, topic: &str, partition: i32, offset: i64) -> Outcome<Self> {
        let conn = Connection::open(broker)?;
        Ok(Self {
            conn,
            topic: topic.to_string(),
            partition,
            offset,
            buf: Vec::new(),
        })
    }

    /// One request and its answer; the records are then in `records`.
    pub fn fetch(&mut self, limits: &FetchLimits) -> Outcome<FetchAnswer> {
        let frame = fetch_frame(&self.topic, self.partition, self.offset, limits);
        self.conn.stream.write_all(&frame)?;
        let mut size = [0; 4];
        self.conn.stream.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        if self.buf.len() < size {
            self.buf.resize(size, 0);
        }
        self.conn.stream.read_exact(&mut self.buf[..size])?;
        let answer = fetch_answer(&self.buf[..size]).ok_or("a Fetch answer that is none")?;
        for batch in batch::walk(&self.buf[answer.records.clone()]) {
            self.offset = batch.next_offset;
        }
        Ok(answer)
    }

    pub fn records(&self, answer: &FetchAnswer) -> &[u8] {
        &self.buf[answer.records.clone()]
    }
}

pub fn run(common: &Common, args: &FetchArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    let configs = topic_configs(&args.config);
    setup::create_topic(&mut conn, &args.topic, args.partitions, &configs)?;
    let ends = setup::end_offsets(&mut conn, &args.topic, args.partitions)?;
    for (p, end) in ends.iter().enumerate() {
        if *end == 0 {
            let each = args.data_bytes / args.partitions as u64;
            setup::fill(
                &mut conn,
                &args.topic,
                p as i32,
                each,
                args.batch_bytes,
                args.record_bytes,
            )?;
        }
    }
    let mut out = Map::new();
    out.insert("mode".into(), json!("fetch"));
    let (broker, args) = (common.broker.clone(), args.clone());
    let connections = args.connections;
    timed(common, connections, &mut out, move |i, phase| {
        reread(&broker, &args, i, phase)
    })?;
    Ok(out)
}

fn reread(broker: &str, args: &FetchArgs, index: usize, phase: &AtomicU8) -> Outcome<Tally> {
    let mut tail = Tail::new(broker, &args.topic, index as i32 % args.partitions, 0)?;
    let limits = FetchLimits {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: args.max_bytes,
    };
    let mut tally = Tally {
        histogram: Some(Histogram::new()),
        ..Tally::default()
    };
    while phase.load(Ordering::Relaxed) != DONE {
        let start = Instant::now();
        let answer = tail.fetch(&limits)?;
        if phase.load(Ordering::Relaxed) == MEASURING {
            tally.requests += 1;
            tally.bytes += answer.records.len() as u64;
            tally.errors += u64::from(answer.error != 0);
            if let Some(h) = &mut tally.histogram {
                h.add(start.elapsed());
            }
        }
        if tail.offset >= answer.high_watermark {
            tail.offset = 0;
        }
    }
    Ok(tally)
}

pub fn fanout(common: &Common, args: &FanoutArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    setup::create_topic(&mut conn, &args.topic, 1, &[("segment.bytes", "67108864")])?;
    let end = setup::end_offsets(&mut conn, &args.topic, 1)?[0];
    let mut out = Map::new();
    out.insert("mode".into(), json!("fanout"));
    let (broker, args) = (common.broker.clone(), args.clone());
    let threads = args.consumers + 1;
    let sum = timed(common, threads, &mut out, move |i, phase| {
        if i == 0 {
            pace(&broker, &args, phase)
        } else {
            follow(&broker, &args, end, phase)
        }
    })?;
    out.insert("delivered_gb".into(), json!(sum.bytes as f64 / 1e9));
    Ok(out)
}

/// Sends batches at the wanted rate; counts only errors, for the delivered bytes are what matters.
fn pace(broker: &str, args: &FanoutArgs, phase: &AtomicU8) -> Outcome<Tally> {
    let mut conn = Connection::open(broker)?;
    let (batch, _) = batch::filled(args.batch_bytes, 100, now_ms());
    let frame = produce_frame(&args.topic, 0, -1, &batch);
    let every = Duration::from_secs_f64(batch.len() as f64 / (args.mb_per_second * 1e6));
    let mut tally = Tally::default();
    let mut due = Instant::now();
    while phase.load(Ordering::Relaxed) != DONE {
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        due += every;
        conn.stream.write_all(&frame)?;
        let (code, _) = produce_answer(&conn.read_frame()?).ok_or("an answer that is none")?;
        tally.errors += u64::from(code != 0);
    }
    Ok(tally)
}

fn follow(broker: &str, args: &FanoutArgs, offset: i64, phase: &AtomicU8) -> Outcome<Tally> {
    let mut tail = Tail::new(broker, &args.topic, 0, offset)?;
    let limits = FetchLimits {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    let mut tally = Tally::default();
    while phase.load(Ordering::Relaxed) != DONE {
        let answer = tail.fetch(&limits)?;
        if phase.load(Ordering::Relaxed) == MEASURING {
            tally.requests += 1;
            tally.bytes += answer.records.len() as u64;
            tally.errors += u64::from(answer.error != 0);
        }
    }
    Ok(tally)
}
