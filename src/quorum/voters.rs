//! Changes of the quorum's members (KIP-853): which are allowed, and what the members are then. Pure; `membership` carries
//! them out.
//!
//! One voter comes or goes at a time, so that any majority of the old voters meets any majority of the new ones. Who is no
//! voter any more goes on as an observer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::types::{Membership, VoterNode, kraft_version, node_id, nodes_of, raft_id, voter_of};
use crate::types::{BrokerId, Uuid, uuid_to_base64};

/// What is to become of the quorum's voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterChange {
    /// AddRaftVoter
    Add { node_id: BrokerId, node: VoterNode },
    /// RemoveRaftVoter
    Remove {
        node_id: BrokerId,
        directory_id: Uuid,
    },
    /// UpdateRaftVoter: it listens elsewhere.
    Update { node_id: BrokerId, node: VoterNode },
}

/// Why the voters did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoterChangeError {
    #[error("this node does not lead the metadata quorum")]
    NotLeader,
    /// Another change is under way, or this one was not committed in time (then it may be yet).
    #[error("{0}")]
    TimedOut(Arc<str>),
    #[error("the quorum's voters are static: kraft.version is 0")]
    Unsupported,
    #[error("node {0} is a voter already")]
    Duplicate(BrokerId),
    /// Also: it is the only voter.
    #[error("voter {0} with directory id {id} is not there to be changed", id = uuid_to_base64(*.1))]
    NotFound(BrokerId, Uuid),
    /// The new voter speaks another version of the quorum's protocol.
    #[error("node {0} does not support the quorum's kraft.version")]
    Incompatible(BrokerId),
}

impl VoterChange {
    /// The id by which raft knows the replica.
    pub(super) fn raft_id(&self) -> u64 {
        match self {
            Self::Add { node_id, node } | Self::Update { node_id, node } => {
                raft_id(*node_id, node.directory_id)
            }
            Self::Remove {
                node_id,
                directory_id,
            } => raft_id(*node_id, *directory_id),
        }
    }

    /// Whether `members` allow the change.
    pub(super) fn check(&self, members: &Membership) -> Result<(), VoterChangeError> {
        if kraft_version(members) < 1 {
            return Err(VoterChangeError::Unsupported);
        }
        let is_voter = members.voter_ids().any(|id| id == self.raft_id());
        let is_alone = members.voter_ids().count() == 1;
        match self {
            Self::Add { node_id, .. } if voter_of(members, *node_id).is_some() => {
                Err(VoterChangeError::Duplicate(*node_id))
            }
            Self::Remove {
                node_id,
                directory_id,
            } if !is_voter || is_alone => Err(VoterChangeError::NotFound(*node_id, *directory_id)),
            Self::Update { node_id, node } if !is_voter => {
                Err(VoterChangeError::NotFound(*node_id, node.directory_id))
            }
            Self::Add { .. } | Self::Remove { .. } | Self::Update { .. } => Ok(()),
        }
    }

    /// The members after a voter came or went. One that comes is an observer before.
    pub(super) fn apply(&self, members: &Membership) -> Membership {
        let mut voters: BTreeSet<u64> = members.voter_ids().collect();
        let mut nodes = nodes_of(members);
        match self {
            Self::Add { node, .. } => {
                nodes.entry(self.raft_id()).or_insert_with(|| node.clone());
                voters.insert(self.raft_id());
            }
            Self::Remove { .. } => {
                voters.remove(&self.raft_id());
            }
            Self::Update { node, .. } => {
                nodes.insert(self.raft_id(), node.clone());
            }
        }
        Membership::new(vec![voters], nodes).expect("every voter is among the nodes")
    }
}

/// Voters without raft, for the simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters(Membership);

impl Voters {
    /// The first voters of a quorum: node ids and directory ids.
    pub fn first(replicas: impl IntoIterator<Item = (BrokerId, Uuid)>) -> Self {
        let node = |directory_id| VoterNode {
            directory_id,
            endpoints: Vec::new(),
        };
        let replicas = replicas.into_iter();
        let nodes: BTreeMap<u64, VoterNode> = replicas
            .map(|(id, directory_id)| (raft_id(id, directory_id), node(directory_id)))
            .collect();
        let ids = nodes.keys().copied().collect();
        Self(Membership::new(vec![ids], nodes).expect("every voter is among the nodes"))
    }

    /// Their node ids and directory ids, by node id.
    pub fn replicas(&self) -> Vec<(BrokerId, Uuid)> {
        self.described(self.0.voter_ids())
    }

    /// Those that were voters before.
    pub fn former(&self) -> Vec<(BrokerId, Uuid)> {
        self.described(self.0.learner_ids())
    }

    fn described(&self, ids: impl Iterator<Item = u64>) -> Vec<(BrokerId, Uuid)> {
        let mut replicas: Vec<_> = ids
            .filter_map(|id| Some((node_id(id), self.0.get_node(&id)?.directory_id)))
            .collect();
        replicas.sort_unstable();
        replicas
    }

    /// The voters after a change, if it is allowed.
    pub fn after(&self, change: &VoterChange) -> Result<Self, VoterChangeError> {
        change.check(&self.0)?;
        Ok(Self(change.apply(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(directory: u128) -> VoterNode {
        VoterNode {
            directory_id: Uuid::from_u128(directory),
            endpoints: Vec::new(),
        }
    }

    fn members(voters: &[(BrokerId, u128)], observers: &[(BrokerId, u128)]) -> Membership {
        let id = |(id, directory): &(BrokerId, u128)| raft_id(*id, Uuid::from_u128(*directory));
        let all = voters.iter().chain(observers);
        let nodes: BTreeMap<u64, VoterNode> = all.map(|it| (id(it), node(it.1))).collect();
        Membership::new(vec![voters.iter().map(id).collect()], nodes).unwrap()
    }

    fn add(node_id: BrokerId, directory: u128) -> VoterChange {
        let node = node(directory);
        VoterChange::Add { node_id, node }
    }

    fn remove(node_id: BrokerId, directory: u128) -> VoterChange {
        VoterChange::Remove {
            node_id,
            directory_id: Uuid::from_u128(directory),
        }
    }

    fn update(node_id: BrokerId, directory: u128) -> VoterChange {
        let node = node(directory);
        VoterChange::Update { node_id, node }
    }

    #[test]
    fn a_change_is_checked_against_the_voters() {
        use VoterChangeError::{Duplicate, NotFound, Unsupported};
        let not_found = |id, directory| Err(NotFound(id, Uuid::from_u128(directory)));
        let three = members(&[(1, 11), (2, 12), (3, 13)], &[(4, 14)]);
        for (change, expected) in [
            (add(4, 14), Ok(())),
            (add(5, 15), Ok(())),
            // The id counts, not the directory: the old voter has to go first.
            (add(2, 99), Err(Duplicate(2))),
            (add(2, 12), Err(Duplicate(2))),
            (remove(2, 12), Ok(())),
            (remove(2, 99), not_found(2, 99)),
            (remove(4, 14), not_found(4, 14)),
            (remove(9, 19), not_found(9, 19)),
            (update(2, 12), Ok(())),
            (update(2, 99), not_found(2, 99)),
            (update(4, 14), not_found(4, 14)),
        ] {
            assert_eq!(change.check(&three), expected, "{change:?}");
        }
        let one = members(&[(1, 11)], &[]);
        assert_eq!(
            remove(1, 11).check(&one),
            not_found(1, 11),
            "the last voter stays"
        );
        let fixed = members(&[(1, 0), (2, 0)], &[]);
        for change in [add(3, 13), remove(1, 0), update(1, 0)] {
            assert_eq!(change.check(&fixed), Err(Unsupported), "{change:?}");
        }
    }

    #[test]
    fn a_voter_that_goes_observes_and_a_new_directory_is_somebody_else() {
        let three = members(&[(1, 11), (2, 12), (3, 13)], &[]);
        let two = remove(2, 12).apply(&three);
        assert_eq!(two, members(&[(1, 11), (3, 13)], &[(2, 12)]));
        let again = add(2, 99).apply(&two);
        assert_eq!(again, members(&[(1, 11), (2, 99), (3, 13)], &[(2, 12)]));
        assert_eq!(node_id(raft_id(2, Uuid::from_u128(99))), 2);
        assert_ne!(
            raft_id(2, Uuid::from_u128(99)),
            raft_id(2, Uuid::from_u128(12))
        );
        assert_eq!(raft_id(2, Uuid::nil()), 2);
    }
}
