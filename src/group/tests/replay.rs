//! Whatever happens, the state in memory is the one that a reload would give; and bytes are Kafka's.

use proptest::prelude::*;

use super::*;
use crate::coordinator::HardState;
use crate::group::records::{GroupMetadata, GroupRecord, MemberMetadata, OffsetAndMetadata};

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Join {
        group: usize,
        instance: bool,
    },
    Rejoin {
        nth: usize,
    },
    Sync {
        nth: usize,
    },
    Leave {
        nth: usize,
    },
    Commit {
        group: usize,
        topic: usize,
        offset: i64,
    },
    Delete {
        group: usize,
    },
    TopicDeleted {
        topic: usize,
    },
    Advance {
        ms: i64,
    },
    Fail {
        on: bool,
    },
    Hold {
        on: bool,
    },
    FailOver,
}

const GROUPS: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["t", "u"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3usize, any::<bool>()).prop_map(|(group, instance)| Step::Join { group, instance }),
        4 => (0..6usize).prop_map(|nth| Step::Rejoin { nth }),
        4 => (0..6usize).prop_map(|nth| Step::Sync { nth }),
        1 => (0..6usize).prop_map(|nth| Step::Leave { nth }),
        4 => (0..3usize, 0..2usize, 0..100i64)
            .prop_map(|(group, topic, offset)| Step::Commit { group, topic, offset }),
        1 => (0..3usize).prop_map(|group| Step::Delete { group }),
        1 => (0..2usize).prop_map(|topic| Step::TopicDeleted { topic }),
        3 => prop_oneof![Just(10i64), Just(3_000), Just(60_000), Just(8 * 86_400_000)]
            .prop_map(|ms| Step::Advance { ms }),
        1 => any::<bool>().prop_map(|on| Step::Fail { on }),
        1 => any::<bool>().prop_map(|on| Step::Hold { on }),
        1 => Just(Step::FailOver),
    ]
}

/// Members that were given an id: group, id, instance, newest generation told.
type Known = (&'static str, String, Option<&'static str>, i32);

struct History {
    sim: Sim,
    members: Vec<Known>,
    parked: Vec<(usize, Answer<JoinGroupResponse>)>,
}

impl History {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Join { group, instance } => {
                let instance = instance.then_some("i");
                self.join(GROUPS[group], String::new(), instance);
            }
            Step::Rejoin { nth } => {
                if let Some((group, id, instance, _)) = self.members.get(nth).cloned() {
                    self.join(group, id, instance);
                }
            }
            Step::Sync { nth } => {
                if let Some((group, id, instance, generation_id)) = self.members.get(nth).cloned() {
                    let request = SyncRequest {
                        group_id: group.into(),
                        member_id: id.as_str().into(),
                        group_instance_id: instance.map(Into::into),
                        generation_id,
                        protocol_type: None,
                        protocol_name: None,
                        assignments: [(id.as_str().into(), Bytes::from_static(b"x"))]
                            .into_iter()
                            .collect(),
                    };
                    drop(
                        self.sim
                            .send(|reply| Operation::Sync(Box::new(request), reply)),
                    );
                }
            }
            Step::Leave { nth } => {
                if let Some((group, id, instance, _)) = self.members.get(nth).cloned() {
                    let member = MemberIdentity::default()
                        .with_member_id(wire(&id))
                        .with_group_instance_id(instance.map(wire));
                    let request = LeaveGroupRequest::default()
                        .with_group_id(GroupId(wire(group)))
                        .with_members(vec![member]);
                    drop(
                        self.sim
                            .send(|reply| Operation::Leave(Box::new(request), reply)),
                    );
                }
            }
            Step::Commit {
                group,
                topic,
                offset,
            } => {
                let (group, topic) = (GROUPS[group], TOPICS[topic]);
                drop(self.sim.commit(Commit {
                    group,
                    topic,
                    offset,
                    ..Commit::default()
                }));
            }
            Step::Delete { group } => {
                let groups = vec![GROUPS[group].into()];
                drop(self.sim.send(|reply| Operation::Delete(groups, reply)));
            }
            Step::TopicDeleted { topic } => {
                let topics: Arc<[_]> = [(TOPICS[topic].into(), TOPIC_ID)].into();
                self.sim
                    .executor
                    .handle(self.sim.now(), Operation::TopicsDeleted(topics));
                self.sim.flush();
            }
            Step::Advance { ms } => self.sim.advance(ms),
            Step::Fail { on } => {
                self.sim
                    .log
                    .fail_with(on.then_some(ErrorCode::NotEnoughReplicas));
            }
            Step::Hold { on } => self.sim.log.hold(on),
            Step::FailOver => self.sim.fail_over(),
        }
        self.sim.flush();
        self.collect();
    }

    fn join(&mut self, group: &'static str, member: String, instance: Option<&'static str>) {
        let join = Join {
            group,
            member: member.clone(),
            instance,
            ..Join::default()
        };
        let known = self.members.iter().position(|(_, id, ..)| *id == member);
        let index = known.unwrap_or_else(|| {
            self.members.push((group, member, instance, -1));
            self.members.len() - 1
        });
        let answer = self.sim.join(join);
        self.parked.push((index, answer));
    }

    fn collect(&mut self) {
        let members = &mut self.members;
        self.parked.retain_mut(|(index, answer)| {
            if let Ok(Ok(response)) = answer.try_recv() {
                let member = &mut members[*index];
                if !response.member_id.is_empty() {
                    member.1 = response.member_id.to_string();
                }
                member.3 = response.generation_id;
                return false;
            }
            waits(answer)
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rule: coordinators
    #[test]
    fn live_state_equals_the_replayed_log(steps in prop::collection::vec(step(), 1..80)) {
        let mut history = History { sim: Sim::new(), members: Vec::new(), parked: Vec::new() };
        for step in steps {
            history.apply(step);
            prop_assert_eq!(history.sim.executor.state(), &history.sim.loaded_state());
        }
        prop_assert!(history.sim.log.next_offset() >= 0);
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn round_trip(record: &GroupRecord, key: &str, value: &str) {
    let encoded = GroupState::encode(record);
    assert_eq!(hex(&encoded.key), key);
    assert_eq!(encoded.value.as_deref().map(hex).unwrap_or_default(), value);
    let decoded = GroupState::decode(encoded.key, encoded.value).expect("sound");
    assert_eq!(decoded.as_ref(), Some(record));
}

#[test]
fn records_are_kafkas_bytes() {
    let offset = |expire_timestamp_ms: Option<i64>, topic_id| GroupRecord::Offset {
        group_id: "g".into(),
        topic: "t".into(),
        partition: 3,
        value: Some(OffsetAndMetadata {
            offset: 258,
            leader_epoch: if expire_timestamp_ms.is_some() { -1 } else { 5 },
            metadata: "m".into(),
            commit_timestamp_ms: 1,
            expire_timestamp_ms,
            topic_id,
            record_offset: -1,
        }),
    };
    let key = "0001000167000174".to_owned() + "00000003";
    round_trip(
        &offset(None, TOPIC_ID),
        &key,
        "0004000000000000010200000005026d0000000000000001010010 00000000000000000000000000000007"
            .replace(' ', "")
            .as_str(),
    );
    round_trip(
        &offset(Some(9), Uuid::nil()),
        &key,
        "0001000000000000010200016d00000000000000010000000000000009",
    );
    let group = GroupRecord::Group {
        group_id: "g".into(),
        value: Some(Arc::new(GroupMetadata {
            protocol_type: Some("consumer".into()),
            generation_id: 2,
            protocol_name: Some("r".into()),
            leader_id: Some("m".into()),
            state_timestamp_ms: Some(1),
            members: vec![MemberMetadata {
                member_id: "m".into(),
                group_instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 7,
                session_timeout_ms: 6,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"a"),
            }],
        })),
    };
    round_trip(
        &group,
        "0002000167",
        concat!(
            "0003",
            "0008636f6e73756d6572",
            "00000002",
            "000172",
            "00016d",
            "0000000000000001",
            "00000001",
            "00016d",
            "ffff",
            "000163",
            "00022f68",
            "00000007",
            "00000006",
            "0000000173",
            "0000000161",
        ),
    );
    let tombstone = GroupRecord::Group {
        group_id: "g".into(),
        value: None,
    };
    round_trip(&tombstone, "0002000167", "");
}

#[test]
fn unknown_record_types_are_skipped_and_broken_values_are_not() {
    let decode = |key: &'static [u8], value: &'static [u8]| {
        GroupState::decode(Bytes::from_static(key), Some(Bytes::from_static(value)))
    };
    // A consumer group (KIP-848), and something from the future.
    assert_eq!(decode(&[0, 3, 0, 1, b'g'], &[0, 0]), Ok(None));
    assert_eq!(decode(&[0x7f, 0, 1, 2], &[0, 0]), Ok(None));
    assert!(decode(&[0, 2, 0, 1, b'g'], &[0, 3, 0]).is_err());
}

#[test]
fn groups_are_placed_by_javas_string_hash() {
    for (group_id, expected) in [
        ("", 0),
        ("a", 97 % 50),
        ("hello", 99_162_322 % 50),
        // The hash is the most negative number, whose absolute value Kafka takes for 0.
        ("polygenelubricants", 0),
    ] {
        assert_eq!(
            crate::group::partition_for(group_id, 50),
            expected,
            "{group_id}"
        );
    }
}
