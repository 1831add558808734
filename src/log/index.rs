//! The offset and time indexes of a segment: in memory for the active segment, looked up in the file for closed ones.
//!
//! ```text
//! .index entry      0 offset - base offset u32 | 4 position u32
//! .timeindex entry  0 timestamp i64 | 8 offset - base offset u32
//! ```
//! An index is a hint: a search over batches follows. What a damaged file says is found out when it is first read
//! (`sanity.rs`); what slips through there leads a search astray, and it starts over.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::types::{NO_TIMESTAMP, Offset, TimestampMs};

pub const OFFSET_ENTRY: usize = 8;
pub const TIME_ENTRY: usize = 12;

/// Largest timestamp so far, and the last offset of the batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub timestamp: TimestampMs,
    pub offset: Offset,
}

/// Both indexes of the active segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    base_offset: Offset,
    /// Relative offset, position.
    offsets: Vec<(u32, u32)>,
    /// Timestamp, relative offset.
    times: Vec<(TimestampMs, u32)>,
}

impl Indexes {
    pub fn new(base_offset: Offset) -> Self {
        Self {
            base_offset,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    /// Reads what a clean stop left. [`io::ErrorKind::InvalidData`] where an entry cannot be true: not growing, beyond `size`.
    pub fn load(
        index: &Path,
        time_index: &Path,
        base_offset: Offset,
        size: u64,
    ) -> io::Result<Self> {
        let mut this = Self::new(base_offset);
        for entry in read_or_empty(index)?.chunks_exact(OFFSET_ENTRY) {
            let (offset, position) = parse_offset_entry(entry);
            let grows = this
                .offsets
                .last()
                .is_none_or(|l| offset > l.0 && position > l.1);
            if !grows || u64::from(position) >= size || offset > i32::MAX as u32 {
                return Err(impossible_entry(index, this.offsets.len()));
            }
            this.offsets.push((offset, position));
        }
        for entry in read_or_empty(time_index)?.chunks_exact(TIME_ENTRY) {
            let (timestamp, offset) = parse_time_entry(entry);
            let grows = this
                .times
                .last()
                .is_none_or(|l| timestamp > l.0 && offset >= l.1);
            if !grows || offset > i32::MAX as u32 {
                return Err(impossible_entry(time_index, this.times.len()));
            }
            this.times.push((timestamp, offset));
        }
        Ok(this)
    }

    pub fn offset_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY);
        for (offset, position) in &self.offsets {
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(&position.to_be_bytes());
        }
        out
    }

    pub fn time_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.times.len() * TIME_ENTRY);
        for (timestamp, offset) in &self.times {
            out.extend_from_slice(&timestamp.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
        out
    }

    /// Whether another entry might not fit into `segment.index.bytes`.
    pub fn is_full(&self, index_bytes_max: usize) -> bool {
        self.offsets.len() >= index_bytes_max / OFFSET_ENTRY
            || self.times.len() + 1 >= index_bytes_max / TIME_ENTRY
    }

    pub fn append_offset(&mut self, offset: Offset, position: u64) {
        let entry = ((offset - self.base_offset) as u32, position as u32);
        debug_assert!(self.offsets.last().is_none_or(|last| entry.0 > last.0));
        self.offsets.push(entry);
    }

    /// The first entry's offset whose batch lies at or behind `position`.
    pub fn offset_at_position(&self, position: u64) -> Option<Offset> {
        let at = self
            .offsets
            .partition_point(|entry| u64::from(entry.1) < position);
        let (relative, _) = self.offsets.get(at)?;
        Some(self.base_offset + i64::from(*relative))
    }

    /// Adds an entry if the timestamp is above the last one.
    pub fn maybe_append_time(&mut self, entry: TimestampOffset) {
        let last = self.last_time();
        if entry.timestamp > last.timestamp && entry.offset >= last.offset {
            let relative = (entry.offset - self.base_offset) as u32;
            self.times.push((entry.timestamp, relative));
        }
    }

    pub fn last_time(&self) -> TimestampOffset {
        self.time_entry(self.times.last())
    }

    fn time_entry(&self, entry: Option<&(TimestampMs, u32)>) -> TimestampOffset {
        entry.map_or(
            TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: self.base_offset,
            },
            |(timestamp, relative)| TimestampOffset {
                timestamp: *timestamp,
                offset: self.base_offset + i64::from(*relative),
            },
        )
    }

    /// Position of a batch at or before the one with `offset`.
    pub fn position_of(&self, offset: Offset) -> u64 {
        let relative = offset.saturating_sub(self.base_offset);
        let at = self
            .offsets
            .partition_point(|(o, _)| i64::from(*o) <= relative);
        at.checked_sub(1)
            .map_or(0, |at| u64::from(self.offsets[at].1))
    }

    /// The last entry whose timestamp is not above `timestamp`.
    pub fn lookup_time(&self, timestamp: TimestampMs) -> TimestampOffset {
        let at = self.times.partition_point(|(t, _)| *t <= timestamp);
        self.time_entry(at.checked_sub(1).map(|at| &self.times[at]))
    }

    /// Drops entries at or behind `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        #[cfg(test)]
        if super::tests::disk_recorder::forgets_index_truncation() {
            return;
        }
        let relative = offset.saturating_sub(self.base_offset);
        self.offsets.retain(|(o, _)| i64::from(*o) < relative);
        self.times.retain(|(_, o)| i64::from(*o) < relative);
    }
}

fn impossible_entry(path: &Path, at: usize) -> io::Error {
    let text = format!("{} has an impossible entry {at}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

pub fn parse_offset_entry(entry: &[u8]) -> (u32, u32) {
    let word =
        |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    (word(0), word(4))
}

pub fn parse_time_entry(entry: &[u8]) -> (TimestampMs, u32) {
    let (timestamp, offset) = entry.split_at(8);
    (
        i64::from_be_bytes(timestamp.try_into().expect("eight bytes")),
        u32::from_be_bytes(offset.try_into().expect("four bytes")),
    )
}

/// The last entry for which `below` holds, by binary search in a file; `None` where there is none.
fn search_file<const N: usize>(
    path: &Path,
    below: impl FnMut(&[u8; N]) -> bool,
) -> io::Result<Option<[u8; N]>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = file.metadata()?.len();
    search(len, |at, entry| file.read_exact_at(entry, at), below)
}

/// The same over `len` bytes that `read` gets at.
fn search<const N: usize>(
    len: u64,
    mut read: impl FnMut(u64, &mut [u8; N]) -> io::Result<()>,
    mut below: impl FnMut(&[u8; N]) -> bool,
) -> io::Result<Option<[u8; N]>> {
    let (mut low, mut high) = (0, len / N as u64);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut entry = [0; N];
        read(middle * N as u64, &mut entry)?;
        if below(&entry) {
            found = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

/// Index files up to this size are read into memory: 8192 entries, 32 MiB of log at the least.
const MEMORY_MAX: u64 = 64 << 10;

/// [`Indexes::position_of`] on a closed segment's file that stays open, or in memory where it is small.
#[derive(Debug)]
pub struct OffsetIndexReader {
    base_offset: Offset,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Memory(Box<[u8]>),
    File { file: File, len: u64 },
}

impl OffsetIndexReader {
    /// A missing file is an empty index.
    pub fn open(path: &Path, base_offset: Offset) -> io::Result<Self> {
        let entries = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Entries::Memory(Box::default()),
            Err(e) => return Err(e),
            Ok(file) => match file.metadata()?.len() {
                len if len > MEMORY_MAX => Entries::File { file, len },
                len => {
                    let mut bytes = vec![0; len as usize].into_boxed_slice();
                    file.read_exact_at(&mut bytes, 0)?;
                    Entries::Memory(bytes)
                }
            },
        };
        Ok(Self {
            base_offset,
            entries,
        })
    }

    pub fn position_of(&self, offset: Offset) -> io::Result<u64> {
        let relative = offset.saturating_sub(self.base_offset);
        let len = match &self.entries {
            Entries::Memory(bytes) => bytes.len() as u64,
            Entries::File { len, .. } => *len,
        };
        let found = search::<OFFSET_ENTRY>(
            len,
            |at, entry| match &self.entries {
                Entries::Memory(bytes) => {
                    entry.copy_from_slice(&bytes[at as usize..at as usize + OFFSET_ENTRY]);
                    Ok(())
                }
                Entries::File { file, .. } => file.read_exact_at(entry, at),
            },
            |entry| i64::from(parse_offset_entry(entry).0) <= relative,
        )?;
        Ok(found.map_or(0, |entry| u64::from(parse_offset_entry(&entry).1)))
    }
}

/// [`Indexes::position_of`] on a closed segment's file.
pub fn position_in_file(path: &Path, base_offset: Offset, offset: Offset) -> io::Result<u64> {
    let relative = offset.saturating_sub(base_offset);
    let entry = search_file::<OFFSET_ENTRY>(path, |entry| {
        i64::from(parse_offset_entry(entry).0) <= relative
    })?;
    Ok(entry.map_or(0, |entry| u64::from(parse_offset_entry(&entry).1)))
}

/// [`Indexes::offset_at_position`] on a closed segment's file.
pub fn offset_at_position(
    path: &Path,
    base_offset: Offset,
    position: u64,
) -> io::Result<Option<Offset>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (mut low, mut high) = (0, file.metadata()?.len() / OFFSET_ENTRY as u64);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut entry = [0; OFFSET_ENTRY];
        file.read_exact_at(&mut entry, middle * OFFSET_ENTRY as u64)?;
        let (relative, at) = parse_offset_entry(&entry);
        if u64::from(at) < position {
            low = middle + 1;
        } else {
            found = Some(base_offset.saturating_add(i64::from(relative)));
            high = middle;
        }
    }
    Ok(found)
}

/// [`Indexes::lookup_time`] on a closed segment's file; `i64::MAX` finds the last entry.
pub fn lookup_time_in_file(
    path: &Path,
    base_offset: Offset,
    timestamp: TimestampMs,
) -> io::Result<TimestampOffset> {
    let entry = search_file::<TIME_ENTRY>(path, |entry| parse_time_entry(entry).0 <= timestamp)?;
    Ok(entry.map_or(
        TimestampOffset {
            timestamp: NO_TIMESTAMP,
            offset: base_offset,
        },
        |entry| {
            let (timestamp, relative) = parse_time_entry(&entry);
            TimestampOffset {
                timestamp,
                offset: base_offset.saturating_add(i64::from(relative)),
            }
        },
    ))
}
