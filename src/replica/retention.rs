//! The retention check over all hosted partitions (Kafka's `LogManager.cleanupLogs`), for a timer.

use std::time::{Duration, Instant};

use tracing::{debug, error, info};

use super::ReplicaManager;
use crate::partition::Partition;
use crate::types::TimestampMs;

/// Between two steps on one partition, so that requests that wait for its lock get it.
const PAUSE: Duration = Duration::from_millis(1);

impl ReplicaManager {
    /// Deletes segments that are beyond the retention of their topics. Blocking.
    pub fn delete_old_segments(&self, now_ms: TimestampMs) {
        let start = Instant::now();
        let mut total = 0;
        for partition in self.partitions() {
            let deleted = delete_old_segments(&partition, now_ms);
            if deleted > 0 {
                self.collect_deleted(&partition);
            }
            total += deleted;
        }
        debug!(
            segments = total,
            seconds = start.elapsed().as_secs(),
            "log cleanup completed"
        );
    }
}

fn delete_old_segments(partition: &Partition, now_ms: TimestampMs) -> usize {
    let mut total = 0;
    loop {
        match partition.delete_old_segments(now_ms) {
            Ok(deleted) if deleted.is_empty() => return total,
            Ok(deleted) => {
                total += deleted.len();
                for segment in deleted {
                    info!(tp = %partition.topic_partition, "{segment}");
                }
            }
            Err(error) => {
                error!(tp = %partition.topic_partition, %error, "segments cannot be deleted");
                return total;
            }
        }
        std::thread::sleep(PAUSE);
    }
}
