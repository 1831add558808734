//! What the broker does on timers: checkpoints, retention, files to close or to remove, expired producers, scrub. Nothing
//! here runs more often than every few seconds, unless there is something to remove. Which of them look at all partitions, and
//! which at those only that something happened to, is in `partition::touched`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::replica::{LogScrubber, ReplicaManager, ScrubRun};

/// A file that nobody read for one to two of these is closed.
const IDLE_FILES_INTERVAL: Duration = Duration::from_secs(15);

/// Starts the timers; they end with `shutdown`.
pub fn spawn(
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    config: &Config,
    replicas: &Arc<ReplicaManager>,
    clock: &Clock,
    scrubber: &Arc<LogScrubber>,
) {
    let timer = |interval: Duration, job: fn(&ReplicaManager, &Clock)| {
        let (replicas, clock) = (Arc::clone(replicas), clock.clone());
        tasks.spawn(every(interval, interval, shutdown.clone(), move || {
            job(&replicas, &clock);
        }));
    };
    timer(
        millis(config.replica_high_watermark_checkpoint_interval_ms),
        |replicas, _| {
            replicas.checkpoint_high_watermarks();
        },
    );
    timer(
        millis(i64::from(config.log_flush_offset_checkpoint_interval_ms)),
        |replicas, _| {
            replicas.checkpoint_logs();
        },
    );
    timer(
        millis(i64::from(
            config.log_flush_start_offset_checkpoint_interval_ms,
        )),
        |replicas, _| {
            replicas.checkpoint_log_starts();
        },
    );
    timer(
        millis(i64::from(config.producer_id_expiration_check_interval_ms)),
        |replicas, clock| {
            replicas.remove_expired_producers(clock.wall_ms());
        },
    );
    timer(millis(config.replica_lag_time_max_ms / 2), |replicas, _| {
        replicas.shrink_isrs();
    });
    timer(IDLE_FILES_INTERVAL, |replicas, _| {
        replicas.release_idle_files();
    });
    spawn_retention(tasks, shutdown, config, replicas, clock);
    spawn_scrub(tasks, shutdown, config, replicas, clock, scrubber);
}

/// Off by default: `ottla.log.scrub.interval.ms` is the pause between two runs.
fn spawn_scrub(
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    config: &Config,
    replicas: &Arc<ReplicaManager>,
    clock: &Clock,
    scrubber: &Arc<LogScrubber>,
) {
    if config.ottla_log_scrub_interval_ms < 0 {
        return;
    }
    let bytes_per_second_max = config.ottla_log_scrub_io_max_bytes_per_second;
    let (replicas, scrubber) = (Arc::clone(replicas), Arc::clone(scrubber));
    let (clock, stop) = (clock.clone(), shutdown.clone());
    let interval = millis(config.ottla_log_scrub_interval_ms);
    tasks.spawn(every(interval, interval, shutdown.clone(), move || {
        let run = ScrubRun {
            clock: &clock,
            bytes_per_second_max,
            stopped: &|| stop.is_cancelled(),
        };
        scrubber.run(&replicas, &run);
    }));
}

fn spawn_retention(
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    config: &Config,
    replicas: &Arc<ReplicaManager>,
    clock: &Clock,
) {
    let (old, time) = (Arc::clone(replicas), clock.clone());
    tasks.spawn(every(
        millis(config.log_initial_task_delay_ms),
        millis(config.log_retention_check_interval_ms),
        shutdown.clone(),
        move || old.delete_old_segments(time.wall_ms()),
    ));
    replicas.collect_deleted_dirs();
    tasks.spawn(empty_trash(
        Arc::clone(replicas),
        clock.clone(),
        shutdown.clone(),
    ));
}

/// Removes files and directories when their time comes.
async fn empty_trash(replicas: Arc<ReplicaManager>, clock: Clock, shutdown: CancellationToken) {
    loop {
        let now_ms = clock.monotonic_ms();
        let until_due = async {
            match replicas.trash().next_due_ms() {
                Some(due_ms) => tokio::time::sleep(millis(due_ms - now_ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = replicas.trash().added() => continue,
            () = until_due => {}
        }
        let (trash, now_ms) = (Arc::clone(&replicas), clock.monotonic_ms());
        let _ = tokio::task::spawn_blocking(move || trash.trash().empty(now_ms)).await;
    }
}

fn millis(interval_ms: i64) -> Duration {
    Duration::from_millis(interval_ms.max(1) as u64)
}

/// Runs `job` after `delay`, and from then on `interval` after it came to an end.
async fn every(
    delay: Duration,
    interval: Duration,
    shutdown: CancellationToken,
    job: impl Fn() + Clone + Send + 'static,
) {
    let mut wait = delay;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = interval;
        // Files are written: off the threads that serve connections. A panic is that job's alone.
        let _ = tokio::task::spawn_blocking(job.clone()).await;
    }
}
