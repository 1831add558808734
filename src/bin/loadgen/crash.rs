//! `crash-writer`: idempotent producers, an offset committer and a topic maker that outlive a broker which is killed again and
//! again, and write down what was acknowledged. `crash-verify`: reads everything back and holds it against that.
//!
//! Each partition has one producer that numbers its records from 0, so a record's offset must be its number: anything
//! lost, doubled or out of order shows at once.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use serde_json::{Map, Value, json};

use crate::fetch::Tail;
use crate::setup::{self, topic_name};
use crate::stats::now_ms;
use crate::wire::{Connection, FetchLimits, Outcome, produce_answer, produce_frame};
use crate::{Common, batch};

#[derive(Args, Clone)]
pub struct WriterArgs {
    /// Where the logs of what was acknowledged go; the run ends when a file `stop` appears there
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value = "crash")]
    topic: String,
    /// Partitions, each with its own producer on its own connection
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    #[arg(long, default_value_t = 10)]
    per_batch: u64,
    /// Pause of a producer between batches
    #[arg(long, default_value_t = 2000)]
    pause_us: u64,
}

#[derive(Args, Clone)]
pub struct VerifyArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value = "crash")]
    topic: String,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
}

/// How long a step may fail over restarts before that is a finding.
const STUCK: Duration = Duration::from_mins(1);
const GROUPS: usize = 3;
const IN_FLIGHT: usize = 5;
/// Codes a broker may give while it starts; the request is tried again.
const RETRIABLE: [i16; 9] = [3, 5, 6, 7, 13, 14, 15, 16, 56];

fn log_file(dir: &Path, name: &str) -> Outcome<File> {
    Ok(OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(name))?)
}

fn stopping(dir: &Path) -> bool {
    dir.join("stop").exists()
}

pub fn write(common: &Common, args: &WriterArgs) -> Outcome<Map<String, Value>> {
    std::fs::create_dir_all(&args.dir)?;
    let mut conn = Connection::open(&common.broker)?;
    let small = [("segment.bytes", "1048576")];
    setup::create_topic(&mut conn, &args.topic, args.partitions, &small)?;
    drop(conn);
    let mut handles = Vec::new();
    for p in 0..args.partitions {
        let (broker, args) = (common.broker.clone(), args.clone());
        handles.push(thread::spawn(move || Writer::new(broker, args, p)?.run()));
    }
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
    partition: i32,
    log: File,
    producer: Option<(i64, i16)>,
    next: u64,
    acknowledged: u64,
    in_flight: VecDeque<Pending>,
    last_error: String,
}

impl Writer {
    fn new(broker: String, args: WriterArgs, partition: i32) -> Outcome<Self> {
        let log = log_file(&args.dir, &format!("records-{partition}"))?;
        Ok(Self {
            broker,
            args,
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
            if stopping(&self.args.dir) {
                let at = *give_up.get_or_insert_with(|| Instant::now() + Duration::from_secs(15));
                if self.acknowledged > 0 && self.in_flight.is_empty() {
                    return Ok(self.acknowledged);
                }
                if Instant::now() > at {
                    return Err(format!(
                        "partition {}: stuck with {}",
                        self.partition, self.last_error
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

    /// One connection: everything not yet acknowledged again, then new batches.
    fn session(&mut self) -> Outcome<()> {
        let mut conn = Connection::open(&self.broker)?;
        if self.producer.is_none() {
            self.producer = Some(setup::producer_id(&mut conn)?);
        }
        for pending in &self.in_flight {
            conn.stream.write_all(&pending.frame)?;
        }
        loop {
            let stop = stopping(&self.args.dir);
            if stop && self.in_flight.is_empty() {
                return Ok(());
            }
            if !stop && self.in_flight.len() < IN_FLIGHT {
                let frame = self.batch()?;
                conn.stream.write_all(&frame)?;
                if self.in_flight.len() < IN_FLIGHT && !self.next.is_multiple_of(3) {
                    continue;
                }
            }
            self.answer(&mut conn)?;
            thread::sleep(Duration::from_micros(self.args.pause_us));
        }
    }

    fn batch(&mut self) -> Outcome<Vec<u8>> {
        let (id, epoch) = self.producer.ok_or("no producer id")?;
        let values: Vec<Vec<u8>> = (self.next..self.next + self.args.per_batch)
            .map(|n| {
                format!("{}:{n}:{}", self.partition, "x".repeat((n % 150) as usize)).into_bytes()
            })
            .collect();
        let refs: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let sequence = (self.next % (1 << 31)) as i32;
        let producer = batch::Producer {
            id,
            epoch,
            sequence,
        };
        let batch = batch::of_values(&refs, now_ms(), Some(&producer));
        let frame = produce_frame(&self.args.topic, self.partition, -1, &batch);
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
            let p = self.partition;
            return Err(format!(
                "wrong: partition {p} batch {first}: code {code}, offset {offset}"
            )
            .into());
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
    while !stopping(&args.dir) {
        let Ok(mut conn) = Connection::open(broker) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !stopping(&args.dir) {
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

fn group_name(i: usize) -> String {
    format!("crash-group-{i}")
}

fn group_id(i: usize) -> GroupId {
    GroupId(StrBytes::from_string(group_name(i)))
}

fn commit_offsets(conn: &mut Connection, args: &WriterArgs, n: u64) -> Outcome<()> {
    let group = n as usize % GROUPS;
    let find = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group_name(group)));
    if n == 0 && conn.call(&find, 2)?.error_code != 0 {
        return Err("no coordinator yet".into());
    }
    let partitions = (0..args.partitions)
        .map(|p| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(p)
                .with_committed_offset(n as i64)
                .with_committed_metadata(Some(StrBytes::from_string(format!("commit {n}"))))
        })
        .collect();
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(&args.topic))
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
    writeln!(log_file(&args.dir, "commits")?, "{group} {n}")?;
    thread::sleep(Duration::from_millis(15));
    Ok(())
}

/// Creates a topic and deletes an older one, each written down before it is tried and when it is done.
fn make_topics(conn: &mut Connection, args: &WriterArgs, n: u64) -> Outcome<()> {
    let mut log = log_file(&args.dir, "topics")?;
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

pub fn verify(common: &Common, args: &VerifyArgs) -> Outcome<Map<String, Value>> {
    let mut problems = Vec::new();
    let mut read_back = 0;
    // The logs first: what is acknowledged while this reads need not be there yet.
    let acknowledged: Vec<u64> = (0..args.partitions)
        .map(|p| acknowledged_end(&args.dir.join(format!("records-{p}"))))
        .collect();
    let commits = read_lines(&args.dir.join("commits"));
    let topics = read_lines(&args.dir.join("topics"));
    for (p, end) in acknowledged.iter().enumerate() {
        match read_partition(common, args, p as i32, *end) {
            Ok(n) => read_back += n,
            Err(e) => problems.push(format!("partition {p}: {e}")),
        }
    }
    let mut conn = Connection::open(&common.broker)?;
    for found in [
        check_commits(&mut conn, args, &commits),
        check_topics(&mut conn, args, &topics),
    ] {
        match found {
            Ok(mut list) => problems.append(&mut list),
            Err(e) => problems.push(e.to_string()),
        }
    }
    let line = json!({"mode": "crash-verify", "ok": problems.is_empty(), "read_back": read_back,
        "acknowledged": acknowledged.iter().sum::<u64>(), "commits": commits.len(),
        "topic_changes": topics.len(), "problems": problems});
    Ok(line.as_object().cloned().unwrap_or_default())
}

/// Whether a broker that has just started may still say so; waits a little if it may.
fn may_wait(code: i16, since: Instant) -> bool {
    let starting = [5, 6, 14, 15, 16].contains(&code) && since.elapsed() < Duration::from_secs(15);
    if starting {
        thread::sleep(Duration::from_millis(50));
    }
    starting
}

fn read_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

/// The number behind the last acknowledged record.
fn acknowledged_end(path: &Path) -> u64 {
    let lines = read_lines(path);
    let Some((first, count)) = lines.last().and_then(|l| l.split_once(' ')) else {
        return 0;
    };
    first.parse::<u64>().unwrap_or(0) + count.parse::<u64>().unwrap_or(0)
}

/// Reads a partition from the start; returns how many records are in it.
fn read_partition(common: &Common, args: &VerifyArgs, partition: i32, wanted: u64) -> Outcome<u64> {
    let mut tail = Tail::new(&common.broker, &args.topic, partition, 0)?;
    let limits = FetchLimits {
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    let (mut next, since) = (0u64, Instant::now());
    loop {
        let answer = tail.fetch(&limits)?;
        if may_wait(answer.error, since) {
            continue;
        }
        if answer.error != 0 {
            return Err(format!("Fetch at {next}: error {}", answer.error).into());
        }
        for batch in batch::walk(tail.records(&answer)) {
            if batch.base_offset != next as i64 {
                return Err(format!("offset {} where {next} should be", batch.base_offset).into());
            }
            let values = batch::values(&batch).ok_or_else(|| format!("damaged batch at {next}"))?;
            for value in values {
                let number = std::str::from_utf8(value)
                    .ok()
                    .and_then(|v| v.split(':').nth(1));
                if number != Some(next.to_string().as_str()) {
                    return Err(format!("record {number:?} at offset {next}").into());
                }
                next += 1;
            }
            if batch.next_offset != next as i64 || batch.producer_id < 0 {
                return Err(format!("batch ends at {} with {next}", batch.next_offset).into());
            }
        }
        if next as i64 >= answer.high_watermark && next >= wanted {
            return Ok(next);
        }
        if answer.records.is_empty() && next < wanted {
            return Err(format!("{next} records, {wanted} were acknowledged").into());
        }
    }
}

fn check_commits(
    conn: &mut Connection,
    args: &VerifyArgs,
    lines: &[String],
) -> Outcome<Vec<String>> {
    let mut last = BTreeMap::new();
    for line in lines {
        if let Some((group, n)) = line.split_once(' ') {
            last.insert(group.parse::<usize>()?, n.parse::<i64>()?);
        }
    }
    let mut problems = Vec::new();
    for (group, n) in last {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&args.topic))
            .with_partition_indexes((0..args.partitions).collect());
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(vec![topic]));
        let since = Instant::now();
        let mut response = conn.call(&request, 7)?;
        while may_wait(response.error_code, since) {
            response = conn.call(&request, 7)?;
        }
        let all: Vec<_> = response.topics.iter().flat_map(|t| &t.partitions).collect();
        // A later commit may have been written without its answer having come.
        let good = |p: &&_| {
            let p: &kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartition =
                p;
            p.error_code == 0
                && p.committed_offset >= n
                && p.committed_offset % GROUPS as i64 == group as i64
        };
        if response.error_code != 0
            || all.len() != args.partitions as usize
            || !all.iter().all(good)
        {
            let got: Vec<_> = all
                .iter()
                .map(|p| (p.error_code, p.committed_offset))
                .collect();
            problems.push(format!(
                "group {group}: committed {n}, error {}, now {got:?}",
                response.error_code
            ));
        }
    }
    Ok(problems)
}

fn check_topics(
    conn: &mut Connection,
    args: &VerifyArgs,
    lines: &[String],
) -> Outcome<Vec<String>> {
    let mut wanted: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for line in lines {
        match line.split_once(' ') {
            Some(("created", t)) => wanted.insert(t, Some(true)),
            Some(("deleting", t)) => wanted.insert(t, None),
            Some(("deleted", t)) => wanted.insert(t, Some(false)),
            _ => None,
        };
    }
    let mut problems = Vec::new();
    for (name, there) in wanted {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        let since = Instant::now();
        let mut response = conn.call(&request, 9)?;
        while may_wait(response.topics.first().map_or(0, |t| t.error_code), since) {
            response = conn.call(&request, 9)?;
        }
        let t = response
            .topics
            .first()
            .ok_or("Metadata without the topic")?;
        let good = match there {
            Some(true) => {
                let there = t.error_code == 0 && t.partitions.len() == 2;
                // The writer goes on: it may have deleted the topic since.
                there || read_lines(&args.dir.join("topics")).contains(&format!("deleting {name}"))
            }
            Some(false) => t.error_code == 3,
            None => true,
        };
        if !good {
            let n = t.partitions.len();
            problems.push(format!(
                "topic {name}: error {}, {n} partitions, wanted {there:?}",
                t.error_code
            ));
        }
    }
    Ok(problems)
}
