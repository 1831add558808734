//! The side that writes, over connections that break.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest};
use kafka_protocol::protocol::StrBytes;
use serde_json::{Map, Value, json};

use super::{GROUPS, Load, WriterArgs, group_id, group_name, records_file};
use crate::setup::{self, topic_name};
use crate::stats::now_ms;
use crate::wire::{Connection, Outcome, produce_answer, produce_frame};
use crate::{Common, batch};

/// How long a step may fail over restarts before that is a finding.
const STUCK: Duration = Duration::from_mins(1);
/// Batches of a producer without an answer. After a kill a broker knows the last batch of a producer before the newest
/// segment, and all behind it, as Apache Kafka does: where segments are small, a second batch in flight would now and then be
/// neither the next one nor a known one.
fn in_flight_max(load: Load) -> usize {
    match load {
        Load::Kept => 5,
        Load::Retained | Load::Compacted => 1,
    }
}
/// Codes a broker may give while it starts; the request is tried again.
const RETRIABLE: [i16; 9] = [3, 5, 6, 7, 13, 14, 15, 16, 56];

fn log_file(path: &Path) -> Outcome<File> {
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

fn stopping(dir: &Path) -> bool {
    dir.join("stop").exists()
}

pub fn write(common: &Common, args: &WriterArgs) -> Outcome<Map<String, Value>> {
    let crash = &args.crash;
    std::fs::create_dir_all(&crash.dir)?;
    let mut conn = Connection::open(&common.broker)?;
    let mut handles = Vec::new();
    for load in crash.loads() {
        setup::create_topic(&mut conn, load.topic(), crash.partitions, load.configs())?;
        for p in 0..crash.partitions {
            let (broker, args) = (common.broker.clone(), args.clone());
            handles.push(thread::spawn(move || {
                Writer::new(broker, args, *load, p)?.run()
            }));
        }
    }
    drop(conn);
    for work in [commit_offsets, make_topics] {
        let (broker, args) = (common.broker.clone(), args.clone());
        handles.push(thread::spawn(move || keep_on(&broker, &args, work)));
    }
    let (mut acknowledged, mut problems) = (0, Vec::new());
    for handle in handles {
        match handle.join().map_err(|_| "a writer panicked")? {
            Ok(n) => acknowledged += n,
            Err(e) => problems.push(e.to_string()),
        }
    }
    let line = json!({"mode": "crash-writer", "ok": problems.is_empty(),
        "acknowledged": acknowledged, "problems": problems});
    Ok(line.as_object().cloned().unwrap_or_default())
}

struct Pending {
    first: u64,
    frame: Vec<u8>,
}

struct Writer {
    broker: String,
    args: WriterArgs,
    load: Load,
    partition: i32,
    log: File,
    producer: Option<(i64, i16)>,
    next: u64,
    acknowledged: u64,
    in_flight: VecDeque<Pending>,
    last_error: String,
}

impl Writer {
    fn new(broker: String, args: WriterArgs, load: Load, partition: i32) -> Outcome<Self> {
        let log = log_file(&records_file(&args.crash.dir, load, partition))?;
        Ok(Self {
            broker,
            args,
            load,
            partition,
            log,
            producer: None,
            next: 0,
            acknowledged: 0,
            in_flight: VecDeque::new(),
            last_error: String::new(),
        })
    }

    fn run(mut self) -> Outcome<u64> {
        let mut give_up: Option<Instant> = None;
        loop {
            if stopping(&self.args.crash.dir) {
                let at = *give_up.get_or_insert_with(|| Instant::now() + Duration::from_secs(15));
                if self.acknowledged > 0 && self.in_flight.is_empty() {
                    return Ok(self.acknowledged);
                }
                if Instant::now() > at {
                    return Err(format!(
                        "{}-{}: stuck with {}",
                        self.load.topic(),
                        self.partition,
                        self.last_error
                    )
                    .into());
                }
            }
            // Whatever breaks a connection is part of the game, except a code that says records went wrong.
            match self.session() {
                Err(e) if e.to_string().starts_with("wrong:") => return Err(e),
                Err(e) => {
                    self.last_error = e.to_string();
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(()) => {}
            }
        }
    }

    /// One connection. When it breaks, answers that came before may still be read: a broker that was stopped knows only
    /// the last batch of a producer when it comes back, as Apache Kafka does.
    fn session(&mut self) -> Outcome<()> {
        let mut conn = Connection::open(&self.broker)?;
        let ended = self.exchange(&mut conn);
        while ended.is_err() && !self.in_flight.is_empty() {
            match self.answer(&mut conn) {
                Ok(()) => {}
                Err(e) if e.to_string().starts_with("wrong:") => return Err(e),
                Err(_) => break,
            }
        }
        ended
    }

    /// Everything not yet acknowledged again, then new batches.
    fn exchange(&mut self, conn: &mut Connection) -> Outcome<()> {
        if self.producer.is_none() {
            self.producer = Some(setup::producer_id(conn)?);
        }
        for pending in &self.in_flight {
            conn.stream.write_all(&pending.frame)?;
        }
        loop {
            let stop = stopping(&self.args.crash.dir);
            if stop && self.in_flight.is_empty() {
                return Ok(());
            }
            let in_flight_max = in_flight_max(self.load);
            if !stop && self.in_flight.len() < in_flight_max {
                let frame = self.batch()?;
                conn.stream.write_all(&frame)?;
                if self.in_flight.len() < in_flight_max && !self.next.is_multiple_of(3) {
                    continue;
                }
            }
            self.answer(conn)?;
            thread::sleep(Duration::from_micros(self.args.pause_us));
        }
    }

    fn batch(&mut self) -> Outcome<Vec<u8>> {
        let (id, epoch) = self.producer.ok_or("no producer id")?;
        let records: Vec<_> = (self.next..self.next + self.args.per_batch)
            .map(|n| (self.load.key(n), self.load.value(self.partition, n)))
            .collect();
        let refs: Vec<_> = records
            .iter()
            .map(|(key, value)| (key.as_deref(), value.as_deref()))
            .collect();
        let sequence = (self.next % (1 << 31)) as i32;
        let producer = batch::Producer {
            id,
            epoch,
            sequence,
        };
        let batch = batch::of_records(&refs, now_ms(), Some(&producer));
        let frame = produce_frame(self.load.topic(), self.partition, -1, &batch);
        self.in_flight.push_back(Pending {
            first: self.next,
            frame: frame.clone(),
        });
        self.next += self.args.per_batch;
        Ok(frame)
    }

    fn answer(&mut self, conn: &mut Connection) -> Outcome<()> {
        let (code, offset) = produce_answer(&conn.read_frame()?).ok_or("no Produce answer")?;
        let first = self.in_flight.front().ok_or("an answer too many")?.first;
        if RETRIABLE.contains(&code) {
            return Err(format!("code {code}").into());
        }
        if code != 0 || offset != first as i64 {
            let (topic, p) = (self.load.topic(), self.partition);
            return Err(
                format!("wrong: {topic}-{p} batch {first}: code {code}, offset {offset}").into(),
            );
        }
        writeln!(self.log, "{first} {}", self.args.per_batch)?;
        self.in_flight.pop_front();
        self.acknowledged += self.args.per_batch;
        Ok(())
    }
}

type Step = fn(&mut Connection, &WriterArgs, u64) -> Outcome<()>;

/// Runs a step again and again over connections that break. The step's number grows only when it succeeded.
fn keep_on(broker: &str, args: &WriterArgs, step: Step) -> Outcome<u64> {
    let (mut n, mut succeeded) = (0, Instant::now());
    while !stopping(&args.crash.dir) {
        let Ok(mut conn) = Connection::open(broker) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !stopping(&args.crash.dir) {
            match step(&mut conn, args, n) {
                Ok(()) => {
                    n += 1;
                    succeeded = Instant::now();
                }
                Err(e) if e.to_string().starts_with("wrong:") => return Err(e),
                Err(e) if succeeded.elapsed() > STUCK => {
                    return Err(format!("wrong: step {n} does not get done: {e}").into());
                }
                Err(_) => break,
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(0)
}

fn commit_offsets(conn: &mut Connection, args: &WriterArgs, n: u64) -> Outcome<()> {
    let group = n as usize % GROUPS;
    let find = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group_name(group)));
    if n == 0 && conn.call(&find, 2)?.error_code != 0 {
        return Err("no coordinator yet".into());
    }
    let partitions = (0..args.crash.partitions)
        .map(|p| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(p)
                .with_committed_offset(n as i64)
                .with_committed_metadata(Some(StrBytes::from_string(format!("commit {n}"))))
        })
        .collect();
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(Load::Kept.topic()))
        .with_partitions(partitions);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let response = conn.call(&request, 8)?;
    for p in response.topics.iter().flat_map(|t| &t.partitions) {
        if RETRIABLE.contains(&p.error_code) {
            return Err(format!("code {}", p.error_code).into());
        }
        if p.error_code != 0 {
            return Err(format!("wrong: commit answered {}", p.error_code).into());
        }
    }
    writeln!(log_file(&args.crash.dir.join("commits"))?, "{group} {n}")?;
    thread::sleep(Duration::from_millis(4));
    Ok(())
}

/// Creates a topic and deletes an older one, each written down before it is tried and when it is done.
fn make_topics(conn: &mut Connection, args: &WriterArgs, n: u64) -> Outcome<()> {
    let mut log = log_file(&args.crash.dir.join("topics"))?;
    let name = format!("crash-topic-{n}");
    setup::create_topic(conn, &name, 2, &[("retention.ms", "123456789")])?;
    writeln!(log, "created {name}")?;
    if n % 2 == 1 && n > 4 {
        let old = format!("crash-topic-{}", n - 4);
        writeln!(log, "deleting {old}")?;
        setup::delete_topic(conn, &old)?;
        writeln!(log, "deleted {old}")?;
    }
    thread::sleep(Duration::from_millis(400));
    Ok(())
}
