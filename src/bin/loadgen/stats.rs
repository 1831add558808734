//! What is measured: latencies in a log-linear histogram, CPU time and memory from /proc, one JSON line a run.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;

/// Nanoseconds, under 1 % of error, 64 powers of two.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self {
            counts: vec![0; 64 * SUB],
            total: 0,
            max: 0,
        }
    }

    fn slot(nanos: u64) -> usize {
        if nanos < SUB as u64 {
            return nanos as usize;
        }
        let power = nanos.ilog2() - SUB_BITS;
        ((power as usize + 1) << SUB_BITS) + ((nanos >> power) as usize & (SUB - 1))
    }

    pub fn add(&mut self, d: Duration) {
        let nanos = d.as_nanos() as u64;
        self.counts[Self::slot(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    fn micros_at(&self, quantile: f64) -> f64 {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                let (power, low) = (i >> SUB_BITS, (i & (SUB - 1)) as u64);
                let nanos = if power == 0 {
                    low
                } else {
                    (SUB as u64 + low) << (power - 1)
                };
                return nanos as f64 / 1000.0;
            }
        }
        0.0
    }

    pub fn report(&self, prefix: &str, into: &mut Map<String, Value>) {
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            into.insert(format!("{prefix}{name}_us"), json!(self.micros_at(q)));
        }
        into.insert(format!("{prefix}max_us"), json!(self.max as f64 / 1000.0));
    }
}

pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

fn stat_seconds(path: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

/// utime + stime of processes, in seconds. The sum counts finished threads too.
fn cpu_seconds(pids: &[u32]) -> f64 {
    let seconds = |p: &u32| stat_seconds(&format!("/proc/{p}/stat"));
    pids.iter().filter_map(seconds).sum()
}

/// (busy, softirq) seconds of the whole machine.
fn machine_seconds() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let f: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|x| x.parse().ok())
        .collect();
    let at = |i: usize| f.get(i).copied().unwrap_or(0.0) / 100.0;
    (at(0) + at(1) + at(2) + at(7), at(5) + at(6))
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

pub fn rss_kib(pids: &[u32]) -> u64 {
    sum_kib(pids, "VmRSS:")
}

fn sum_kib(pids: &[u32], field: &str) -> u64 {
    pids.iter().filter_map(|p| status_kib(*p, field)).sum()
}

/// CPU of the broker, of this process and of strangers between two moments.
pub struct Meter {
    pids: Vec<u32>,
    start: Instant,
    broker: f64,
    own: f64,
    machine: (f64, f64),
}

impl Meter {
    pub fn start(pids: &[u32]) -> Self {
        Self {
            pids: pids.to_vec(),
            start: Instant::now(),
            broker: cpu_seconds(pids),
            own: cpu_seconds(&[std::process::id()]),
            machine: machine_seconds(),
        }
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Closes the interval: rates and costs for this much work.
    pub fn stop(&self, requests: u64, bytes: u64, into: &mut Map<String, Value>) {
        let wall = self.seconds();
        let broker = cpu_seconds(&self.pids) - self.broker;
        let own = cpu_seconds(&[std::process::id()]) - self.own;
        let (busy, irq) = machine_seconds();
        into.insert("seconds".into(), json!(wall));
        into.insert("requests".into(), json!(requests));
        into.insert("req_per_s".into(), json!(requests as f64 / wall));
        into.insert("mb_per_s".into(), json!(bytes as f64 / wall / 1e6));
        into.insert("broker_cpu_s".into(), json!(broker));
        into.insert(
            "cpu_s_per_gb".into(),
            json!(broker / (bytes.max(1) as f64 / 1e9)),
        );
        into.insert(
            "cpu_us_per_req".into(),
            json!(broker * 1e6 / requests.max(1) as f64),
        );
        into.insert("client_cpu_s".into(), json!(own));
        into.insert("softirq_s".into(), json!(irq - self.machine.1));
        into.insert(
            "foreign_cpu_s".into(),
            json!(busy - self.machine.0 - broker - own),
        );
        into.insert("rss_mib".into(), json!(rss_kib(&self.pids) as f64 / 1024.0));
        if !self.pids.is_empty() {
            let kib = sum_kib(&self.pids, "VmHWM:");
            into.insert("rss_peak_mib".into(), json!(kib as f64 / 1024.0));
        }
    }
}
