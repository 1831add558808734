//! Properties of replica placement.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::controller::placement::place;
use crate::controller::rng::Rng;
use crate::metadata::{BrokerRegistration, ClusterImage};
use crate::protocol::ErrorCode;

fn cluster(brokers: &[(Option<u8>, bool)]) -> ClusterImage {
    let mut cluster = ClusterImage::default();
    for (id, (rack, fenced)) in (1..).zip(brokers) {
        let broker = BrokerRegistration {
            id,
            rack: rack.map(|rack| rack.to_string().into()),
            fenced: *fenced,
            ..BrokerRegistration::default()
        };
        cluster.brokers.insert(id, Arc::new(broker));
    }
    cluster
}

proptest! {
    /// Rule: placement
    #[test]
    fn replicas_are_distinct_and_led_by_an_unfenced_broker(
        brokers in prop::collection::vec((prop::option::of(0u8..3), any::<bool>()), 0..9),
        replication_factor in 0i16..6,
        partitions in 0usize..30,
        seed in 1u64..,
    ) {
        let cluster = cluster(&brokers);
        let placed = place(&cluster, partitions, replication_factor, &mut Rng::new([seed, 1, 1, 1]));
        let possible = cluster.alive_brokers().next().is_some()
            && replication_factor > 0
            && replication_factor as usize <= brokers.len();
        prop_assert_eq!(placed.is_ok(), possible);
        match placed {
            Err(error) => prop_assert_eq!(error.code, ErrorCode::InvalidReplicationFactor),
            Ok(placed) => {
                prop_assert_eq!(placed.len(), partitions);
                for replicas in placed {
                    let distinct: BTreeSet<_> = replicas.iter().collect();
                    prop_assert_eq!(distinct.len(), replication_factor as usize);
                    prop_assert_eq!(replicas.len(), replication_factor as usize);
                    prop_assert!(cluster.is_alive(replicas[0]));
                }
            }
        }
    }
}

/// Rule: placement
#[test]
fn leaders_and_racks_are_spread_evenly() {
    let cluster = cluster(&[
        (Some(0), false),
        (Some(0), false),
        (Some(1), false),
        (Some(1), false),
        (Some(2), false),
        (Some(2), false),
    ]);
    for seed in 1..50 {
        let placed = place(&cluster, 6, 3, &mut Rng::new([seed, 2, 3, 4])).expect("possible");
        let leaders: BTreeSet<_> = placed.iter().map(|replicas| replicas[0]).collect();
        assert_eq!(
            leaders.len(),
            6,
            "seed {seed}: each broker leads once: {placed:?}"
        );
        for replicas in &placed {
            let racks: BTreeSet<_> = replicas.iter().map(|id| (id - 1) / 2).collect();
            assert_eq!(
                racks.len(),
                3,
                "seed {seed}: one replica a rack: {replicas:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_places_the_same() {
    let cluster = cluster(&[(None, false), (None, false), (None, true)]);
    let run = |seed| place(&cluster, 20, 2, &mut Rng::new([seed, 0, 0, 0])).expect("possible");
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
