//! `produce`: pre-encoded batches, a fixed number of requests in flight on each connection, as fast as it goes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::batch;
use crate::setup;
use crate::stats::{Histogram, Meter, now_ms};
use crate::wire::{Connection, Outcome, produce_answer, produce_frame};
use crate::{Common, ProduceArgs, topic_configs};

pub const WARMING: u8 = 0;
pub const MEASURING: u8 = 1;
pub const DONE: u8 = 2;

#[derive(Default)]
pub struct Tally {
    pub requests: u64,
    pub bytes: u64,
    pub errors: u64,
    pub histogram: Option<Histogram>,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        if let Some(h) = &other.histogram {
            self.histogram.get_or_insert_with(Histogram::new).merge(h);
        }
    }
}

/// Runs `work` on `threads` threads: warm-up, measured time, end. Returns what they counted while measured.
pub fn timed<F>(
    common: &Common,
    threads: usize,
    out: &mut Map<String, Value>,
    work: F,
) -> Outcome<Tally>
where
    F: Fn(usize, &AtomicU8) -> Outcome<Tally> + Send + Sync + 'static,
{
    let phase = Arc::new(AtomicU8::new(WARMING));
    let work = Arc::new(work);
    let handles: Vec<_> = (0..threads)
        .map(|i| {
            let (phase, work) = (phase.clone(), work.clone());
            thread::spawn(move || work(i, &phase))
        })
        .collect();
    thread::sleep(Duration::from_secs_f64(common.warmup));
    let meter = Meter::start(&common.pid);
    phase.store(MEASURING, Ordering::Relaxed);
    thread::sleep(Duration::from_secs_f64(common.seconds));
    phase.store(DONE, Ordering::Relaxed);
    let mut cost = Map::new();
    meter.stop(0, 0, &mut cost);
    let mut sum = Tally::default();
    for handle in handles {
        sum.add(&handle.join().map_err(|_| "a load thread panicked")??);
    }
    finish_cost(&mut cost, &sum);
    out.append(&mut cost);
    Ok(sum)
}

/// The meter stopped before the threads told their counts: works out the rates.
fn finish_cost(cost: &mut Map<String, Value>, sum: &Tally) {
    let number =
        |cost: &Map<String, Value>, k: &str| cost.get(k).and_then(Value::as_f64).unwrap_or(0.0);
    let (wall, cpu) = (number(cost, "seconds"), number(cost, "broker_cpu_s"));
    cost.insert("requests".into(), json!(sum.requests));
    cost.insert("errors".into(), json!(sum.errors));
    cost.insert("req_per_s".into(), json!(sum.requests as f64 / wall));
    cost.insert("mb_per_s".into(), json!(sum.bytes as f64 / wall / 1e6));
    cost.insert(
        "cpu_s_per_gb".into(),
        json!(cpu / (sum.bytes.max(1) as f64 / 1e9)),
    );
    cost.insert(
        "cpu_us_per_req".into(),
        json!(cpu * 1e6 / sum.requests.max(1) as f64),
    );
    if let Some(h) = &sum.histogram {
        h.report("", cost);
    }
}

pub fn run(common: &Common, args: &ProduceArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    let configs = topic_configs(&args.config);
    let (n, factor) = (args.partitions, common.replication_factor);
    let leaders = setup::create_replicated(&mut conn, &args.topic, n, factor, &configs)?;
    let mut by_leader: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (leader, p) in leaders.into_iter().zip(0..) {
        by_leader.entry(leader).or_default().push(p);
    }
    let by_leader: Vec<_> = by_leader.into_iter().collect();
    let (batch, records) = batch::filled(args.batch_bytes, args.record_bytes, now_ms());
    let mut out = Map::new();
    out.insert("mode".into(), json!("produce"));
    out.insert("batch_bytes".into(), json!(batch.len()));
    out.insert("records_per_batch".into(), json!(records));
    let args = args.clone();
    let (connections, topic, delete) = (args.connections, args.topic.clone(), args.delete);
    let sum = timed(common, connections, &mut out, move |i, phase| {
        let (leader, partitions) = &by_leader[i % by_leader.len()];
        saturate(leader, partitions, &args, i, &batch, phase)
    })?;
    if delete {
        setup::delete_topic(&mut conn, &topic)?;
    }
    out.insert(
        "records_per_s".into(),
        json!(sum.requests as f64 * records as f64 / common.seconds),
    );
    Ok(out)
}

/// One connection to the leader of some partitions. The frames of its partitions lie one behind the other, so that any number of them is one write.
fn saturate(
    leader: &str,
    partitions: &[i32],
    args: &ProduceArgs,
    index: usize,
    batch: &[u8],
    phase: &AtomicU8,
) -> Outcome<Tally> {
    let mut conn = Connection::open(leader)?;
    let frames: Vec<Vec<u8>> = (0..partitions.len())
        .map(|i| partitions[(i + index) % partitions.len()])
        .map(|p| produce_frame(&args.topic, p, args.acks, batch))
        .collect();
    let size = frames[0].len();
    let slots = args
        .in_flight
        .next_multiple_of(frames.len())
        .min((64 << 20) / size)
        .max(frames.len());
    let ring: Vec<u8> = frames
        .iter()
        .cycle()
        .take(slots)
        .flatten()
        .copied()
        .collect();
    let (mut position, mut answers) = (0usize, Answers::new());
    let mut sent_at = VecDeque::with_capacity(args.in_flight);
    let mut tally = Tally {
        histogram: Some(Histogram::new()),
        ..Tally::default()
    };
    let mut room = args.in_flight;
    loop {
        let stopping = phase.load(Ordering::Relaxed) == DONE;
        while room > 0 && !stopping {
            let n = room.min(slots - position);
            let now = Instant::now();
            sent_at.extend(std::iter::repeat_n(now, n));
            conn.stream
                .write_all(&ring[position * size..(position + n) * size])?;
            position = (position + n) % slots;
            room -= n;
        }
        if sent_at.is_empty() {
            return Ok(tally);
        }
        let measuring = phase.load(Ordering::Relaxed) == MEASURING;
        let codes = answers.read(&mut conn.stream)?;
        let now = Instant::now();
        for code in codes {
            room += 1;
            let sent = sent_at.pop_front().ok_or("an answer too many")?;
            if measuring {
                tally.requests += 1;
                tally.bytes += batch.len() as u64;
                tally.errors += u64::from(code != 0);
                if let Some(h) = &mut tally.histogram {
                    h.add(now - sent);
                }
            }
        }
    }
}

/// Splits what one read brings into answers.
struct Answers {
    buf: Vec<u8>,
    filled: usize,
}

impl Answers {
    fn new() -> Self {
        Self {
            buf: vec![0; 256 << 10],
            filled: 0,
        }
    }

    /// Error codes of the whole answers of one read; blocks until there is at least one byte.
    fn read(&mut self, stream: &mut std::net::TcpStream) -> Outcome<Vec<i16>> {
        let n = stream.read(&mut self.buf[self.filled..])?;
        if n == 0 {
            return Err("the broker closed the connection".into());
        }
        self.filled += n;
        let (mut at, mut codes) = (0, Vec::new());
        while let Some(size) = self.buf[at..self.filled].first_chunk::<4>() {
            let end = at + 4 + u32::from_be_bytes(*size) as usize;
            if end > self.filled {
                break;
            }
            let (code, _) =
                produce_answer(&self.buf[at + 4..end]).ok_or("an answer that is none")?;
            codes.push(code);
            at = end;
        }
        self.buf.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(codes)
    }
}
