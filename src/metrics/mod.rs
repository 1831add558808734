//! Metric handles under the names that Kafka's JMX exporter gives (`kafka_server_brokertopicmetrics_messagesin_total`).
//! The hot path touches atomics only, once a request or batch; everything else is worked out when somebody scrapes.

mod controller;
mod histogram;
mod process;
mod scrape;
mod windowed_rate;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::TextEncoder;

pub use controller::ControllerMetrics;
pub use histogram::Histogram;
pub use scrape::Scrape;
pub use windowed_rate::WindowedRate;

/// API keys that are counted; a larger one is not a Kafka API.
const API_KEYS: usize = 96;
/// Versions an API that are counted apart; larger ones share the last.
const VERSIONS: usize = 20;

type Source = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Scrape> + Send>> + Send + Sync>;

/// All metrics of this process. Made once, shared by `Arc`.
pub struct Metrics {
    requests: Box<[RequestMetrics]>,
    topics: RwLock<Topics>,
    listeners: RwLock<BTreeMap<Arc<str>, Arc<ListenerMetrics>>>,
    sources: RwLock<Vec<Source>>,
    pub replication: ReplicationMetrics,
    pub elections: ElectionMetrics,
    pub controller: ControllerMetrics,
}

/// What leaders and followers of this broker count, over all topics.
#[derive(Default)]
pub struct ReplicationMetrics {
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// The part of both that replicas took which a reassignment adds.
    pub reassigned_in: AtomicU64,
    pub reassigned_out: AtomicU64,
}

impl ReplicationMetrics {
    fn fields(&self) -> [(&'static str, &AtomicU64); 4] {
        [
            ("replicationbytesin", &self.bytes_in),
            ("replicationbytesout", &self.bytes_out),
            ("reassignmentbytesin", &self.reassigned_in),
            ("reassignmentbytesout", &self.reassigned_out),
        ]
    }
}

/// Elections seen in the metadata that lost records, or could have without KIP-966.
#[derive(Default)]
pub struct ElectionMetrics {
    pub unclean: AtomicU64,
    /// Leaders elected from the eligible leader replicas.
    pub from_elr: AtomicU64,
}

#[derive(Default)]
struct Topics {
    live: BTreeMap<Arc<str>, Arc<TopicMetrics>>,
    /// What deleted topics had counted: totals never fall.
    deleted: TopicMetrics,
}

#[derive(Default)]
struct RequestMetrics {
    by_version: [AtomicU64; VERSIONS],
}

/// Counters of one topic on this broker.
#[derive(Default)]
pub struct TopicMetrics {
    pub messages_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_rejected: AtomicU64,
    pub total_produce_requests: AtomicU64,
    pub total_fetch_requests: AtomicU64,
    pub failed_produce_requests: AtomicU64,
    pub failed_fetch_requests: AtomicU64,
}

impl TopicMetrics {
    fn fields(&self) -> [(&'static str, &AtomicU64); 8] {
        [
            ("messagesin", &self.messages_in),
            ("bytesin", &self.bytes_in),
            ("bytesout", &self.bytes_out),
            ("bytesrejected", &self.bytes_rejected),
            ("totalproducerequests", &self.total_produce_requests),
            ("totalfetchrequests", &self.total_fetch_requests),
            ("failedproducerequests", &self.failed_produce_requests),
            ("failedfetchrequests", &self.failed_fetch_requests),
        ]
    }

    /// So many appends were asked for, `failed` of them in vain; the others brought `records` in `bytes`.
    pub fn appended(&self, asked: u64, failed: u64, records: u64, bytes: u64) {
        self.total_produce_requests.fetch_add(asked, Relaxed);
        if failed > 0 {
            self.failed_produce_requests.fetch_add(failed, Relaxed);
        }
        self.messages_in.fetch_add(records, Relaxed);
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// A read was answered: with so many bytes, or in vain.
    pub fn fetched(&self, bytes: Option<u64>) {
        self.total_fetch_requests.fetch_add(1, Relaxed);
        match bytes {
            Some(bytes) => self.bytes_out.fetch_add(bytes, Relaxed),
            None => self.failed_fetch_requests.fetch_add(1, Relaxed),
        };
    }
}

/// Counters of one listener.
#[derive(Default)]
pub struct ListenerMetrics {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
}

impl ListenerMetrics {
    pub fn connection_opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    pub fn connection_closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Connections that are open now.
    pub fn connection_count(&self) -> u64 {
        let closed = self.closed.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(closed)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        Self {
            requests: (0..API_KEYS).map(|_| RequestMetrics::default()).collect(),
            topics: RwLock::default(),
            listeners: RwLock::default(),
            sources: RwLock::default(),
            replication: ReplicationMetrics::default(),
            elections: ElectionMetrics::default(),
            controller: ControllerMetrics::default(),
        }
    }

    /// A request of an API came in.
    pub fn request(&self, api_key: i16, version: i16) {
        if let Some(api) = usize::try_from(api_key)
            .ok()
            .and_then(|key| self.requests.get(key))
        {
            let version = usize::try_from(version).unwrap_or(0).min(VERSIONS - 1);
            api.by_version[version].fetch_add(1, Relaxed);
        }
    }

    /// The counters of a topic; a partition keeps the handle.
    pub fn topic(&self, name: &str) -> Arc<TopicMetrics> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.live.get(name) {
            return topic.clone();
        }
        drop(topics);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.live.entry(name.into()).or_default().clone()
    }

    /// The topic is gone; what it counted stays in the totals.
    pub fn remove_topic(&self, name: &str) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.live.remove(name) {
            for ((_, total), (_, counter)) in topics.deleted.fields().iter().zip(topic.fields()) {
                total.fetch_add(counter.load(Relaxed), Relaxed);
            }
        }
    }

    /// The counters of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut listeners = self
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.entry(name.into()).or_default().clone()
    }

    /// Adds values that are worked out at each scrape: gauges of partitions, logs, groups.
    pub fn add_source<F>(&self, source: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Scrape> + Send + 'static,
    {
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        sources.push(Box::new(move || Box::pin(source())));
    }

    /// Everything in Prometheus' text format.
    pub async fn encode(&self) -> String {
        let mut scrape = Scrape::default();
        self.collect_topics(&mut scrape);
        self.collect_requests(&mut scrape);
        self.collect_listeners(&mut scrape);
        self.collect_replication(&mut scrape);
        process::collect(&mut scrape);
        let asked: Vec<_> = {
            let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
            sources.iter().map(|source| source()).collect()
        };
        for answer in asked {
            scrape.merge(answer.await);
        }
        TextEncoder::new()
            .encode_to_string(&scrape.into_families())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn collect_topics(&self, scrape: &mut Scrape) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for (i, (field, deleted)) in topics.deleted.fields().into_iter().enumerate() {
            let name = format!("kafka_server_brokertopicmetrics_{field}_total");
            let mut total = deleted.load(Relaxed);
            for (topic, counters) in &topics.live {
                let value = counters.fields()[i].1.load(Relaxed);
                total += value;
                scrape.counter(&name, &[("topic", topic)], value as f64);
            }
            scrape.counter(&name, &[], total as f64);
        }
    }

    fn collect_requests(&self, scrape: &mut Scrape) {
        for (key, api) in self.requests.iter().enumerate() {
            let Ok(name) = kafka_protocol::messages::ApiKey::try_from(key as i16) else {
                continue;
            };
            let name = format!("{name:?}");
            for (version, count) in api.by_version.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [
                        ("request", name.as_str()),
                        ("version", &version.to_string()),
                    ];
                    scrape.counter(
                        "kafka_network_requestmetrics_requests_total",
                        &labels,
                        count as f64,
                    );
                }
            }
        }
    }

    fn collect_replication(&self, scrape: &mut Scrape) {
        for (name, count) in self.replication.fields() {
            let name = format!("kafka_server_brokertopicmetrics_{name}_total");
            scrape.counter(&name, &[], count.load(Relaxed) as f64);
        }
        for (name, count) in [
            ("uncleanleaderelections", &self.elections.unclean),
            (
                "electionfromeligibleleaderreplicas",
                &self.elections.from_elr,
            ),
        ] {
            let name = format!("kafka_controller_controllerstats_{name}_total");
            scrape.counter(&name, &[], count.load(Relaxed) as f64);
        }
    }

    fn collect_listeners(&self, scrape: &mut Scrape) {
        let listeners = self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, listener) in listeners.iter() {
            let family = "kafka_server_socket_server_metrics_connection";
            let labels = [("listener", &**name), ("networkProcessor", "0")];
            scrape.gauge(
                &format!("{family}_count"),
                &labels,
                listener.connection_count() as f64,
            );
            let opened = listener.opened.load(Relaxed) as f64;
            scrape.counter(&format!("{family}_creation_total"), &labels, opened);
            let closed = listener.closed.load(Relaxed) as f64;
            scrape.counter(&format!("{family}_close_total"), &labels, closed);
        }
    }
}

#[cfg(test)]
mod tests;
