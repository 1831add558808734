//! Gauges of the replicas on this broker, worked out when somebody scrapes: what is led, what is short of replicas.

use crate::api::Services;
use crate::metadata::{MetadataImage, PartitionRegistration};
use crate::metrics::Scrape;
use crate::partition::Partition;

use super::gauges::PARTITIONS_MAX;

/// Sums over all partitions of the broker (`ReplicaManager`).
#[derive(Default)]
struct Counts {
    leaders: usize,
    offline: usize,
    under_replicated: usize,
    under_min_isr: usize,
    at_min_isr: usize,
    reassigning: usize,
}

/// One partition from its leader's view; all zero elsewhere (`Partition`).
#[derive(Default)]
struct Led {
    replicas: usize,
    in_sync: usize,
    under_replicated: bool,
    under_min_isr: bool,
    at_min_isr: bool,
    reassigning: bool,
}

impl Led {
    fn of(registration: &PartitionRegistration, min_insync_replicas: i32) -> Self {
        let (replicas, in_sync) = (registration.replicas.len(), registration.isr.len());
        let min_isr = (min_insync_replicas.max(0) as usize).min(replicas);
        Self {
            replicas,
            in_sync,
            under_replicated: in_sync < replicas,
            under_min_isr: in_sync < min_isr,
            at_min_isr: in_sync == min_isr,
            reassigning: !registration.adding_replicas.is_empty()
                || !registration.removing_replicas.is_empty(),
        }
    }
}

pub(super) fn collect(scrape: &mut Scrape, services: &Services, image: &MetadataImage) {
    let node_id = services.config().node_id;
    let partitions = services.replicas.partitions();
    let mut counts = Counts::default();
    for partition in &partitions {
        counts.offline += usize::from(partition.is_offline());
        let registration = image.topics.partition(&partition.topic_partition);
        let led = registration.filter(|registration| registration.leader == node_id);
        let led = led.map_or_else(Led::default, |registration| {
            counts.leaders += 1;
            Led::of(registration, partition.config().min_insync_replicas)
        });
        counts.under_replicated += usize::from(led.under_replicated);
        counts.under_min_isr += usize::from(led.under_min_isr);
        counts.at_min_isr += usize::from(led.at_min_isr);
        counts.reassigning += usize::from(led.reassigning);
        if partitions.len() <= PARTITIONS_MAX {
            of_partition(scrape, partition, &led);
        }
    }
    for (name, value) in [
        ("partitioncount", partitions.len()),
        ("leadercount", counts.leaders),
        ("offlinereplicacount", counts.offline),
        ("underreplicatedpartitions", counts.under_replicated),
        ("underminisrpartitioncount", counts.under_min_isr),
        ("atminisrpartitioncount", counts.at_min_isr),
        ("reassigningpartitions", counts.reassigning),
    ] {
        let name = format!("kafka_server_replicamanager_{name}");
        scrape.gauge(&name, &[], value as f64);
    }
    isr_changes(scrape, services);
    quotas(scrape, services);
}

fn isr_changes(scrape: &mut Scrape, services: &Services) {
    let proposals = services.replicas.isr_proposals();
    for (name, count) in [
        ("isrshrinks", &proposals.shrinks),
        ("isrexpands", &proposals.expands),
        ("failedisrupdates", &proposals.failed),
    ] {
        let name = format!("kafka_server_replicamanager_{name}_total");
        let count = count.load(std::sync::atomic::Ordering::Relaxed);
        scrape.counter(&name, &[], count as f64);
    }
}

fn quotas(scrape: &mut Scrape, services: &Services) {
    let now_ms = services.clock.monotonic_ms();
    let quotas = services.replicas.quotas();
    for (direction, quota) in [("leader", &quotas.leader), ("follower", &quotas.follower)] {
        let name = format!("kafka_server_{direction}replication_byte_rate");
        scrape.gauge(&name, &[], quota.bytes_per_second(now_ms));
    }
}

fn of_partition(scrape: &mut Scrape, partition: &Partition, led: &Led) {
    let lag = partition.offsets().map_or(0, |offsets| {
        offsets.high_watermark - offsets.last_stable_offset
    });
    let index = partition.topic_partition.partition.to_string();
    let labels = [
        ("topic", &*partition.topic_partition.topic),
        ("partition", &index),
    ];
    for (name, value) in [
        ("underreplicated", i64::from(led.under_replicated)),
        ("insyncreplicascount", led.in_sync as i64),
        ("underminisr", i64::from(led.under_min_isr)),
        ("atminisr", i64::from(led.at_min_isr)),
        ("replicascount", led.replicas as i64),
        ("laststableoffsetlag", lag),
    ] {
        let name = format!("kafka_cluster_partition_{name}");
        scrape.gauge(&name, &labels, value as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_against_the_effective_min_isr() {
        let registration = |replicas: &[i32], isr: &[i32]| PartitionRegistration {
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            ..PartitionRegistration::default()
        };
        let all = |replicas: &[i32], isr: &[i32], min| {
            let led = Led::of(&registration(replicas, isr), min);
            (led.under_replicated, led.under_min_isr, led.at_min_isr)
        };
        assert_eq!(all(&[1, 2, 3], &[1, 2, 3], 2), (false, false, false));
        assert_eq!(all(&[1, 2, 3], &[1, 2], 2), (true, false, true));
        assert_eq!(all(&[1, 2, 3], &[1], 2), (true, true, false));
        // A topic with fewer replicas than min.insync.replicas is not short of any.
        assert_eq!(all(&[1], &[1], 2), (false, false, true));
    }
}
