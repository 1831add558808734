//! The last offset of each key, in bounded memory: 24 bytes an entry, as in Kafka's `SkimpyOffsetMap`. Pure; built and asked
//! by `cleaning.rs`.
//!
//! A key is represented by 128 bits of a hash; two keys with the same hash would cost a record. Kafka takes MD5, of which
//! anybody can make collisions; SipHash with a key that nobody outside knows is several times faster and leaves no such choice.
//! Robin Hood probing keeps searches short at a load of 0.9, for absent keys too.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::types::Offset;

/// Bytes of one slot.
pub const SLOT_BYTES: usize = 24;

/// Two words of hash, and the offset plus one: 0 is an empty slot.
type Slot = [u64; 3];
const OFFSET: usize = 2;

/// Keys and their last offsets.
pub struct OffsetMap {
    slots: Vec<Slot>,
    entries: usize,
    /// Never all of the slots.
    entries_max: usize,
    /// Slots that the memory allowed would have, all of them taken or not.
    slots_allowed: usize,
    latest_offset: Offset,
    hash: SipHasher13,
}

impl OffsetMap {
    /// As many entries as `memory_bytes` holds at `load_factor`, but not more than `keys_max`: memory for more is not taken.
    /// `seed` is the hash's key; draw a new one each time.
    pub fn new(memory_bytes: usize, load_factor: f64, keys_max: usize, seed: u128) -> Self {
        let entries_max = Self::entries_max(memory_bytes, load_factor)
            .min(keys_max)
            .max(1);
        // What load the full map would have; at least one slot stays empty.
        let slots = (entries_max as f64 / load_factor.clamp(0.01, 1.0)).ceil() as usize;
        let slots = slots.max(entries_max + 1);
        Self {
            slots: vec![[0; 3]; slots],
            entries: 0,
            entries_max,
            slots_allowed: (memory_bytes / SLOT_BYTES).max(1),
            latest_offset: -1,
            hash: SipHasher13::new_with_keys(seed as u64, (seed >> 64) as u64),
        }
    }

    /// Entries that fit into so much memory.
    pub fn entries_max(memory_bytes: usize, load_factor: f64) -> usize {
        let slots = memory_bytes / SLOT_BYTES;
        ((slots as f64 * load_factor) as usize).min(slots.saturating_sub(1))
    }

    pub fn is_full(&self) -> bool {
        self.entries >= self.entries_max
    }

    /// Share of the memory allowed that is in use.
    pub fn utilization(&self) -> f64 {
        self.entries as f64 / self.slots_allowed as f64
    }

    /// The end of what the map covers, inclusive; -1 at first.
    pub fn latest_offset(&self) -> Offset {
        self.latest_offset
    }

    /// The map covers everything up to `offset`, also where nothing was put.
    pub fn update_latest_offset(&mut self, offset: Offset) {
        self.latest_offset = offset;
    }

    /// Notes that `key` was last seen at `offset`. The map must not be full.
    pub fn put(&mut self, key: &[u8], offset: Offset) {
        assert!(!self.is_full(), "the caller asks first");
        self.latest_offset = offset;
        let (high, low) = self.hash_of(key);
        let mut entry = [high, low, offset as u64 + 1];
        let mut at = self.home(high);
        let mut distance = 0;
        loop {
            let slot = self.slots[at];
            if slot[OFFSET] == 0 {
                self.slots[at] = entry;
                self.entries += 1;
                return;
            }
            if slot[0] == entry[0] && slot[1] == entry[1] {
                self.slots[at][OFFSET] = entry[OFFSET];
                return;
            }
            let theirs = self.distance(slot[0], at);
            if theirs < distance {
                std::mem::swap(&mut self.slots[at], &mut entry);
                distance = theirs;
            }
            at = self.next(at);
            distance += 1;
        }
    }

    /// The last offset of `key`; -1 if the map does not know it.
    pub fn get(&self, key: &[u8]) -> Offset {
        let (high, low) = self.hash_of(key);
        let mut at = self.home(high);
        let mut distance = 0;
        loop {
            let slot = &self.slots[at];
            if slot[OFFSET] == 0 {
                return -1;
            }
            if slot[0] == high && slot[1] == low {
                return slot[OFFSET] as Offset - 1;
            }
            if distance > 0 && self.distance(slot[0], at) < distance {
                return -1;
            }
            at = self.next(at);
            distance += 1;
        }
    }

    fn hash_of(&self, key: &[u8]) -> (u64, u64) {
        let mut hash = self.hash;
        hash.write(key);
        hash.finish128().as_u64()
    }

    /// Where a hash wants to be.
    fn home(&self, high: u64) -> usize {
        ((u128::from(high) * self.slots.len() as u128) >> 64) as usize
    }

    /// How far from there it is.
    fn distance(&self, high: u64, at: usize) -> usize {
        let home = self.home(high);
        if at >= home {
            at - home
        } else {
            at + self.slots.len() - home
        }
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_key_has_its_last_offset_at_every_load() {
        for (keys, load_factor) in [(1, 0.9), (7, 1.0), (1000, 0.9), (5000, 0.5), (3000, 1.0)] {
            let mut map = OffsetMap::new(keys * SLOT_BYTES * 4, load_factor, keys, 42);
            let mut model = HashMap::new();
            for offset in 0..keys * 3 {
                let key = (offset * 13 % keys).to_string();
                if map.is_full() {
                    break;
                }
                map.put(key.as_bytes(), offset as i64);
                model.insert(key, offset as i64);
            }
            assert!(map.is_full(), "{keys} keys fit exactly");
            for key in 0..keys * 2 {
                let key = key.to_string();
                let wanted = model.get(&key).copied().unwrap_or(-1);
                assert_eq!(map.get(key.as_bytes()), wanted, "{key} of {keys}");
            }
        }
    }

    #[test]
    fn holds_as_many_entries_as_kafka_in_the_same_memory() {
        // 128 MiB, 24 bytes an entry, load factor 0.9.
        assert_eq!(OffsetMap::entries_max(128 << 20, 0.9), 5_033_164);
        assert_eq!(OffsetMap::entries_max(240, 1.0), 9);
        let map = OffsetMap::new(128 << 20, 0.9, 100, 1);
        assert!(
            map.slots.len() < 120,
            "memory for what can come, not for what may"
        );
    }

    #[test]
    fn the_empty_key_and_offset_zero_are_known() {
        let mut map = OffsetMap::new(1000, 0.9, 10, 7);
        assert_eq!((map.get(b""), map.latest_offset()), (-1, -1));
        map.put(b"", 0);
        assert_eq!((map.get(b""), map.latest_offset()), (0, 0));
        map.put(b"", 5);
        assert_eq!(map.get(b""), 5);
        map.update_latest_offset(9);
        assert_eq!(map.latest_offset(), 9);
    }

    #[test]
    fn other_seeds_hash_otherwise() {
        let hash = |seed| OffsetMap::new(240, 0.9, 10, seed).hash_of(b"key");
        assert_ne!(hash(1), hash(2));
        assert_ne!(hash(1), hash(1 << 64));
    }
}
