//! `idle` holds many connections; `ready` times a broker's start and stop; `watch` measures it doing nothing;
//! `topics` creates many partitions and appends to each.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Map, Value, json};

use crate::stats::{Histogram, Meter, now_ms, rss_kib};
use crate::wire::{Connection, Outcome, produce_answer, produce_frame};
use crate::{Common, IdleArgs, ReadyArgs, TopicsArgs, batch, setup};

pub fn idle(common: &Common, args: &IdleArgs) -> Outcome<Map<String, Value>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    let before = rss_kib(&common.pid);
    let start = Instant::now();
    let mut held = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let mut conn = Connection::open(&common.broker)?;
        conn.call(&ApiVersionsRequest::default(), 0)?;
        held.push(conn);
    }
    let mut out = Map::new();
    out.insert("mode".into(), json!("idle"));
    out.insert("connections".into(), json!(held.len()));
    out.insert(
        "connect_seconds".into(),
        json!(start.elapsed().as_secs_f64()),
    );
    sleep(Duration::from_secs(1));
    let meter = Meter::start(&common.pid);
    sleep(Duration::from_secs_f64(common.seconds));
    meter.stop(0, 0, &mut out);
    let kib = rss_kib(&common.pid).saturating_sub(before) as f64;
    out.insert(
        "kib_per_connection".into(),
        json!(kib / args.connections as f64),
    );
    for conn in &mut held {
        conn.call(&ApiVersionsRequest::default(), 0)?;
    }
    Ok(out)
}

/// Broker CPU with nobody connected, as a share of one core.
pub fn watch(common: &Common) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("mode".into(), json!("watch"));
    let meter = Meter::start(&common.pid);
    sleep(Duration::from_secs_f64(common.seconds));
    meter.stop(0, 0, &mut out);
    let cpu = out
        .get("broker_cpu_s")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    out.insert("core_percent".into(), json!(cpu * 100.0 / meter.seconds()));
    out
}

/// Starts the command and waits for its first Metadata answer; with `--stop`, times SIGTERM to exit as well.
pub fn ready(common: &Common, args: &ReadyArgs) -> Outcome<Map<String, Value>> {
    let (program, rest) = args.command.split_first().ok_or("no command")?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(rest)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut out = Map::new();
    out.insert("mode".into(), json!("ready"));
    let deadline = Duration::from_secs_f64(args.timeout);
    while !answers(&common.broker, args.topic.as_deref()) {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the broker ended with {status}").into());
        }
        if start.elapsed() > deadline {
            child.kill()?;
            child.wait()?;
            return Err("the broker never answered".into());
        }
        sleep(Duration::from_micros(300));
    }
    out.insert(
        "ready_ms".into(),
        json!(start.elapsed().as_secs_f64() * 1e3),
    );
    sleep(Duration::from_secs_f64(args.settle));
    out.insert(
        "rss_mib".into(),
        json!(rss_kib(&[child.id()]) as f64 / 1024.0),
    );
    let stop = Instant::now();
    let pid = Pid::from_raw(child.id() as i32).ok_or("no pid")?;
    kill_process(pid, Signal::TERM)?;
    let status = child.wait()?;
    out.insert("stop_ms".into(), json!(stop.elapsed().as_secs_f64() * 1e3));
    out.insert("exit_code".into(), json!(status.code()));
    Ok(out)
}

fn answers(broker: &str, topic: Option<&str>) -> bool {
    let Ok(mut conn) = Connection::open(broker) else {
        return false;
    };
    if conn.call(&ApiVersionsRequest::default(), 0).is_err() {
        return false;
    }
    let request = MetadataRequest::default().with_topics(None);
    conn.call(&request, 9).is_ok_and(|m| !m.brokers.is_empty())
        && topic.is_none_or(|t| setup::end_offsets(&mut conn, t, 1).is_ok())
}

/// Creates topics until there are so many partitions.
pub fn topics(common: &Common, args: &TopicsArgs) -> Outcome<Map<String, Value>> {
    let mut conn = Connection::open(&common.broker)?;
    let start = Instant::now();
    let mut made = Vec::new();
    let mut left = args.partitions;
    while left > 0 {
        let n = left.min(args.per_topic);
        let name = format!("{}-{}", args.prefix, made.len());
        setup::create_replicated(&mut conn, &name, n, common.replication_factor, &[])?;
        made.push((name, n));
        left -= n;
    }
    let mut out = Map::new();
    out.insert("mode".into(), json!("topics"));
    out.insert("seconds".into(), json!(start.elapsed().as_secs_f64()));
    if args.append {
        first_appends(&mut conn, &made)?.report("append_", &mut out);
    }
    out.insert(
        "rss_mib".into(),
        json!(rss_kib(&common.pid) as f64 / 1024.0),
    );
    Ok(out)
}

/// One record to every partition, one request in flight.
fn first_appends(conn: &mut Connection, topics: &[(String, i32)]) -> Outcome<Histogram> {
    let (batch, _) = batch::filled(1, 100, now_ms());
    let mut took = Histogram::new();
    for (topic, partitions) in topics {
        for partition in 0..*partitions {
            let sent = Instant::now();
            conn.stream
                .write_all(&produce_frame(topic, partition, -1, &batch))?;
            match produce_answer(&conn.read_frame()?) {
                Some((0, _)) => took.add(sent.elapsed()),
                other => return Err(format!("{topic}-{partition}: {other:?}").into()),
            }
        }
    }
    Ok(took)
}
