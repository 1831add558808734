//! Which brokers get the replicas of new partitions, after Kafka's `StripedReplicaPlacer`.
//!
//! Hard rules: replicas of a partition are on distinct brokers, the first one is unfenced, there are at least as many
//! brokers as replicas and at least one of them is unfenced. Beyond that: replicas go round over the racks, leaders
//! go round over racks and brokers, fenced brokers come last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rng::Rng;
use crate::metadata::ClusterImage;
use crate::protocol::{Error, ErrorCode};
use crate::types::BrokerId;

/// Brokers taken in turn. Each round (one partition) starts one broker later than the one before.
#[derive(Default)]
struct Ring {
    brokers: Vec<BrokerId>,
    start: usize,
    taken: usize,
    round: usize,
}

impl Ring {
    fn next(&mut self, round: usize) -> Option<BrokerId> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.round != round {
            self.round = round;
            self.taken = 0;
            self.start = (self.start + 1) % self.brokers.len();
        }
        if self.taken == self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.start + self.taken) % self.brokers.len()];
        self.taken += 1;
        Some(broker)
    }
}

#[derive(Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

impl Rack {
    fn next(&mut self, round: usize) -> Option<BrokerId> {
        let broker = self.unfenced.next(round);
        broker.or_else(|| self.fenced.next(round))
    }
}

struct Placer<'a> {
    racks: Vec<Rack>,
    first_rack: usize,
    round: usize,
    unfenced_count: usize,
    rng: &'a mut Rng,
}

/// Chooses `replication_factor` brokers for each of `partitions` new partitions.
pub(super) fn place(
    cluster: &ClusterImage,
    partitions: usize,
    replication_factor: i16,
    rng: &mut Rng,
) -> Result<Vec<Vec<BrokerId>>, Error> {
    let mut racks: BTreeMap<Option<Arc<str>>, Rack> = BTreeMap::new();
    let (mut count, mut unfenced_count) = (0, 0);
    for broker in cluster
        .brokers
        .values()
        .filter(|broker| broker.has_uncordoned_dirs())
    {
        let rack = racks.entry(broker.rack.clone()).or_default();
        count += 1;
        if broker.fenced {
            rack.fenced.brokers.push(broker.id);
        } else {
            rack.unfenced.brokers.push(broker.id);
            unfenced_count += 1;
        }
    }
    let refuse = |why: String| Err(Error::new(ErrorCode::InvalidReplicationFactor, why));
    if unfenced_count == 0 {
        return refuse(
            "no broker is available: all are fenced or have only cordoned log directories".into(),
        );
    }
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas == 0 {
        return refuse(format!(
            "replication factor {replication_factor} is not positive"
        ));
    }
    if replicas > count {
        return refuse(format!(
            "replication factor {replication_factor} is larger than the number of usable brokers, {count}"
        ));
    }
    let mut racks: Vec<Rack> = racks.into_values().collect();
    for rack in &mut racks {
        rack.unfenced.start = rng.below(rack.unfenced.brokers.len());
        rack.fenced.start = rng.below(rack.fenced.brokers.len());
    }
    let first_rack = rng.below(racks.len());
    let mut placer = Placer {
        racks,
        first_rack,
        round: 0,
        unfenced_count,
        rng,
    };
    Ok((0..partitions).map(|_| placer.place(replicas)).collect())
}

impl Placer<'_> {
    /// `place` has made sure that there are enough brokers, one of them unfenced.
    fn place(&mut self, replicas: usize) -> Vec<BrokerId> {
        if self.round == self.unfenced_count && self.unfenced_count > 1 {
            // Every broker has led once: another order keeps the same sets from coming back.
            self.shuffle();
            self.round = 0;
        }
        let racks = self.racks.len();
        let mut brokers = Vec::with_capacity(replicas);
        let mut leader_rack = self.first_rack % racks;
        loop {
            if let Some(leader) = self.racks[leader_rack].unfenced.next(self.round) {
                brokers.push(leader);
                break;
            }
            leader_rack = (leader_rack + 1) % racks;
        }
        // The leader's rack has had its turn in the first lap.
        let mut skip = Some(leader_rack);
        let mut rack = self.first_rack % racks;
        while brokers.len() < replicas {
            if skip == Some(rack) {
                skip = None;
            } else {
                brokers.extend(self.racks[rack].next(self.round));
            }
            rack = (rack + 1) % racks;
        }
        self.round += 1;
        self.first_rack = (self.first_rack + 1) % racks;
        brokers
    }

    fn shuffle(&mut self) {
        shuffle(&mut self.racks, self.rng);
        for rack in &mut self.racks {
            shuffle(&mut rack.unfenced.brokers, self.rng);
            shuffle(&mut rack.fenced.brokers, self.rng);
        }
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.below(i + 1));
    }
}
