//! What a controller counts, under the names of Kafka's `QuorumControllerMetrics` and `KafkaRaftMetrics`. Its event loop feeds it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Histogram, Scrape};

/// Counters of the event loop of a node with the controller role; all zero elsewhere.
#[derive(Debug, Default)]
pub struct ControllerMetrics {
    /// How long operations wait for the loop, and how long it takes to decide them.
    pub queue_ms: Histogram,
    pub processing_ms: Histogram,
    pub started: AtomicU64,
    /// Their time was over before the loop came to them.
    pub timed_out: AtomicU64,
    /// How often this node heard of another active controller.
    pub new_active: AtomicU64,
    /// From a proposal until it is committed.
    pub commit_ms: Histogram,
    /// How long nobody was known to lead the quorum.
    pub election_ms: Histogram,
}

impl ControllerMetrics {
    pub fn collect(&self, scrape: &mut Scrape) {
        let manager = "kafka_controller_controllereventmanager_eventqueue";
        self.queue_ms.collect(scrape, &format!("{manager}timems"));
        let processing = format!("{manager}processingtimems");
        self.processing_ms.collect(scrape, &processing);
        for (name, count) in [
            ("eventqueueoperationsstartedcount", &self.started),
            ("eventqueueoperationstimedoutcount", &self.timed_out),
            ("newactivecontrollerscount", &self.new_active),
        ] {
            let name = format!("kafka_controller_kafkacontroller_{name}");
            scrape.gauge(&name, &[], count.load(Relaxed) as f64);
        }
        let raft = "kafka_server_raftmetrics";
        self.commit_ms
            .collect_mean(scrape, &format!("{raft}_commit_latency"));
        self.election_ms
            .collect_mean(scrape, &format!("{raft}_election_latency"));
    }
}
