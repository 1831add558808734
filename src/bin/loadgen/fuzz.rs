//! `fuzz`: mutated frames against a running broker. Other connections must go on working, memory must stay bounded.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest, MetadataRequest};
use ottla::quorum::RAFT_API_KEY;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::seeds::{self, Rng, Seed, TOPICS};
use crate::stats::{now_ms, rss_kib};
use crate::wire::{
    Connection, FetchLimits, Outcome, fetch_answer, fetch_frame, produce_answer, produce_frame,
};
use crate::{Common, batch, controller_seeds, setup};

#[derive(Args, Clone)]
pub struct FuzzArgs {
    /// Send the frames there, to the active controller's listener, instead of to the broker
    #[arg(long)]
    attack: Option<String>,
    #[arg(long, default_value_t = 200_000)]
    frames: u64,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// 0 takes the clock
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Valid frames made up for each version of each API
    #[arg(long, default_value_t = 6)]
    each: usize,
    /// The run fails when the broker's memory grows beyond this (0: no bound)
    #[arg(long, default_value_t = 0)]
    rss_limit_mib: u64,
}

const KEEP: &str = "kept-while-fuzzing";
const KEPT: usize = 20;
/// How long a frame may stay unanswered before the connection is given up (long polls, joins that wait).
const PATIENCE: Duration = Duration::from_millis(250);
const WINDOW: usize = 8;
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_CONTROLLER: i16 = 41;
const CANARY_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Shared {
    left: AtomicU64,
    answered: AtomicU64,
    closed: AtomicU64,
    silent: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
    canary_max_us: AtomicU64,
    canary_count: AtomicU64,
    rss_max_kib: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    fn problem(&self, text: String) {
        eprintln!("fuzz: {text}");
        if let Ok(mut p) = self.problems.lock() {
            p.push(text);
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub fn run(common: &Common, args: &FuzzArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    for topic in TOPICS {
        setup::create_topic(&mut conn, topic, 3, &[])?;
    }
    setup::create_topic(&mut conn, KEEP, 1, &[])?;
    keep(&mut conn)?;
    let topic_id = topic_id(&mut conn, TOPICS[1])?;
    let seed = if args.seed == 0 {
        now_ms() as u64
    } else {
        args.seed
    };
    let all = seeds::all(&mut Rng(seed), topic_id, args.each);
    let target = args.attack.as_ref().unwrap_or(&common.broker);
    let mut attacked = Connection::open(target)?;
    let deep = match args.attack {
        Some(_) => controller_seeds::all(&mut attacked, topic_id, &all)?,
        None => Vec::new(),
    };
    let seeds = Arc::new(Seeds::sorted(all, deep, &mut attacked)?);
    seeds.tell(seed);
    let shared = Arc::new(Shared {
        left: AtomicU64::new(args.frames),
        ..Shared::default()
    });
    let start = Instant::now();
    let watchers = [
        thread::spawn({
            let (shared, broker) = (shared.clone(), common.broker.clone());
            move || canary(&broker, &shared)
        }),
        thread::spawn({
            let (shared, pids, limit) = (shared.clone(), common.pid.clone(), args.rss_limit_mib);
            move || watch_memory(&pids, limit, &shared)
        }),
    ];
    let workers: Vec<_> = (0..args.connections as u64)
        .map(|i| {
            let (shared, seeds, target) = (shared.clone(), seeds.clone(), target.clone());
            thread::spawn(move || attack(&target, &seeds, Rng(seed * 1000 + i + 1), &shared))
        })
        .collect();
    for w in workers {
        w.join().map_err(|_| "a fuzzing thread panicked")?;
    }
    shared.stop.store(true, Ordering::Relaxed);
    for w in watchers {
        w.join().map_err(|_| "a watching thread panicked")?;
    }
    // The connection of the start, idle all the time, must still work and what was written must be there.
    if let Err(e) = kept(&mut conn) {
        shared.problem(format!("what was kept: {e}"));
    }
    if let Some(controller) = &args.attack {
        let deposed = decides(controller)
            .and_then(|()| depose(controller, topic_id))
            .and_then(|()| decides(controller));
        if let Err(e) = deposed {
            shared.problem(format!("CreateTopics at the controller: {e}"));
        }
    }
    report(&shared, args, start.elapsed().as_secs_f64())
}

/// Valid frames, those of versions that are listed as served apart: the others only close the connection.
struct Seeds {
    served: Vec<Seed>,
    others: Vec<Seed>,
    /// Served too, and every other one that is sent.
    deep: Vec<Seed>,
}

impl Seeds {
    fn sorted(all: Vec<Seed>, deep: Vec<Seed>, conn: &mut Connection) -> Outcome<Self> {
        let listed = conn.call(&ApiVersionsRequest::default(), 0)?.api_keys;
        let is_served = |seed: &Seed| {
            let (key, version) = seed.key_and_version();
            let mut rows = listed.iter().filter(|row| row.api_key == key);
            rows.any(|row| (row.min_version..=row.max_version).contains(&version))
        };
        let (served, others): (Vec<_>, _) = all.into_iter().partition(is_served);
        // Raft's are private, and not listed.
        let is_meant = |seed: &Seed| is_served(seed) || seed.key_and_version().0 == RAFT_API_KEY;
        let deep = deep.into_iter().filter(is_meant).collect();
        if served.is_empty() {
            return Err("nothing is served".into());
        }
        Ok(Self {
            served,
            others,
            deep,
        })
    }

    fn tell(&self, seed: u64) {
        let all = self.served.iter().chain(&self.others).chain(&self.deep);
        let versions: BTreeSet<_> = all.map(Seed::key_and_version).collect();
        eprintln!(
            "fuzz: seed {seed}, {} valid frames of versions served, {} of them with real ids, {} others, {} APIs and versions",
            self.served.len() + self.deep.len(),
            self.deep.len(),
            self.others.len(),
            versions.len()
        );
    }

    fn any(&self, rng: &mut Rng) -> &Seed {
        let from = match rng.below(25) {
            0 if !self.others.is_empty() => &self.others,
            1..=12 if !self.deep.is_empty() => &self.deep,
            _ => &self.served,
        };
        &from[rng.below(from.len())]
    }
}

/// Makes the controller lose its leadership to a candidate that is heard of no more.
fn depose(controller: &str, topic_id: Uuid) -> Outcome<()> {
    for seed in controller_seeds::candidacies(&mut Connection::open(controller)?, topic_id)? {
        let mut conn = Connection::open(controller)?;
        conn.stream
            .write_all(&(seed.bytes.len() as u32).to_be_bytes())?;
        conn.stream.write_all(&seed.bytes)?;
        conn.read_frame()?;
    }
    Ok(())
}

/// Whether the controller still creates topics, though it may have an election to win first.
fn decides(controller: &str) -> Outcome<()> {
    let topic = CreatableTopic::default()
        .with_name(setup::topic_name(&format!("decided-{}", now_ms())))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(5_000);
    let deadline = Instant::now() + CANARY_PATIENCE;
    loop {
        let answer = Connection::open(controller)?.call(&request, 5)?;
        match answer.topics.first().map(|topic| topic.error_code) {
            Some(0) => return Ok(()),
            Some(NOT_CONTROLLER | REQUEST_TIMED_OUT) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(100));
            }
            code => return Err(format!("error {code:?}").into()),
        }
    }
}

fn report(shared: &Shared, args: &FuzzArgs, seconds: f64) -> Outcome<Map<String, Value>> {
    let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
    let problems = shared.problems.lock().map_err(|_| "poisoned")?.clone();
    let sent = args.frames - get(&shared.left).min(args.frames);
    let line = json!({
        "mode": "fuzz", "ok": problems.is_empty(), "frames": sent, "seconds": seconds,
        "frames_per_s": sent as f64 / seconds, "answered": get(&shared.answered),
        "closed": get(&shared.closed), "silent": get(&shared.silent), "refused": get(&shared.refused),
        "canary_requests": get(&shared.canary_count),
        "canary_max_ms": get(&shared.canary_max_us) as f64 / 1e3,
        "rss_max_mib": get(&shared.rss_max_kib) as f64 / 1024.0, "problems": problems,
    });
    Ok(line.as_object().cloned().unwrap_or_default())
}

fn keep(conn: &mut Connection) -> Outcome<()> {
    let values: Vec<Vec<u8>> = (0..KEPT)
        .map(|i| format!("kept {i}").into_bytes())
        .collect();
    let refs: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let batch = batch::of_values(&refs, now_ms(), None);
    conn.stream.write_all(&produce_frame(KEEP, 0, -1, &batch))?;
    match produce_answer(&conn.read_frame()?) {
        Some((0, _)) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn kept(conn: &mut Connection) -> Outcome<()> {
    let limits = FetchLimits {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    conn.stream.write_all(&fetch_frame(KEEP, 0, 0, &limits))?;
    let body = conn.read_frame()?;
    let answer = fetch_answer(&body).ok_or("no Fetch answer")?;
    let batch = batch::walk(&body[answer.records])
        .next()
        .ok_or("nothing there")?;
    let records = batch::records(&batch).ok_or("a damaged batch")?;
    let good = records
        .iter()
        .enumerate()
        .all(|(i, r)| r.value == Some(format!("kept {i}").as_bytes()));
    if good && records.len() == KEPT {
        Ok(())
    } else {
        Err("other records".into())
    }
}

fn topic_id(conn: &mut Connection, name: &str) -> Outcome<Uuid> {
    let topic = MetadataRequestTopic::default().with_name(Some(setup::topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let response = conn.call(&request, 12)?;
    Ok(response.topics.first().ok_or("no topic")?.topic_id)
}

/// One connection that behaves, all the time.
fn canary(broker: &str, shared: &Shared) {
    let Ok(mut conn) = Connection::open(broker) else {
        return shared.problem("the canary cannot connect".into());
    };
    if let Err(e) = conn.stream.set_read_timeout(Some(CANARY_PATIENCE)) {
        return shared.problem(e.to_string());
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        if let Err(e) = conn.call(&request, 9) {
            return shared.problem(format!("the canary's connection: {e}"));
        }
        let us = start.elapsed().as_micros() as u64;
        shared.canary_max_us.fetch_max(us, Ordering::Relaxed);
        shared.canary_count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
}

fn watch_memory(pids: &[u32], limit_mib: u64, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let kib = rss_kib(pids);
        shared.rss_max_kib.fetch_max(kib, Ordering::Relaxed);
        if limit_mib > 0 && kib > limit_mib * 1024 {
            return shared.problem(format!("the broker's memory is at {} MiB", kib / 1024));
        }
        if !pids.is_empty() && kib == 0 {
            return shared.problem("the broker is gone".into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn attack(broker: &str, seeds: &Seeds, mut rng: Rng, shared: &Shared) {
    let mut stream: Option<TcpStream> = None;
    let mut refused_in_a_row = 0;
    let mut buf = vec![0u8; 1 << 16];
    while !shared.stop.load(Ordering::Relaxed) {
        if shared.left.load(Ordering::Relaxed) == 0 {
            return;
        }
        let s = match stream.take().map_or_else(|| connect(broker), Ok) {
            Ok(s) => s,
            Err(e) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                refused_in_a_row += 1;
                if refused_in_a_row > 200 {
                    return shared.problem(format!("cannot connect: {e}"));
                }
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        refused_in_a_row = 0;
        let mut bytes = Vec::new();
        for _ in 0..WINDOW {
            mutate(&mut rng, seeds, &mut bytes);
        }
        stream = exchange(s, &bytes, &mut buf, shared);
    }
}

fn connect(broker: &str) -> std::io::Result<TcpStream> {
    let s = TcpStream::connect(broker)?;
    s.set_nodelay(true)?;
    s.set_read_timeout(Some(PATIENCE))?;
    s.set_write_timeout(Some(PATIENCE))?;
    Ok(s)
}

/// Sends a window of frames and counts answers until all came, or silence, or the end. Returns a usable connection.
fn exchange(mut s: TcpStream, bytes: &[u8], buf: &mut [u8], shared: &Shared) -> Option<TcpStream> {
    let mut done = 0u64;
    let (mut need, mut header, mut header_len) = (0usize, [0u8; 4], 0);
    let mut ended = s.write_all(bytes).is_err();
    let mut silent = false;
    while done < WINDOW as u64 && !silent {
        let n = match s.read(buf) {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                silent = true;
                break;
            }
            Err(_) => {
                ended = true;
                break;
            }
        };
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            if need == 0 {
                let take = rest.len().min(4 - header_len);
                header[header_len..header_len + take].copy_from_slice(&rest[..take]);
                header_len += take;
                rest = &rest[take..];
                if header_len == 4 {
                    need = u32::from_be_bytes(header) as usize;
                    header_len = 0;
                }
            } else {
                let take = rest.len().min(need);
                need -= take;
                rest = &rest[take..];
                if need == 0 {
                    done += 1;
                }
            }
        }
    }
    shared.answered.fetch_add(done, Ordering::Relaxed);
    if ended {
        shared.closed.fetch_add(1, Ordering::Relaxed);
    } else if silent {
        shared.silent.fetch_add(1, Ordering::Relaxed);
    }
    // Frames behind the one that closed the connection were never looked at, and do not count.
    let worked = done + u64::from(done < WINDOW as u64);
    let _ = shared
        .left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| {
            Some(l.saturating_sub(worked))
        });
    (done == WINDOW as u64).then_some(s)
}

const INTERESTING: [i64; 14] = [
    0,
    1,
    -1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    i64::MAX,
    i64::MIN,
];

/// Appends one frame, mutated more often than not.
fn mutate(rng: &mut Rng, seeds: &Seeds, out: &mut Vec<u8>) {
    let Seed {
        bytes: mut f,
        fixed,
    } = seeds.any(rng).clone();
    let rounds = rng.pick(&[0, 1, 1, 1, 2, 3, 6]);
    for _ in 0..rounds {
        change(rng, seeds, &mut f, fixed);
    }
    let mut size = f.len() as i64;
    if rng.below(100) == 0 {
        size += rng.pick(&[-5, -1, 1, 4, 100, 1 << 20, -1 << 30]);
    }
    out.extend_from_slice(&(size as i32).to_be_bytes());
    out.extend_from_slice(&f);
}

fn change(rng: &mut Rng, seeds: &Seeds, f: &mut Vec<u8>, fixed: usize) {
    if f.len() <= fixed {
        return f.push(rng.next() as u8);
    }
    // Mostly behind the header, so that the frame still reaches a decoder.
    let at = if fixed > 0 {
        fixed + rng.below(f.len() - fixed)
    } else if rng.below(12) == 0 || f.len() <= 16 {
        rng.below(f.len())
    } else {
        14 + rng.below(f.len() - 14)
    };
    match rng.below(10) {
        0 => f[at] ^= 1 << rng.below(8),
        1 => f[at] = rng.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]),
        2 => f[at] = rng.next() as u8,
        3 => {
            let (value, width) = (rng.pick(&INTERESTING).to_be_bytes(), rng.pick(&[2, 4, 8]));
            let end = (at + width).min(f.len());
            f[at..end].copy_from_slice(&value[8 - width..][..end - at]);
        }
        4 => {
            f.splice(
                at..=at,
                [0xff, 0xff, 0xff, 0xff, rng.pick(&[0x0f, 0x07, 0x01, 0x7f])],
            );
        }
        5 => f.truncate(at.max(4)),
        6 => {
            let n = 1 + rng.below(8);
            let extra: Vec<u8> = (0..n).map(|_| rng.next() as u8).collect();
            f.splice(at..at, extra);
        }
        7 => {
            let end = (at + 1 + rng.below(8)).min(f.len());
            f.drain(at..end);
        }
        8 => {
            let end = (at + 1 + rng.below(40)).min(f.len());
            let again = f[at..end].to_vec();
            f.splice(at..at, again);
        }
        _ => {
            let other = &seeds.any(rng).bytes;
            let from = rng.below(other.len());
            f.truncate(at.max(8));
            f.extend_from_slice(&other[from..]);
        }
    }
}
