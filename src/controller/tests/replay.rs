//! Replaying the log, or a snapshot of the image, gives the image that the controller worked with.

use kafka_protocol::messages::DeleteTopicsRequest;
use proptest::prelude::*;

use super::*;
use crate::metadata::MetadataDelta;

#[derive(Clone, Debug)]
enum Step {
    Create {
        topic: u8,
        partitions: i32,
        replicas: i16,
    },
    Delete {
        topic: u8,
    },
    Fence {
        broker: BrokerId,
    },
    Unfence {
        broker: BrokerId,
    },
    Restart {
        broker: BrokerId,
        clean: bool,
    },
    Shutdown {
        broker: BrokerId,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6, 1..5i32, 1..4i16).prop_map(|(topic, partitions, replicas)| Step::Create {
            topic,
            partitions,
            replicas
        }),
        (0u8..6).prop_map(|topic| Step::Delete { topic }),
        (1..=3i32).prop_map(|broker| Step::Fence { broker }),
        (1..=3i32).prop_map(|broker| Step::Unfence { broker }),
        (1..=3i32, any::<bool>()).prop_map(|(broker, clean)| Step::Restart { broker, clean }),
        (1..=3i32).prop_map(|broker| Step::Shutdown { broker }),
    ]
}

impl Cluster {
    fn step(&mut self, step: &Step, incarnation: u128) {
        match *step {
            Step::Create {
                topic: number,
                partitions,
                replicas,
            } => {
                let configs = vec![config("retention.ms", Some("1"))];
                let topic = topic(&format!("t.{number}"), partitions, replicas);
                self.create(topic.with_configs(configs));
            }
            Step::Delete { topic } => {
                let request = DeleteTopicsRequest::default()
                    .with_topic_names(vec![name(&format!("t.{topic}"))]);
                self.run(|turn| topic_control::delete_topics(turn, &request));
            }
            Step::Fence { broker } => {
                let epoch = self.epoch(broker);
                self.heartbeat(broker, epoch, |r| BrokerHeartbeatRequest {
                    want_fence: true,
                    ..r
                });
            }
            // A broker that was allowed to shut down does not come back without registering.
            Step::Unfence { broker }
                if self
                    .image
                    .cluster
                    .broker(broker)
                    .is_some_and(|b| b.in_controlled_shutdown) => {}
            Step::Unfence { broker } => {
                let epoch = self.epoch(broker);
                self.heartbeat(broker, epoch, |r| r);
            }
            Step::Shutdown { broker } => {
                let epoch = self.epoch(broker);
                self.heartbeat(broker, epoch, |r| BrokerHeartbeatRequest {
                    want_shut_down: true,
                    ..r
                });
            }
            Step::Restart { broker, clean } => {
                self.now_ms += 10_000;
                let previous = if clean { self.epoch(broker) } else { -1 };
                let request = registration(broker, incarnation);
                self.register(request.with_previous_broker_epoch(previous))
                    .expect("registers");
            }
        }
    }

    /// What must hold for every partition whatever happens (the model in reference/metadata.md section 4).
    fn check(&self) {
        for topic in self.image.topics.iter() {
            for (index, p) in &topic.partitions {
                let at = format!("{}-{index}: {p:?}", topic.name);
                let assigned = |ids: &[BrokerId]| ids.iter().all(|id| p.replicas.contains(id));
                assert!(assigned(&p.isr) && assigned(&p.elr), "{at}");
                assert!(
                    p.isr.iter().all(|id| !p.elr.contains(id)),
                    "ISR and ELR are disjoint: {at}"
                );
                // Only a sole replica that stopped cleanly may be in sync while it is fenced.
                let sole = p.replicas.len() == 1;
                let alive = p.isr.iter().all(|id| self.image.cluster.is_alive(*id));
                assert!(alive || sole, "{at}");
                if p.has_leader() {
                    assert!(p.isr.contains(&p.leader), "the leader is in sync: {at}");
                    assert!(sole || self.image.cluster.is_active(p.leader), "{at}");
                }
                if p.leader_recovery_state as i8 == 1 && p.has_leader() {
                    assert_eq!(p.isr.len(), 1, "a recovering leader is alone: {at}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rule: snapshots
    #[test]
    fn replay_equals_live_and_snapshots_are_whole(steps in prop::collection::vec(step(), 0..40)) {
        let mut cluster = Cluster::with_brokers(3);
        let middle = cluster.image.clone();
        let mut delta = MetadataDelta::default();
        let start = cluster.log.len();
        for (incarnation, step) in (100..).zip(&steps) {
            cluster.step(step, incarnation);
            cluster.check();
        }
        let mut replayed = MetadataImage::default();
        for (index, record) in cluster.log.iter().enumerate() {
            let mut before = MetadataDelta::default();
            let delta = if index < start { &mut before } else { &mut delta };
            replayed.apply(record, delta).expect("fits");
        }
        replayed.last_offset = cluster.image.last_offset;
        prop_assert_eq!(&replayed, &cluster.image);

        let mut restored = MetadataImage::default();
        let mut changes = MetadataDelta::default();
        for record in cluster.image.to_records() {
            restored.apply(&record, &mut changes).expect("fits");
        }
        restored.last_offset = cluster.image.last_offset;
        prop_assert_eq!(&restored, &cluster.image);

        // A delta names at least what differs, and exactly the topics that are gone or new.
        let between = MetadataDelta::between(&middle, &cluster.image);
        prop_assert_eq!(&between.topics_deleted, &delta.topics_deleted);
        prop_assert!(between.brokers_changed.is_subset(&delta.brokers_changed));
        for (id, topic) in &between.topics_changed {
            let changed = delta.topics_changed.get(id).expect("named");
            prop_assert_eq!(changed.created, topic.created);
            prop_assert!(topic.partitions.is_subset(&changed.partitions));
        }
    }
}
