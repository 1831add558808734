//! The side that reads back.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{MetadataRequest, OffsetFetchRequest};
use serde_json::{Map, Value, json};

use super::{
    CrashArgs, GROUPS, KEYS, Load, RETENTION_BYTES, VerifyArgs, group_id, is_tombstone,
    records_file,
};
use crate::fetch::Tail;
use crate::setup::{self, topic_name};
use crate::wire::{Connection, FetchLimits, Outcome};
use crate::{Common, batch};

pub fn verify(common: &Common, args: &VerifyArgs) -> Outcome<Map<String, Value>> {
    let crash = &args.crash;
    let mut problems = Vec::new();
    let (mut read_back, mut gone) = (0, 0);
    // The logs first: what is acknowledged while this reads need not be there yet.
    let partitions: Vec<Partition> = crash
        .loads()
        .iter()
        .flat_map(|load| (0..crash.partitions).map(|p| Partition::new(common, crash, *load, p)))
        .collect();
    let commits = read_lines(&crash.dir.join("commits"));
    let topics = read_lines(&crash.dir.join("topics"));
    for partition in &partitions {
        let found = partition.check();
        if let Ok(read) = &found {
            read_back += read.count;
            gone += read.gone();
        }
        let problem = match found {
            Err(e) => Some(e.to_string()),
            Ok(read) if args.reduced && partition.load != Load::Kept && read.gone() == 0 => {
                Some("nothing was cleaned up".to_string())
            }
            Ok(_) => None,
        };
        problems.extend(problem.map(|p| format!("{}: {p}", partition.name())));
    }
    let mut conn = Connection::open(&common.broker)?;
    for found in [
        check_commits(&mut conn, crash, &commits),
        check_topics(&mut conn, crash, &topics),
    ] {
        match found {
            Ok(mut list) => problems.append(&mut list),
            Err(e) => problems.push(e.to_string()),
        }
    }
    let acknowledged: u64 = partitions.iter().map(|p| p.acknowledged).sum();
    let line = json!({"mode": "crash-verify", "ok": problems.is_empty(), "read_back": read_back,
        "cleaned_up": gone, "acknowledged": acknowledged, "commits": commits.len(),
        "topic_changes": topics.len(), "problems": problems});
    Ok(line.as_object().cloned().unwrap_or_default())
}

/// One partition to check.
struct Partition<'a> {
    broker: &'a str,
    dir: &'a Path,
    load: Load,
    index: i32,
    acknowledged: u64,
}

/// What was read from a log start offset on.
struct Read {
    next: u64,
    count: u64,
    bytes: usize,
    /// The last number seen of each key.
    last_of_key: BTreeMap<u64, u64>,
}

impl Read {
    fn from(start: u64) -> Self {
        Self {
            next: start,
            count: 0,
            bytes: 0,
            last_of_key: BTreeMap::new(),
        }
    }

    /// How many of all that were written are not there any more.
    fn gone(&self) -> u64 {
        self.next - self.count
    }
}

impl<'a> Partition<'a> {
    fn new(common: &'a Common, args: &'a CrashArgs, load: Load, index: i32) -> Self {
        Self {
            broker: &common.broker,
            dir: &args.dir,
            load,
            index,
            acknowledged: acknowledged_end(&records_file(&args.dir, load, index)),
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.load.topic(), self.index)
    }

    fn check(&self) -> Outcome<Read> {
        let mut start = self.log_start_offset()?;
        let mut tail = Tail::new(self.broker, self.load.topic(), self.index, start as i64)?;
        let limits = FetchLimits {
            max_wait_ms: 200,
            min_bytes: 1,
            max_bytes: 1 << 20,
        };
        let (mut read, since) = (Read::from(start), Instant::now());
        loop {
            let answer = tail.fetch(&limits)?;
            if may_wait(answer.error, since) {
                continue;
            }
            if answer.error == OFFSET_OUT_OF_RANGE && self.load == Load::Retained {
                // Retention overtook this read.
                start = self.log_start_offset()?;
                if start <= read.next {
                    return Err(format!("{} is out of range, start is {start}", read.next).into());
                }
                (read, tail.offset) = (Read::from(start), start as i64);
                continue;
            }
            if answer.error != 0 {
                return Err(format!("Fetch at {}: error {}", read.next, answer.error).into());
            }
            for batch in batch::walk(tail.records(&answer)) {
                self.add(&mut read, &batch)?;
            }
            if read.next as i64 >= answer.high_watermark && read.next >= self.acknowledged {
                break;
            }
            if answer.records.is_empty() && read.next < self.acknowledged {
                let acknowledged = self.acknowledged;
                return Err(format!("ends at {}, acknowledged {acknowledged}", read.next).into());
            }
        }
        if start > 0 && read.bytes < RETENTION_BYTES {
            return Err(format!("only {} bytes left from {start}", read.bytes).into());
        }
        self.check_keys(&read)?;
        Ok(read)
    }

    /// Where the log starts: never before where it was seen to start, by an earlier verification either.
    fn log_start_offset(&self) -> Outcome<u64> {
        let mut conn = Connection::open(self.broker)?;
        let since = Instant::now();
        let starts = loop {
            match setup::offsets(&mut conn, self.load.topic(), &[self.index], -2) {
                Err(_) if since.elapsed() < Duration::from_secs(15) => {
                    thread::sleep(Duration::from_millis(50));
                }
                other => break other?,
            }
        };
        let start = *starts.last().ok_or("no offset")? as u64;
        let seen_file = self.dir.join(format!("{}.start", self.name()));
        let seen = std::fs::read_to_string(&seen_file).map_or(Ok(0), |s| s.trim().parse())?;
        if start < seen || (start > 0 && self.load != Load::Retained) {
            return Err(format!("starts at {start}, once at {seen}").into());
        }
        std::fs::write(seen_file, start.to_string())?;
        Ok(start)
    }

    fn add(&self, read: &mut Read, batch: &batch::BatchView) -> Outcome<()> {
        let compacted = self.load == Load::Compacted;
        let (base, next) = (batch.base_offset as u64, read.next);
        if base < next || (base > next && !compacted) {
            return Err(format!("offset {base} where {next} should be").into());
        }
        let records = batch::records(batch).ok_or_else(|| format!("damaged batch at {base}"))?;
        for record in &records {
            let n = record.offset as u64;
            let wanted = (self.load.key(n), self.load.value(self.index, n));
            if n < read.next
                || (wanted.0.as_deref(), wanted.1.as_deref()) != (record.key, record.value)
            {
                return Err(format!("another record at offset {n}, after {}", read.next).into());
            }
            if n > read.next && !compacted {
                return Err(format!("offset {n} where {} should be", read.next).into());
            }
            read.next = n + 1;
            read.last_of_key.insert(n % KEYS, n);
        }
        let end = batch.next_offset as u64;
        if end < read.next || (end > read.next && !compacted) || batch.producer_id < 0 {
            return Err(format!("batch ends at {end} with {}", read.next).into());
        }
        read.next = end;
        read.count += records.len() as u64;
        read.bytes += batch.bytes.len();
        Ok(())
    }

    /// Of a compacted partition: the last acknowledged record of each key or a later one is there, or nothing of the key, if
    /// that was a tombstone.
    fn check_keys(&self, read: &Read) -> Outcome<()> {
        if self.load != Load::Compacted {
            return Ok(());
        }
        for n in self.acknowledged.saturating_sub(KEYS)..self.acknowledged {
            let good = match read.last_of_key.get(&(n % KEYS)) {
                Some(last) => *last >= n,
                None => is_tombstone(n),
            };
            if !good {
                let last = read.last_of_key.get(&(n % KEYS));
                return Err(format!("key {}: {n} is lost, last is {last:?}", n % KEYS).into());
            }
        }
        Ok(())
    }
}

const OFFSET_OUT_OF_RANGE: i16 = 1;

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

fn check_commits(
    conn: &mut Connection,
    args: &CrashArgs,
    lines: &[String],
) -> Outcome<Vec<String>> {
    let mut last = BTreeMap::new();
    for line in lines {
        if let Some((group, n)) = line.split_once(' ') {
            last.insert(group.parse::<usize>()?, n.parse::<i64>()?);
        }
    }
    let mut problems = Vec::new();
    if last.is_empty() {
        problems.push("no offset was committed".to_string());
    }
    for (group, n) in last {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(Load::Kept.topic()))
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

fn check_topics(conn: &mut Connection, args: &CrashArgs, lines: &[String]) -> Outcome<Vec<String>> {
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
