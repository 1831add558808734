//! What `__consumer_offsets` says: the groups' last logged generations and their committed offsets.
//! Changed by replaying records only; every change can be taken back until it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::records::{GroupMetadata, GroupRecord, OffsetAndMetadata};
use crate::coordinator::RecordOrigin;
use crate::types::ProducerId;

/// The groups of one partition, by id.
#[derive(Debug, Default)]
pub struct GroupState {
    groups: IndexMap<Arc<str>, LoggedGroup>,
    /// Where open transactions may have pending offsets; may name places that have been cleared since.
    transactions: BTreeMap<ProducerId, BTreeSet<Place>>,
}

/// Group, topic, partition.
pub type Place = (Arc<str>, Arc<str>, i32);

/// A group as the log knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoggedGroup {
    /// `None` for a group that was only named by an offset commit.
    pub metadata: Option<Arc<GroupMetadata>>,
    /// Most groups have few partitions of a topic: boxes keep the map's nodes small.
    offsets: IndexMap<Arc<str>, BTreeMap<i32, Box<Cell>>>,
}

/// What is known about one partition's offset in one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub committed: Option<OffsetAndMetadata>,
    /// Offsets of open transactions.
    pub pending: Vec<(ProducerId, OffsetAndMetadata)>,
}

/// Takes back one change.
#[derive(Debug)]
pub enum Undo {
    Cell {
        place: Place,
        previous: Cell,
        group_created: bool,
    },
    Metadata {
        group_id: Arc<str>,
        previous: Option<Arc<GroupMetadata>>,
        group_created: bool,
    },
    Group {
        group_id: Arc<str>,
        previous: Option<LoggedGroup>,
    },
}

impl GroupState {
    pub fn group(&self, group_id: &str) -> Option<&LoggedGroup> {
        self.groups.get(group_id)
    }

    pub fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &LoggedGroup)> {
        self.groups.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn replay_record(&mut self, origin: RecordOrigin, record: GroupRecord) -> Undo {
        match record {
            GroupRecord::Offset {
                group_id,
                topic,
                partition,
                value,
            } => self.replay_offset(origin, (group_id, topic, partition), value),
            GroupRecord::Group {
                group_id,
                value: Some(metadata),
            } => {
                let group_created = !self.groups.contains_key(&group_id);
                let group = self.groups.entry(group_id.clone()).or_default();
                let previous = group.metadata.replace(metadata);
                Undo::Metadata {
                    group_id,
                    previous,
                    group_created,
                }
            }
            GroupRecord::Group {
                group_id,
                value: None,
            } => Undo::Group {
                previous: self.groups.swap_remove(&group_id),
                group_id,
            },
        }
    }

    fn replay_offset(
        &mut self,
        origin: RecordOrigin,
        place: Place,
        value: Option<OffsetAndMetadata>,
    ) -> Undo {
        let place = self.intern(place);
        let group_created = !self.groups.contains_key(&place.0);
        let previous = self.cell(&place).cloned().unwrap_or_default();
        let Some(mut value) = value else {
            // A tombstone ends pending offsets, too. It does not create a group.
            if !group_created {
                self.set_cell(&place, Cell::default());
            }
            return Undo::Cell {
                place,
                previous,
                group_created: false,
            };
        };
        value.record_offset = origin.offset;
        let mut cell = previous.clone();
        if origin.is_transactional() {
            cell.pending.retain(|(id, _)| *id != origin.producer_id);
            cell.pending.push((origin.producer_id, value));
            self.transactions
                .entry(origin.producer_id)
                .or_default()
                .insert(place.clone());
        } else {
            cell.committed = Some(value);
        }
        self.set_cell(&place, cell);
        Undo::Cell {
            place,
            previous,
            group_created,
        }
    }

    /// Moves a producer's pending offsets to the committed ones, or drops them.
    pub(super) fn replay_end_transaction(
        &mut self,
        producer_id: ProducerId,
        commit: bool,
        undo: &mut Vec<Undo>,
    ) {
        for place in self.transactions.remove(&producer_id).unwrap_or_default() {
            let Some(previous) = self.cell(&place).cloned() else {
                continue;
            };
            let mut cell = previous.clone();
            let Some(index) = cell.pending.iter().position(|(id, _)| *id == producer_id) else {
                continue;
            };
            let (_, value) = cell.pending.remove(index);
            // Compaction may have changed the order of what is left: the later record wins.
            let newer = |old: &OffsetAndMetadata| value.record_offset > old.record_offset;
            if commit && cell.committed.as_ref().is_none_or(newer) {
                cell.committed = Some(value);
            }
            self.set_cell(&place, cell);
            undo.push(Undo::Cell {
                place,
                previous,
                group_created: false,
            });
        }
    }

    pub(super) fn revert_change(&mut self, undo: Undo) {
        match undo {
            Undo::Cell {
                place,
                previous,
                group_created,
            } => {
                for (producer_id, _) in &previous.pending {
                    self.transactions
                        .entry(*producer_id)
                        .or_default()
                        .insert(place.clone());
                }
                if self.groups.contains_key(&place.0) {
                    self.set_cell(&place, previous);
                }
                if group_created {
                    self.groups.swap_remove(&place.0);
                }
            }
            Undo::Metadata {
                group_id,
                group_created: true,
                ..
            } => {
                self.groups.swap_remove(&group_id);
            }
            Undo::Metadata {
                group_id, previous, ..
            } => self.groups.entry(group_id).or_default().metadata = previous,
            Undo::Group { group_id, previous } => {
                if let Some(group) = previous {
                    self.groups.insert(group_id, group);
                }
            }
        }
    }

    /// Shares the names that the state already holds.
    fn intern(&self, (group_id, topic, partition): Place) -> Place {
        let Some((_, group_id, group)) = self.groups.get_full(&group_id) else {
            return (group_id, topic, partition);
        };
        let topic = group
            .offsets
            .get_key_value(&topic)
            .map_or(topic, |(topic, _)| topic.clone());
        (group_id.clone(), topic, partition)
    }

    fn cell(&self, (group_id, topic, partition): &Place) -> Option<&Cell> {
        self.groups.get(group_id)?.cell(topic, *partition)
    }

    /// An empty cell removes its place.
    fn set_cell(&mut self, (group_id, topic, partition): &Place, cell: Cell) {
        let group = self.groups.entry(group_id.clone()).or_default();
        if cell.committed.is_some() || !cell.pending.is_empty() {
            group
                .offsets
                .entry(topic.clone())
                .or_default()
                .insert(*partition, Box::new(cell));
        } else if let Some(partitions) = group.offsets.get_mut(topic) {
            partitions.remove(partition);
            if partitions.is_empty() {
                group.offsets.swap_remove(topic);
            }
        }
    }
}

impl LoggedGroup {
    pub fn cell(&self, topic: &str, partition: i32) -> Option<&Cell> {
        self.offsets.get(topic)?.get(&partition).map(Box::as_ref)
    }

    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, Box<Cell>>)> {
        self.offsets.iter()
    }

    pub fn topic(&self, topic: &str) -> Option<&BTreeMap<i32, Box<Cell>>> {
        self.offsets.get(topic)
    }
}

/// Where transactions may be pending is an index: it may hold places that a reload would not find.
#[cfg(test)]
impl PartialEq for GroupState {
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups
    }
}
