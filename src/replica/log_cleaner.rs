//! The threads that compact logs (Kafka's `LogCleaner` and `LogCleanerManager`): each takes the dirtiest log that is due, cleans
//! it, and looks again; without work it waits `log.cleaner.backoff.ms`. The rules and files are in `log::cleaner`.
//!
//! No partition is locked for longer than it takes to rename the files of one group of segments. A log that is truncated,
//! deleted or loses segments ends its cleaning by itself: the cleaning notices and gives up. A log that cannot be cleaned
//! (damage) is left out from then on, and counted. Nothing is allocated while there is nothing to clean.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::ReplicaManager;
use super::throttle::Throttle;
use crate::clock::Clock;
use crate::config::Config;
use crate::log::Log;
use crate::log::cleaner::{CleanerSettings, CleanerStats, Cleaning, CleaningError, LogToClean};
use crate::metadata::{ConfigResourceType, MetadataDelta, MetadataImage, Publisher};
use crate::metrics::Scrape;
use crate::partition::{Partition, Timer};
use crate::types::{TopicPartition, Uuid};

/// Memory of one thread's offset map at most, as in Kafka.
const DEDUPE_BYTES_MAX: i64 = i32::MAX as i64;
const IO_BUFFER_BYTES_MIN: i32 = 1024;

/// The cleaner of one broker.
pub struct LogCleaner {
    replicas: Arc<ReplicaManager>,
    config: Arc<ArcSwap<Config>>,
    clock: Clock,
    throttle: Throttle,
    state: Mutex<State>,
    /// Wakes threads that wait: the configuration changed, or the broker stops.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    threads: Vec<JoinHandle<()>>,
    /// Logs that are compacted, or were, by topic id and partition: at most one for each hosted partition, besides those that
    /// went away since the last look.
    compacted: HashMap<(Uuid, i32), Weak<Partition>>,
    in_progress: HashSet<TopicPartition>,
    /// Partitions that failed, by log directory.
    uncleanable: BTreeMap<PathBuf, BTreeSet<TopicPartition>>,
    /// The last run of each thread.
    last_runs: BTreeMap<usize, LastRun>,
    last_looked_ms: i64,
    dirtiest_ratio: f64,
}

#[derive(Clone, Copy, Default)]
struct LastRun {
    stats: CleanerStats,
    elapsed_ms: i64,
    compaction_delay_ms: i64,
}

/// A log that a thread took.
struct Job {
    partition: Arc<Partition>,
    to_clean: LogToClean,
    /// Of all logs that are due.
    compaction_delay_ms: i64,
}

impl LogCleaner {
    pub fn new(
        replicas: Arc<ReplicaManager>,
        config: Arc<ArcSwap<Config>>,
        clock: Clock,
    ) -> Arc<Self> {
        let state = State {
            last_looked_ms: clock.monotonic_ms(),
            ..State::default()
        };
        Arc::new(Self {
            replicas,
            config,
            clock,
            throttle: Throttle::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Starts the threads; [`LogCleaner::shutdown`] ends them.
    pub fn start(self: &Arc<Self>) {
        self.lock().running = true;
        self.start_missing_threads();
    }

    /// Ends every cleaning and waits for the threads. Blocking, but not for long.
    pub fn shutdown(&self) {
        let mut state = self.lock();
        state.running = false;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.changed.notify_all();
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads_wanted(&self) -> usize {
        let config = self.config.load();
        if config.log_cleaner_enable {
            config.log_cleaner_threads.max(0) as usize
        } else {
            0
        }
    }

    /// Fills up to `log.cleaner.threads`; surplus ones end by themselves. Threads that died are replaced.
    fn start_missing_threads(self: &Arc<Self>) {
        let wanted = self.threads_wanted();
        let mut state = self.lock();
        if !state.running {
            return;
        }
        for id in 0..wanted {
            if state
                .threads
                .get(id)
                .is_some_and(|thread| !thread.is_finished())
            {
                continue;
            }
            let cleaner = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name(format!("kafka-log-cleaner-thread-{id}"))
                .spawn(move || cleaner.run(id));
            match spawned {
                Ok(thread) if id < state.threads.len() => state.threads[id] = thread,
                Ok(thread) => state.threads.push(thread),
                Err(error) => error!(%error, id, "log cleaner thread cannot start"),
            }
        }
    }

    fn is_wanted(&self, id: usize) -> bool {
        id < self.threads_wanted() && self.lock().running
    }

    fn run(&self, id: usize) {
        while self.is_wanted(id) {
            let cleaned = self.grab().is_some_and(|job| self.clean(id, &job));
            if !cleaned {
                let backoff_ms = self.config.load().log_cleaner_backoff_ms.max(1);
                self.sleep(backoff_ms as u64);
            }
        }
    }

    /// Sleeps, unless the broker stops or the configuration changes.
    fn sleep(&self, ms: u64) {
        let state = self.lock();
        if state.running {
            let waited = self.changed.wait_timeout(state, Duration::from_millis(ms));
            drop(waited);
        }
    }

    /// Takes the dirtiest log that is due.
    fn grab(&self) -> Option<Job> {
        let mut skipped: HashSet<TopicPartition> = {
            let mut state = self.lock();
            state.last_looked_ms = self.clock.monotonic_ms();
            let uncleanable = state.uncleanable.values().flatten();
            uncleanable.chain(&state.in_progress).cloned().collect()
        };
        loop {
            let job = self.find_dirtiest(&skipped)?;
            let tp = &job.partition.topic_partition;
            if self.lock().in_progress.insert(tp.clone()) {
                return Some(job);
            }
            // Another thread was quicker.
            skipped.insert(tp.clone());
        }
    }

    fn find_dirtiest(&self, skipped: &HashSet<TopicPartition>) -> Option<Job> {
        let now_ms = self.clock.wall_ms();
        let mut dirtiest: Option<Job> = None;
        let (mut ratio_max, mut delay_max) = (0.0, 0);
        for partition in self.compacted_logs() {
            if skipped.contains(&partition.topic_partition) {
                continue;
            }
            // A closed log, or one in a directory that is offline, is none of our business.
            let Some((to_clean, ratio_min)) = measure(&partition, now_ms) else {
                continue;
            };
            let ratio = to_clean.cleanable_ratio();
            ratio_max = f64::max(ratio_max, ratio);
            delay_max = delay_max.max(to_clean.compaction_delay_ms);
            let best = dirtiest.as_ref().map(|job| job.to_clean.cleanable_ratio());
            if to_clean.is_due(ratio_min) && best.is_none_or(|best| ratio > best) {
                dirtiest = Some(Job {
                    partition,
                    to_clean,
                    compaction_delay_ms: 0,
                });
            }
        }
        self.lock().dirtiest_ratio = ratio_max;
        dirtiest.map(|job| Job {
            compaction_delay_ms: delay_max,
            ..job
        })
    }

    /// Where the policy may have changed the partition was touched: the others are known.
    fn compacted_logs(&self) -> Vec<Arc<Partition>> {
        let mut touched = self.replicas.touched().take(Timer::CleanLogs);
        // A closed log may have a successor under the same key.
        touched.retain(|partition| {
            partition.look_at_log(|log| log.config().cleanup_policy.compact) == Ok(true)
        });
        let mut state = self.lock();
        for partition in &touched {
            let key = (partition.topic_id, partition.topic_partition.partition);
            state.compacted.insert(key, Arc::downgrade(partition));
        }
        state.compacted.retain(|_, known| known.strong_count() > 0);
        state.compacted.values().filter_map(Weak::upgrade).collect()
    }

    /// Cleans what [`LogCleaner::grab`] gave; false if there was no way.
    fn clean(&self, id: usize, job: &Job) -> bool {
        let topic_partition = &job.partition.topic_partition;
        let result = self.try_clean(id, job);
        self.lock().in_progress.remove(topic_partition);
        match result {
            Ok(()) => true,
            Err(CleaningError::Aborted) => {
                info!(%topic_partition, "cleaning ended early");
                false
            }
            Err(error) => {
                self.fail(&job.partition, error);
                false
            }
        }
    }

    fn try_clean(&self, id: usize, job: &Job) -> Result<(), CleaningError> {
        let partition = &job.partition;
        let started_ms = self.clock.monotonic_ms();
        let settings = self.settings();
        let now_ms = self.clock.wall_ms();
        let end = job.to_clean.range.first_uncleanable_offset;
        let is_durable = |log: &Log| log.recovery_point() >= end;
        if partition.look_at_log(is_durable) == Ok(false) {
            partition.flush_now();
        }
        let mut cleaning = partition
            .with_log(|log| log.begin_cleaning(job.to_clean.range, settings, now_ms))
            .ok()
            .flatten()
            .ok_or(CleaningError::Aborted)?;
        let generation = cleaning.generation();
        let mut progress = |bytes| self.may_go_on(partition, generation, bytes);
        cleaning.build_map(Uuid::new_v4().as_u128(), &mut progress)?;
        let mapped_ms = self.clock.monotonic_ms();
        while let Some(group) = cleaning.clean_group(&mut progress)? {
            let replaced = partition.with_log(|log| log.replace_segments(&cleaning, group));
            // The log of a failed directory has said why.
            if !matches!(replaced, Ok(Ok(true))) {
                return Err(CleaningError::Aborted);
            }
            cleaning.sync_replaced()?;
        }
        let finished = partition.with_log(|log| log.finish_cleaning(&cleaning));
        if finished != Ok(true) {
            return Err(CleaningError::Aborted);
        }
        self.replicas.checkpoint_cleaner();
        let run = LastRun {
            stats: *cleaning.stats(),
            elapsed_ms: self.clock.monotonic_ms() - started_ms,
            compaction_delay_ms: job.compaction_delay_ms,
        };
        self.lock().last_runs.insert(id, run);
        report(id, partition, &cleaning, &run, mapped_ms - started_ms);
        Ok(())
    }

    fn settings(&self) -> CleanerSettings {
        let config = self.config.load();
        let threads = config.log_cleaner_threads.max(1);
        let dedupe = config.log_cleaner_dedupe_buffer_size / i64::from(threads);
        let io_buffer = config.log_cleaner_io_buffer_size / threads / 2;
        CleanerSettings {
            dedupe_buffer_bytes: dedupe.clamp(0, DEDUPE_BYTES_MAX) as usize,
            load_factor: config.log_cleaner_io_buffer_load_factor,
            io_buffer_bytes: io_buffer.max(IO_BUFFER_BYTES_MIN) as usize,
        }
    }

    /// Throttles, and tells whether the cleaning may go on.
    fn may_go_on(&self, partition: &Partition, generation: u64, bytes: u64) -> bool {
        let rate = self.config.load().log_cleaner_io_max_bytes_per_second;
        if let Some(sleep_ms) = self
            .throttle
            .observe(bytes, rate, self.clock.monotonic_ms())
        {
            self.sleep(sleep_ms);
        }
        self.lock().running
            && partition.look_at_log(|log| log.is_generation(generation)) == Ok(true)
    }

    /// A file that cannot be read or written takes its directory offline; a log with something strange in it is left alone.
    fn fail(&self, partition: &Partition, cause: CleaningError) {
        let topic_partition = &partition.topic_partition;
        let cause = match cause {
            CleaningError::Io(e) if !is_content(&e) => {
                let _ = partition.with_log(|log| log.fail_cleaning(e));
                return;
            }
            other => other,
        };
        warn!(%topic_partition, %cause, "cannot be cleaned, marking the partition as uncleanable");
        let dir = partition.look_at_log(|log| log.log_dir().path().to_owned());
        if let Ok(dir) = dir {
            let mut state = self.lock();
            let partitions = state.uncleanable.entry(dir).or_default();
            partitions.insert(topic_partition.clone());
        }
    }

    /// Adds the cleaner's gauges to a scrape.
    pub fn collect(&self, scrape: &mut Scrape) {
        let now_ms = self.clock.wall_ms();
        let uncleanable = self.uncleanable();
        for dir in self.replicas.log_dirs().dirs() {
            let label = dir.path().display().to_string();
            let labels = [("logDirectory", label.as_str())];
            let partitions = uncleanable.get(dir.path()).map_or(&[][..], Vec::as_slice);
            let bytes: u64 = partitions
                .iter()
                .filter_map(|partition| Some(measure(partition, now_ms)?.0.cleanable_bytes))
                .sum();
            let family = "kafka_log_logcleanermanager_uncleanable";
            scrape.gauge(
                &format!("{family}_partitions_count"),
                &labels,
                partitions.len() as f64,
            );
            scrape.gauge(&format!("{family}_bytes"), &labels, bytes as f64);
        }
        let state = self.lock();
        let runs = || state.last_runs.values();
        let sum =
            |field: fn(&CleanerStats) -> u64| runs().map(|run| field(&run.stats)).sum::<u64>();
        let read = sum(|stats| stats.bytes_read).max(1);
        let utilization = runs()
            .map(|run| run.stats.buffer_utilization)
            .fold(0.0, f64::max);
        let dead = state.threads.iter().take(self.threads_wanted());
        let values: [(&str, f64); 7] = [
            (
                "manager_max_dirty_percent",
                (100.0 * state.dirtiest_ratio).trunc(),
            ),
            (
                "manager_time_since_last_run_ms",
                (self.clock.monotonic_ms() - state.last_looked_ms) as f64,
            ),
            (
                "_max_buffer_utilization_percent",
                (100.0 * utilization).trunc(),
            ),
            (
                "_cleaner_recopy_percent",
                (100 * sum(|stats| stats.bytes_written) / read) as f64,
            ),
            (
                "_max_clean_time_secs",
                runs().map(|run| run.elapsed_ms / 1000).max().unwrap_or(0) as f64,
            ),
            (
                "_max_compaction_delay_secs",
                runs()
                    .map(|run| run.compaction_delay_ms / 1000)
                    .max()
                    .unwrap_or(0) as f64,
            ),
            (
                "_deadthreadcount",
                dead.filter(|thread| thread.is_finished()).count() as f64,
            ),
        ];
        for (name, value) in values {
            scrape.gauge(&format!("kafka_log_logcleaner{name}"), &[], value);
        }
    }

    /// The uncleanable partitions that are still here, by directory; forgets the others.
    fn uncleanable(&self) -> BTreeMap<PathBuf, Vec<Arc<Partition>>> {
        let mut marked = self.lock().uncleanable.clone();
        let mut found: BTreeMap<PathBuf, Vec<Arc<Partition>>> = BTreeMap::new();
        for (dir, partitions) in &mut marked {
            partitions.retain(|tp| match self.replicas.find(&tp.topic, tp.partition) {
                Ok(partition) => {
                    found.entry(dir.clone()).or_default().push(partition);
                    false
                }
                Err(_) => true,
            });
        }
        let mut state = self.lock();
        for (dir, gone) in marked {
            if let Some(partitions) = state.uncleanable.get_mut(&dir) {
                partitions.retain(|tp| !gone.contains(tp));
            }
        }
        found
    }
}

/// How dirty a compacted log is, and from which ratio on it is due; `None` for other logs.
fn measure(partition: &Partition, now_ms: i64) -> Option<(LogToClean, f64)> {
    partition
        .look_at_stable_log(|log, last_stable_offset| {
            let config = log.config();
            let ratio_min = config.min_cleanable_dirty_ratio;
            if !config.cleanup_policy.compact {
                return None;
            }
            Some((
                log.log_to_clean(last_stable_offset, now_ms).ok()?,
                ratio_min,
            ))
        })
        .ok()?
}

/// Whether an error is about what the files say, not about the disk.
fn is_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::FileTooLarge | io::ErrorKind::UnexpectedEof
    )
}

fn report(id: usize, partition: &Partition, cleaning: &Cleaning, run: &LastRun, index_ms: i64) {
    let (first_dirty_offset, end_offset) = cleaning.dirty_section();
    let stats = &run.stats;
    info!(
        tp = %partition.topic_partition,
        thread = id,
        first_dirty_offset,
        end_offset,
        elapsed_ms = run.elapsed_ms,
        index_ms,
        map_bytes_read = stats.map_bytes_read,
        bytes_read = stats.bytes_read,
        bytes_written = stats.bytes_written,
        messages_read = stats.messages_read,
        messages_written = stats.messages_written,
        "log cleaner thread cleaned log"
    );
    if stats.invalid_messages > 0 {
        warn!(tp = %partition.topic_partition, count = stats.invalid_messages, "dropped records without key during compaction");
    }
}

impl Publisher for Arc<LogCleaner> {
    fn on_update(&self, delta: &MetadataDelta, _image: &Arc<MetadataImage>) {
        let mut changed = delta.configs_changed.iter();
        if changed.any(|resource| resource.kind == ConfigResourceType::Broker) {
            self.start_missing_threads();
            self.changed.notify_all();
        }
    }
}
