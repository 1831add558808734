//! Reads the closed segments of every hosted partition again, at a bounded rate, and tells what is damaged: in the log, and as
//! `ottla_log_scrub_*` metrics for each partition. It never changes or removes anything: what to do about damage (another
//! replica, a backup) is for whoever runs the broker. The check itself is in `log::scrub`; `server::maintenance` calls.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use super::ReplicaManager;
use super::throttle::Throttle;
use crate::clock::Clock;
use crate::log::Log;
use crate::log::scrub::{ScrubTarget, SegmentCheck, check_segment};
use crate::metrics::Scrape;
use crate::partition::Partition;
use crate::types::TopicPartition;

/// A sleep is cut into pieces of this length, so that a stop need not wait for it.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What the runs found so far.
#[derive(Default)]
pub struct LogScrubber {
    throttle: Throttle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last finished check of each partition that is still hosted.
    partitions: BTreeMap<TopicPartition, PartitionResult>,
    bytes_total: u64,
    runs_total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PartitionResult {
    segments: u64,
    bytes: u64,
    findings: u64,
    /// When the check ended.
    checked_ms: i64,
}

/// How fast, and until when.
pub struct ScrubRun<'a> {
    pub clock: &'a Clock,
    /// `ottla.log.scrub.io.max.bytes.per.second`
    pub bytes_per_second_max: i64,
    /// Asked between batches: the broker stops.
    pub stopped: &'a dyn Fn() -> bool,
}

impl ScrubRun<'_> {
    /// Sleeps until the broker stops, or for so long.
    fn sleep(&self, ms: u64) {
        let mut left = Duration::from_millis(ms);
        while !left.is_zero() && !(self.stopped)() {
            let nap = left.min(SLEEP_MAX);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}

impl LogScrubber {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks everything once. Blocks for as long as the rate asks for.
    pub fn run(&self, replicas: &ReplicaManager, run: &ScrubRun<'_>) {
        let partitions = replicas.partitions();
        self.lock().partitions.retain(|tp, _| {
            partitions
                .iter()
                .any(|partition| partition.topic_partition == *tp)
        });
        let (mut bytes, mut findings) = (0, 0);
        for partition in &partitions {
            let Some(result) = self.check_partition(partition, run) else {
                continue;
            };
            if (run.stopped)() {
                return;
            }
            bytes += result.bytes;
            findings += result.findings;
            let tp = partition.topic_partition.clone();
            self.lock().partitions.insert(tp, result);
        }
        self.lock().runs_total += 1;
        info!(
            partitions = partitions.len(),
            bytes, findings, "scrub of the closed segments is done"
        );
    }

    /// `None` for a partition that is not here (any more).
    fn check_partition(
        &self,
        partition: &Partition,
        run: &ScrubRun<'_>,
    ) -> Option<PartitionResult> {
        let targets = partition.look_at_log(Log::segments_to_scrub).ok()?;
        let mut result = PartitionResult::default();
        for target in targets {
            let checked = check_segment(&target.path, target.base_offset, false, |bytes| {
                self.pace(bytes, run)
            });
            match checked {
                Ok(None) => return None,
                Ok(Some(check)) => {
                    result.segments += 1;
                    result.bytes += check.bytes;
                    if check.is_sound() || !is_still_there(partition, &target) {
                        continue;
                    }
                    result.findings += check.findings_count;
                    tell(partition, &target, &check);
                }
                // Retention, compaction or a deletion was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    result.findings += 1;
                    let path = target.path.display();
                    error!(tp = %partition.topic_partition, %path, %error, "scrub cannot read a segment");
                }
            }
        }
        result.checked_ms = run.clock.wall_ms();
        Some(result)
    }

    fn pace(&self, bytes: u64, run: &ScrubRun<'_>) -> bool {
        self.lock().bytes_total += bytes;
        let rate = run.bytes_per_second_max as f64;
        let now_ms = run.clock.monotonic_ms();
        if let Some(sleep_ms) = self.throttle.observe(bytes, rate, now_ms) {
            run.sleep(sleep_ms);
        }
        !(run.stopped)()
    }

    /// Adds the results to a scrape.
    pub fn collect(&self, scrape: &mut Scrape) {
        let state = self.lock();
        scrape.counter("ottla_log_scrub_bytes_total", &[], state.bytes_total as f64);
        scrape.counter("ottla_log_scrub_runs_total", &[], state.runs_total as f64);
        for (tp, result) in &state.partitions {
            let partition = tp.partition.to_string();
            let labels = [("topic", &*tp.topic), ("partition", partition.as_str())];
            for (name, value) in [
                ("segments", result.segments as f64),
                ("findings", result.findings as f64),
                ("checked_timestamp_ms", result.checked_ms as f64),
            ] {
                scrape.gauge(&format!("ottla_log_scrub_{name}"), &labels, value);
            }
        }
    }
}

/// A segment that was replaced or removed while it was read says nothing about the log.
fn is_still_there(partition: &Partition, target: &ScrubTarget) -> bool {
    partition
        .look_at_log(|log| log.still_has(target))
        .unwrap_or(false)
}

fn tell(partition: &Partition, target: &ScrubTarget, check: &SegmentCheck) {
    let tp = &partition.topic_partition;
    let path = target.path.display();
    for finding in &check.findings {
        let (position, offset) = (finding.position, finding.offset);
        error!(%tp, %path, position, offset, what = finding.what, "scrub found damage");
    }
    let untold = check.findings_count - check.findings.len() as u64;
    if untold > 0 {
        warn!(%tp, %path, untold, "scrub found more damage in the same segment");
    }
}
