//! What each idempotent or transactional producer wrote last: duplicates, sequence gaps and old epochs are found here
//! (Kafka's `ProducerStateManager`, `ProducerAppendInfo`). Pure; `producer_snapshot` puts it on disk.

use std::collections::{BTreeMap, HashMap};

use super::cleaner::LastRecord;
#[cfg(test)]
use super::tests::transactions;
use super::{AbortedTxn, ActiveProducer};
use crate::protocol::batch::{AppendOrigin, BatchHeader};
use crate::protocol::{Error, ErrorCode};
use crate::types::{
    NO_PRODUCER_EPOCH, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId, TimestampMs,
};

/// Batches remembered for each producer: its `max.in.flight.requests.per.connection` must not be larger.
pub const BATCHES_MAX: usize = 5;
const NO_SEQUENCE: i32 = -1;

/// The last offset and sequence of a batch, and how far back both began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMetadata {
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    pub timestamp: TimestampMs,
}

impl BatchMetadata {
    pub fn first_offset(&self) -> Offset {
        self.last_offset.wrapping_sub(i64::from(self.offset_delta))
    }

    /// Sequences wrap: the one before 0 is `i32::MAX`.
    pub fn first_sequence(&self) -> i32 {
        if self.last_sequence < self.offset_delta {
            i32::MAX
                .wrapping_sub(self.offset_delta.wrapping_sub(self.last_sequence))
                .wrapping_add(1)
        } else {
            self.last_sequence.wrapping_sub(self.offset_delta)
        }
    }
}

/// One producer. At most [`BATCHES_MAX`] batches, oldest first, all of `epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: ProducerEpoch,
    pub coordinator_epoch: i32,
    pub last_timestamp: TimestampMs,
    /// -1 outside a transaction.
    pub current_txn_first_offset: Offset,
    batches: [BatchMetadata; BATCHES_MAX],
    len: u8,
}

impl ProducerEntry {
    pub fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            current_txn_first_offset: -1,
            batches: [BatchMetadata::default(); BATCHES_MAX],
            len: 0,
        }
    }

    fn batches(&self) -> &[BatchMetadata] {
        &self.batches[..usize::from(self.len)]
    }

    pub fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches().last()
    }

    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(NO_SEQUENCE, |b| b.last_sequence)
    }

    /// A new epoch forgets the batches of the old one.
    pub fn add_batch(&mut self, epoch: ProducerEpoch, batch: BatchMetadata) {
        self.set_epoch(epoch);
        if usize::from(self.len) == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[usize::from(self.len)] = batch;
        self.len += 1;
        self.last_timestamp = batch.timestamp;
    }

    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.len = 0;
        }
    }

    fn find_duplicate(&self, header: &BatchHeader) -> Option<&BatchMetadata> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let last_sequence = header.last_sequence();
        self.batches().iter().find(|batch| {
            batch.last_sequence == last_sequence && batch.first_sequence() == header.base_sequence
        })
    }

    fn check_epoch(&self, id: ProducerId, epoch: ProducerEpoch) -> Result<(), Error> {
        #[cfg(test)]
        if transactions::is_planted(transactions::Planted::TakesOldEpochs) {
            return Ok(());
        }
        if epoch < self.epoch {
            return Err(Error::new(
                ErrorCode::InvalidProducerEpoch,
                format!(
                    "epoch of producer {id} is {epoch}, older than the last one, {}",
                    self.epoch
                ),
            ));
        }
        Ok(())
    }

    fn check_sequence(&self, id: ProducerId, header: &BatchHeader) -> Result<(), Error> {
        let first = header.base_sequence;
        // Without an epoch there is nothing to compare with.
        let in_order = if self.epoch == NO_PRODUCER_EPOCH {
            true
        } else if header.producer_epoch == self.epoch {
            let last = self.last_sequence();
            i64::from(first) == i64::from(last) + 1 || (first == 0 && last == i32::MAX)
        } else {
            first == 0
        };
        if in_order {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::OutOfOrderSequenceNumber,
            format!(
                "out of order sequence of producer {id}: {first} comes in, {} was the last",
                self.last_sequence()
            ),
        ))
    }
}

/// What the state says about a batch that is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    Duplicate(BatchMetadata),
}

/// An end-of-transaction marker (control batch), as its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub timestamp: TimestampMs,
}

/// All producers of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: HashMap<ProducerId, ProducerEntry>,
    /// First offsets of transactions that are open.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// First and last (marker's) offsets of decided transactions whose marker may not be replicated yet.
    unreplicated: Vec<(Offset, Offset)>,
    /// The state covers every batch below this offset.
    pub map_end_offset: Offset,
}

impl ProducerState {
    #[cfg(test)]
    pub fn entry(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&id)
    }

    /// Sorted by producer id.
    pub fn entries(&self) -> Vec<(ProducerId, &ProducerEntry)> {
        let mut entries: Vec<_> = self.producers.iter().map(|(id, e)| (*id, e)).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
    }

    /// Puts an entry back that a snapshot holds.
    pub fn restore(&mut self, id: ProducerId, entry: ProducerEntry) {
        if entry.current_txn_first_offset >= 0 {
            self.ongoing.insert(entry.current_txn_first_offset, id);
        }
        self.producers.insert(id, entry);
    }

    pub fn clear(&mut self, map_end_offset: Offset) {
        *self = Self {
            map_end_offset,
            ..Self::default()
        };
    }

    /// Judges a data batch; the header's offsets do not matter.
    pub fn check(&self, header: &BatchHeader, origin: AppendOrigin) -> Result<Verdict, Error> {
        if !header.has_producer_id() || header.is_control() {
            return Ok(Verdict::Append);
        }
        let id = header.producer_id;
        let Some(entry) = self.producers.get(&id) else {
            if origin == AppendOrigin::OpenTransaction {
                return Err(not_in_transaction(id));
            }
            // Kafka accepts any first sequence of a producer that it does not know (KAFKA-5793).
            let unknown = ProducerEntry::new(NO_PRODUCER_EPOCH);
            unknown.check_epoch(id, header.producer_epoch)?;
            return Ok(Verdict::Append);
        };
        if matches!(origin, AppendOrigin::Client | AppendOrigin::OpenTransaction) {
            if let Some(duplicate) = entry.find_duplicate(header) {
                return Ok(Verdict::Duplicate(*duplicate));
            }
            let is_open =
                entry.current_txn_first_offset >= 0 && entry.epoch == header.producer_epoch;
            if origin == AppendOrigin::OpenTransaction && !is_open {
                entry.check_epoch(id, header.producer_epoch)?;
                return Err(not_in_transaction(id));
            }
            entry.check_epoch(id, header.producer_epoch)?;
            entry.check_sequence(id, header)?;
        } else if origin == AppendOrigin::Coordinator {
            entry.check_epoch(id, header.producer_epoch)?;
        }
        if entry.current_txn_first_offset >= 0
            && !header.is_transactional()
            && origin != AppendOrigin::Replication
        {
            return Err(Error::new(
                ErrorCode::InvalidTxnState,
                format!("producer {id} has an open transaction; the batch is not part of it"),
            ));
        }
        Ok(Verdict::Append)
    }

    /// Judges the end of a transaction (`ProducerAppendInfo.appendEndTxnMarker`). The epoch of a transaction of version 2 must
    /// be above that of its records; one that is repeated finds the transaction ended and may be written again.
    pub fn check_marker(
        &self,
        header: &BatchHeader,
        marker: EndTxnMarker,
        transaction_version: i8,
    ) -> Result<(), Error> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        let Some(entry) = self.producers.get(&id) else {
            return Ok(());
        };
        let is_repeated = epoch == entry.epoch
            && (entry.current_txn_first_offset < 0 || epoch == ProducerEpoch::MAX);
        let is_old = epoch < entry.epoch || transaction_version >= 2 && epoch == entry.epoch;
        #[cfg(test)]
        let is_old = is_old && !transactions::is_planted(transactions::Planted::TakesOldMarkers);
        if is_old && !(transaction_version >= 2 && is_repeated) {
            return Err(Error::new(
                ErrorCode::InvalidProducerEpoch,
                format!(
                    "marker of producer {id} has epoch {epoch}, the last one is {}",
                    entry.epoch
                ),
            ));
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return Err(Error::new(
                ErrorCode::TransactionCoordinatorFenced,
                format!(
                    "marker of producer {id} has coordinator epoch {}, the last one is {}",
                    marker.coordinator_epoch, entry.coordinator_epoch
                ),
            ));
        }
        Ok(())
    }

    /// Takes in an appended data batch; `header` has its final offsets.
    pub fn update(&mut self, header: &BatchHeader) {
        if header.has_producer_id() && !header.is_control() {
            let id = header.producer_id;
            let entry = self
                .producers
                .entry(id)
                .or_insert_with(|| ProducerEntry::new(header.producer_epoch));
            entry.add_batch(
                header.producer_epoch,
                BatchMetadata {
                    last_sequence: header.last_sequence(),
                    last_offset: header.last_offset(),
                    offset_delta: header.last_offset_delta,
                    timestamp: header.max_timestamp,
                },
            );
            if header.is_transactional() && entry.current_txn_first_offset < 0 {
                entry.current_txn_first_offset = header.base_offset;
                self.ongoing.insert(header.base_offset, id);
            }
        }
        self.map_end_offset = header.next_offset();
    }

    /// Takes in a control batch that ends a transaction. An abort of a transaction that wrote something here is returned,
    /// for the transaction index.
    pub fn end_transaction(
        &mut self,
        header: &BatchHeader,
        marker: EndTxnMarker,
    ) -> Option<AbortedTxn> {
        let entry = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerEntry::new(header.producer_epoch));
        let first = std::mem::replace(&mut entry.current_txn_first_offset, -1);
        entry.set_epoch(header.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp = marker.timestamp;
        self.map_end_offset = header.next_offset();
        self.ongoing.remove(&first)?;
        self.unreplicated.push((first, header.base_offset));
        (!marker.commit).then(|| AbortedTxn {
            producer_id: header.producer_id,
            first_offset: first,
            last_offset: header.base_offset,
            last_stable_offset: self
                .first_undecided_offset()
                .unwrap_or(header.base_offset + 1),
        })
    }

    /// First offset of the oldest open transaction.
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        self.ongoing.keys().next().copied()
    }

    /// Where the last stable offset stands still: an open transaction, or one whose marker is not known to be replicated.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let unreplicated = self.unreplicated.iter().map(|(first, _)| *first);
        unreplicated.chain(self.first_undecided_offset()).min()
    }

    /// Lets go of decided transactions whose marker is replicated.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated
            .retain(|(_, last)| *last >= high_watermark);
    }

    pub fn remove_expired(&mut self, now_ms: TimestampMs, expiration_ms: i64) {
        self.producers
            .retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
    }

    /// The last thing that each producer wrote: compaction keeps it.
    pub fn last_records(&self) -> HashMap<ProducerId, LastRecord> {
        let last = |entry: &ProducerEntry| LastRecord {
            last_data_offset: entry.last_batch().map(|batch| batch.last_offset),
            producer_epoch: entry.epoch,
        };
        self.producers
            .iter()
            .map(|(id, entry)| (*id, last(entry)))
            .collect()
    }

    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> + '_ {
        self.producers.iter().map(|(id, entry)| ActiveProducer {
            producer_id: *id,
            producer_epoch: entry.epoch,
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            current_txn_start_offset: entry.current_txn_first_offset,
        })
    }
}

fn not_in_transaction(id: ProducerId) -> Error {
    Error::new(
        ErrorCode::InvalidTxnState,
        format!("producer {id} has no open transaction here"),
    )
}

/// Whether a producer wrote nothing for so long that it may be forgotten; never inside a transaction.
pub fn is_expired(entry: &ProducerEntry, now_ms: TimestampMs, expiration_ms: i64) -> bool {
    entry.current_txn_first_offset < 0
        && now_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}
