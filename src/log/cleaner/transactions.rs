//! What the cleaner knows of transactions while it walks a log in offset order: whose records were aborted, and which markers
//! are of no use any more (Kafka's `CleanedTransactionMetadata`). Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::log::AbortedTxn;
use crate::types::{Offset, ProducerId};

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Abort,
    Commit,
    /// A control record that ends no transaction.
    Other,
    /// The record was cleaned away before.
    Empty,
}

#[derive(Debug, Default)]
pub struct CleanedTransactions {
    /// Producers with records of a committed transaction whose marker is still to come.
    ongoing_committed: HashSet<ProducerId>,
    /// Aborted transactions whose marker is still to come, and whether a batch of theirs was seen.
    ongoing_aborted: HashMap<ProducerId, (AbortedTxn, bool)>,
    /// Aborted transactions that begin further on.
    aborted: BinaryHeap<Reverse<AbortedTxn>>,
    /// Aborted transactions whose marker stays: the cleaned segments' transaction index.
    retained: Vec<AbortedTxn>,
}

impl CleanedTransactions {
    pub fn new(aborted: impl IntoIterator<Item = AbortedTxn>) -> Self {
        Self {
            aborted: aborted.into_iter().map(Reverse).collect(),
            ..Self::default()
        }
    }

    /// What belongs into the transaction index of the segment that was cleaned since the last call.
    pub fn take_retained(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.retained)
    }

    fn begin_up_to(&mut self, offset: Offset) {
        while let Some(Reverse(next)) = self.aborted.peek()
            && next.first_offset <= offset
        {
            let next = *next;
            self.aborted.pop();
            self.ongoing_aborted
                .entry(next.producer_id)
                .or_insert((next, false));
        }
    }

    /// Takes note of a batch of data. True if its transaction was aborted: its records may go.
    pub fn on_batch(
        &mut self,
        producer_id: ProducerId,
        is_transactional: bool,
        last_offset: Offset,
    ) -> bool {
        self.begin_up_to(last_offset);
        if !is_transactional {
            return false;
        }
        if let Some((_, has_batches)) = self.ongoing_aborted.get_mut(&producer_id) {
            *has_batches = true;
            return true;
        }
        self.ongoing_committed.insert(producer_id);
        false
    }

    /// Takes note of a control batch. True if no batch of its transaction is left: it may go once its delete horizon passed.
    pub fn on_marker(
        &mut self,
        producer_id: ProducerId,
        marker: Marker,
        last_offset: Offset,
    ) -> bool {
        self.begin_up_to(last_offset);
        match marker {
            Marker::Abort => match self.ongoing_aborted.remove(&producer_id) {
                Some((aborted, true)) => {
                    self.retained.push(aborted);
                    false
                }
                _ => true,
            },
            Marker::Commit => !self.ongoing_committed.remove(&producer_id),
            Marker::Other => false,
            Marker::Empty => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(producer_id: ProducerId, first_offset: Offset, last_offset: Offset) -> AbortedTxn {
        AbortedTxn {
            first_offset,
            last_offset,
            producer_id,
            last_stable_offset: last_offset,
        }
    }

    #[test]
    fn records_of_aborted_transactions_go_and_their_marker_stays_with_them() {
        let mut t = CleanedTransactions::new([aborted(1, 10, 20), aborted(1, 0, 5)]);
        assert!(t.on_batch(1, true, 2));
        assert!(!t.on_marker(1, Marker::Abort, 5));
        assert!(!t.on_batch(1, true, 7), "a committed one in between");
        assert!(!t.on_marker(1, Marker::Commit, 8));
        assert!(t.on_batch(1, true, 11));
        assert!(!t.on_batch(1, false, 12), "not part of the transaction");
        assert_eq!(t.take_retained(), [aborted(1, 0, 5)]);
        assert!(!t.on_marker(1, Marker::Abort, 20));
        assert_eq!(t.take_retained(), [aborted(1, 10, 20)]);
    }

    #[test]
    fn markers_without_records_may_go() {
        let mut t = CleanedTransactions::new([aborted(2, 3, 9)]);
        assert!(t.on_marker(1, Marker::Commit, 2));
        assert!(t.on_marker(2, Marker::Abort, 9));
        assert!(
            t.on_marker(3, Marker::Abort, 10),
            "the index does not know it any more"
        );
        assert!(t.on_marker(4, Marker::Empty, 11));
        assert!(
            !t.on_marker(4, Marker::Other, 12),
            "no end of a transaction"
        );
        assert_eq!(t.take_retained(), []);
    }

    #[test]
    fn producers_are_told_apart() {
        let mut t = CleanedTransactions::new([aborted(1, 0, 9)]);
        assert!(t.on_batch(1, true, 3));
        assert!(!t.on_batch(2, true, 5));
        assert!(!t.on_marker(2, Marker::Commit, 8));
        assert!(
            t.on_marker(2, Marker::Commit, 8),
            "the second has nothing before it"
        );
        assert!(!t.on_marker(1, Marker::Abort, 9));
    }
}
