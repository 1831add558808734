//! The values of a scrape that are not counted on the way: partitions, logs, controller, quorum and groups are asked when
//! somebody scrapes, and cost nothing otherwise.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use kafka_protocol::messages::ListGroupsRequest;

use super::replica_gauges;
use crate::api::Services;
use crate::log::{Log, LogDir};
use crate::metadata::{MetadataDelta, MetadataImage, Publisher};
use crate::metrics::{Metrics, Scrape};
use crate::partition::Partition;
use crate::quorum::QuorumInfo;
use crate::replica::{LogCleaner, LogScrubber, is_cordoned};
use crate::types::{BrokerId, Offset};

/// Above this many partitions the families with a value for each are left out.
pub(super) const PARTITIONS_MAX: usize = 10_000;
/// `brokerstate` of a broker that serves (`BrokerState.RUNNING`).
const RUNNING: f64 = 3.0;

/// Counts the elections that the metadata tells of, from the start of this process on.
pub(super) struct Elections(pub Arc<Metrics>);

impl Publisher for Elections {
    fn on_update(&self, delta: &MetadataDelta, _: &Arc<MetadataImage>) {
        if !delta.initial {
            let (unclean, from_elr) = (delta.unclean_elections, delta.elr_elections);
            let counters = &self.0.elections;
            counters.unclean.fetch_add(unclean, Ordering::Relaxed);
            counters.from_elr.fetch_add(from_elr, Ordering::Relaxed);
        }
    }
}

/// Adds the sources to the metrics of `services`.
pub(super) fn register(
    services: &Arc<Services>,
    cleaner: &Arc<LogCleaner>,
    scrubber: Arc<LogScrubber>,
) {
    services.metrics.add_source(move || {
        let mut scrape = Scrape::default();
        scrubber.collect(&mut scrape);
        std::future::ready(scrape)
    });
    let weak = Arc::downgrade(cleaner);
    services.metrics.add_source(move || {
        let mut scrape = Scrape::default();
        if let Some(cleaner) = weak.upgrade() {
            cleaner.collect(&mut scrape);
        }
        std::future::ready(scrape)
    });
    let weak = Arc::downgrade(services);
    services
        .metrics
        .add_source(move || collect(Weak::clone(&weak)));
}

/// The sources of a node without the broker role.
pub(super) fn register_controller(services: &Arc<Services>) {
    let weak = Arc::downgrade(services);
    services.metrics.add_source(move || {
        let mut scrape = Scrape::default();
        if let Some(services) = weak.upgrade() {
            controller(&mut scrape, &services, &services.image());
        }
        std::future::ready(scrape)
    });
}

async fn collect(services: Weak<Services>) -> Scrape {
    let mut scrape = Scrape::default();
    let Some(services) = services.upgrade() else {
        return scrape;
    };
    let image = services.image();
    broker(&mut scrape, &services);
    replica_gauges::collect(&mut scrape, &services, &image);
    topics(&mut scrape, &image);
    controller(&mut scrape, &services, &image);
    groups(&mut scrape, &services).await;
    scrape
}

fn broker(scrape: &mut Scrape, services: &Services) {
    let partitions = services.replicas.partitions();
    let offline = log_dirs(scrape, services);
    for (name, value) in [
        ("kafka_log_logmanager_offlinelogdirectorycount", offline),
        (
            "kafka_server_fetchsessioncache_numincrementalfetchsessions",
            services.fetch_sessions.count(),
        ),
    ] {
        scrape.gauge(name, &[], value as f64);
    }
    scrape.gauge("kafka_server_kafkaserver_brokerstate", &[], RUNNING);
    if partitions.len() <= PARTITIONS_MAX {
        for partition in &partitions {
            log(scrape, partition);
        }
    }
}

/// Gauges of each of `log.dirs`; returns how many are offline.
fn log_dirs(scrape: &mut Scrape, services: &Services) -> usize {
    let config = services.config();
    let dirs = services.replicas.log_dirs();
    let offline = dirs.offline();
    for path in &config.log_dirs {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let labels = [("logDirectory", &*path.to_string_lossy())];
        for (name, value) in [
            ("logdirectoryoffline", offline.contains(&path)),
            ("logdirectorycordoned", is_cordoned(&config, &path)),
        ] {
            let name = format!("kafka_log_logmanager_{name}");
            scrape.gauge(&name, &labels, f64::from(value));
        }
    }
    for dir in dirs.dirs() {
        recovery(scrape, dir);
    }
    let cordoned = dirs.dirs().iter();
    let cordoned = cordoned.filter(|dir| is_cordoned(&config, dir.name()));
    let name = "kafka_log_logmanager_cordonedlogdirectorycount";
    scrape.gauge(name, &[], cordoned.count() as f64);
    offline.len()
}

/// What is left of the recovery at the start. Kafka has segments by thread; here threads share them.
fn recovery(scrape: &mut Scrape, dir: &LogDir) {
    let path = dir.path().to_string_lossy();
    let family = "kafka_log_logmanager_remaining";
    let logs = dir.recovery().remaining_logs.load(Ordering::Relaxed);
    scrape.gauge(
        &format!("{family}logstorecover"),
        &[("dir", &path)],
        logs as f64,
    );
    let segments = dir.recovery().remaining_segments.load(Ordering::Relaxed);
    scrape.gauge(
        &format!("{family}segmentstorecover"),
        &[("dir", &path), ("threadNum", "0")],
        segments as f64,
    );
}

fn log(scrape: &mut Scrape, partition: &Partition) {
    let facts = |log: &Log| {
        let retention_bytes = log.config().retention_bytes;
        let size = log.size_bytes();
        // Kafka computes it at each retention check; 0 without a limit.
        let percent = match u64::try_from(retention_bytes) {
            Ok(limit) if limit > 0 => size.saturating_mul(100) / limit,
            _ => 0,
        };
        (size, log.segments_count(), percent)
    };
    let (Ok(offsets), Ok((size, segments, percent))) =
        (partition.offsets(), partition.look_at_log(facts))
    else {
        return;
    };
    let index = partition.topic_partition.partition.to_string();
    let labels = [
        ("topic", &*partition.topic_partition.topic),
        ("partition", &index),
    ];
    for (name, value) in [
        ("kafka_log_log_size", size as i64),
        ("kafka_log_log_numlogsegments", segments as i64),
        ("kafka_log_log_retentionsizeinpercent", percent as i64),
        ("kafka_log_log_logstartoffset", offsets.log_start_offset),
        ("kafka_log_log_logendoffset", offsets.next_offset),
        // kafka_exporter's names
        (
            "kafka_topic_partition_oldest_offset",
            offsets.log_start_offset,
        ),
        (
            "kafka_topic_partition_current_offset",
            offsets.high_watermark,
        ),
    ] {
        scrape.gauge(name, &labels, value as f64);
    }
}

fn topics(scrape: &mut Scrape, image: &MetadataImage) {
    scrape.gauge(
        "kafka_brokers",
        &[],
        image.cluster.alive_brokers().count() as f64,
    );
    if image.topics.len() <= PARTITIONS_MAX {
        for topic in image.topics.iter() {
            let labels = [("topic", &*topic.name)];
            scrape.gauge(
                "kafka_topic_partitions",
                &labels,
                topic.partitions.len() as f64,
            );
        }
    }
}

fn controller(scrape: &mut Scrape, services: &Services, image: &MetadataImage) {
    let node_id: BrokerId = services.config().node_id;
    let quorum = services.quorum.describe();
    let alive = image.cluster.alive_brokers().count();
    let partitions = image
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.values());
    let (mut all, mut offline, mut imbalanced) = (0, 0, 0);
    for partition in partitions {
        all += 1;
        offline += usize::from(!partition.has_leader());
        imbalanced += usize::from(partition.leader != partition.preferred_replica());
    }
    let brokers = image.cluster.brokers.values();
    let leaving = brokers.filter(|broker| broker.in_controlled_shutdown);
    for (name, value) in [
        (
            "activecontrollercount",
            usize::from(quorum.leader_id == node_id),
        ),
        ("globaltopiccount", image.topics.len()),
        ("globalpartitioncount", all),
        ("offlinepartitionscount", offline),
        ("preferredreplicaimbalancecount", imbalanced),
        ("activebrokercount", alive),
        ("controlledshutdownbrokercount", leaving.count()),
        ("fencedbrokercount", image.cluster.brokers.len() - alive),
    ] {
        scrape.gauge(
            &format!("kafka_controller_kafkacontroller_{name}"),
            &[],
            value as f64,
        );
    }
    for (name, value) in [
        ("current_leader", i64::from(quorum.leader_id)),
        ("current_epoch", i64::from(quorum.leader_epoch)),
        ("high_watermark", quorum.high_watermark),
        ("log_end_offset", services.quorum.end_offset()),
        ("number_of_voters", quorum.voters.len() as i64),
        ("number_of_observers", quorum.observers.len() as i64),
    ] {
        scrape.gauge(
            &format!("kafka_server_raftmetrics_{name}"),
            &[],
            value as f64,
        );
    }
    let state = [("current_state", state(&quorum, node_id))];
    scrape.gauge("kafka_server_raftmetrics_current_state", &state, 1.0);
    metadata(scrape, services, quorum.high_watermark);
}

/// What this node is in the quorum (`KafkaRaftMetrics`); who asks for votes leads nobody yet and follows nobody.
fn state(quorum: &QuorumInfo, node_id: BrokerId) -> &'static str {
    let is_voter = quorum
        .voters
        .iter()
        .any(|voter| voter.replica_id == node_id);
    match quorum.leader_id {
        leader if leader == node_id => "leader",
        _ if !is_voter => "observer",
        ..0 => "unattached",
        _ => "follower",
    }
}

/// How far this node has applied the metadata. Where all that is committed is applied there is no lag, however long ago that was:
/// an idle quorum writes nothing here, and a record each half a second in Kafka.
fn metadata(scrape: &mut Scrape, services: &Services, high_watermark: Offset) {
    let loaded = services.images.loaded();
    let lag_ms = if loaded.next_offset() >= high_watermark {
        0
    } else {
        (services.clock.wall_ms() - loaded.append_time_ms).max(0)
    };
    let config = services.config();
    for (name, value) in [
        ("offset", loaded.last_offset),
        ("timestamp", loaded.append_time_ms),
        ("lag_ms", lag_ms),
    ] {
        if config.is_broker() {
            let name = format!("kafka_server_brokermetadatametrics_last_applied_record_{name}");
            scrape.gauge(&name, &[], value as f64);
        }
        if config.is_controller() {
            let name = name.replace('_', "");
            let name = format!("kafka_controller_kafkacontroller_lastappliedrecord{name}");
            scrape.gauge(&name, &[], value as f64);
        }
    }
    if config.is_controller() {
        let name = "kafka_controller_kafkacontroller_lastcommittedrecordoffset";
        scrape.gauge(name, &[], (high_watermark - 1) as f64);
        services.metrics.controller.collect(scrape);
    }
}

async fn groups(scrape: &mut Scrape, services: &Services) {
    let listed = services
        .groups
        .list_groups(ListGroupsRequest::default())
        .await;
    let family = "kafka_coordinator_group_groupmetadatamanager_numgroups";
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::from([
        ("preparingrebalance", 0),
        ("completingrebalance", 0),
        ("stable", 0),
        ("dead", 0),
        ("empty", 0),
    ]);
    for group in &listed.groups {
        let state = group.group_state.to_ascii_lowercase();
        if let Some(count) = by_state.get_mut(state.as_str()) {
            *count += 1;
        }
    }
    scrape.gauge(family, &[], listed.groups.len() as f64);
    for (state, count) in by_state {
        scrape.gauge(&format!("{family}{state}"), &[], count as f64);
    }
}
