//! One replica's log on a simulated disk: entries, of which only a prefix is synced, with the real caches of leader epochs
//! and producers over it.

use crate::log::{LeaderEpochCache, ProducerState};
use crate::protocol::batch::BatchHeader;
use crate::types::{LeaderEpoch, NO_LEADER_EPOCH, Offset, ProducerId, TimestampMs};

/// One record: who sent it, and as which of his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub leader_epoch: LeaderEpoch,
    pub producer_id: ProducerId,
    pub sequence: i32,
    /// When its leader appended it, by that one's wall clock (`message.timestamp.type=LogAppendTime`).
    pub timestamp_ms: TimestampMs,
}

/// `producer.id.expiration.ms`, as Kafka has it by default.
const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;

impl Entry {
    /// The header of a batch with this record alone.
    pub fn header(&self, offset: Offset) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 0,
            partition_leader_epoch: self.leader_epoch,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: self.timestamp_ms,
            max_timestamp: self.timestamp_ms,
            producer_id: self.producer_id,
            producer_epoch: 0,
            base_sequence: self.sequence,
            records_count: 1,
        }
    }
}

/// A log that begins at offset 0. What a crash leaves of it is [`ReplicaLog::lose_unsynced`]'s business.
#[derive(Clone, Debug, Default)]
pub struct ReplicaLog {
    entries: Vec<Entry>,
    /// Entries below this offset survive a power failure.
    synced: usize,
    /// Entries below this offset are as the oracle saw them last.
    unchanged: usize,
    pub epochs: LeaderEpochCache,
    pub producers: ProducerState,
    /// As the checkpoint files have them.
    pub checkpointed_high_watermark: Offset,
    recovery_point: Offset,
}

impl ReplicaLog {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn next_offset(&self) -> Offset {
        self.entries.len() as Offset
    }

    /// Epoch of the last record; -1 without records.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.latest_epoch().unwrap_or(NO_LEADER_EPOCH)
    }

    pub fn append(&mut self, entry: Entry, keeps_producers: bool) {
        let offset = self.next_offset();
        self.epochs.assign(entry.leader_epoch, offset);
        if keeps_producers {
            self.producers.update(&entry.header(offset));
        }
        self.entries.push(entry);
    }

    pub fn truncate_to(&mut self, offset: Offset) {
        self.shorten(offset as usize);
        self.synced = self.synced.min(self.entries.len());
        self.recovery_point = self.recovery_point.min(offset);
        self.epochs.truncate_from_end(offset);
        self.rebuild_producers();
    }

    fn shorten(&mut self, count: usize) {
        self.entries.truncate(count);
        self.unchanged = self.unchanged.min(count);
    }

    fn rebuild_producers(&mut self) {
        self.producers.clear(0);
        for (offset, entry) in self.entries.iter().enumerate() {
            self.producers.update(&entry.header(offset as Offset));
        }
    }

    /// What a broker does every few minutes: by the wall clock, because it compares with what is in the log.
    pub fn expire_producers(&mut self, wall_ms: TimestampMs) {
        self.producers
            .remove_expired(wall_ms, PRODUCER_EXPIRATION_MS);
    }

    pub fn sync(&mut self) {
        self.synced = self.entries.len();
    }

    /// Notes in the checkpoint files what is committed, and that all there is is synced.
    pub fn checkpoint(&mut self, high_watermark: Offset) {
        self.checkpointed_high_watermark = high_watermark;
        self.recovery_point = self.next_offset();
    }

    /// The checkpointed recovery point, and the offset up to which the log really is synced.
    pub fn durable(&self) -> (Offset, Offset) {
        (self.recovery_point, self.synced as Offset)
    }

    pub fn unchanged(&self) -> usize {
        self.unchanged
    }

    /// How many entries are as they were at the last look.
    pub fn look(&mut self) -> usize {
        std::mem::replace(&mut self.unchanged, self.entries.len())
    }

    pub fn unsynced_count(&self) -> usize {
        self.entries.len() - self.synced
    }

    /// The power fails: `lost` of the unsynced entries are gone.
    pub fn lose_unsynced(&mut self, lost: usize) {
        assert!(lost <= self.unsynced_count(), "synced entries stay");
        self.shorten(self.entries.len() - lost);
    }

    /// A new process reads the log: everything in memory comes from the entries.
    pub fn recover(&mut self) {
        self.epochs = LeaderEpochCache::default();
        for (offset, entry) in self.entries.iter().enumerate() {
            self.epochs.assign(entry.leader_epoch, offset as Offset);
        }
        self.rebuild_producers();
    }
}
