//! Rebuilds a coordinator's state from its partition.

use std::collections::VecDeque;

use tracing::warn;

use super::PartitionWriter;
use super::shard::{HardState, RecordOrigin};
use crate::protocol::batch::{BatchHeader, Batches, Records};
use crate::protocol::error::{Error, ErrorCode};
use crate::types::{Offset, TopicPartition};

/// What one compressed batch may inflate to.
const INFLATED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Control record types in the key of a control batch.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// A partition's state up to its end.
pub struct Loaded<H: HardState> {
    pub state: H,
    pub uncommitted: VecDeque<(Offset, H::Undo)>,
    pub committed: Offset,
    pub next_offset: Offset,
    pub records: u64,
}

/// Reads the whole partition, whole batches of about `read_bytes` at a time. What lies at or above `high_watermark` stays revertible.
pub fn load<H: HardState>(
    writer: &dyn PartitionWriter,
    tp: &TopicPartition,
    high_watermark: Offset,
    read_bytes: usize,
) -> Result<Loaded<H>, Error> {
    let (log_start_offset, mut end) = writer.offsets(tp)?;
    let mut loaded = Loaded {
        state: H::default(),
        uncommitted: VecDeque::new(),
        committed: high_watermark,
        next_offset: log_start_offset,
        records: 0,
    };
    while loaded.next_offset < end {
        let bytes = writer.read(tp, loaded.next_offset, read_bytes)?;
        if bytes.is_empty() {
            // Compaction may have emptied the tail.
            break;
        }
        for batch in Batches::new(bytes) {
            let (header, bytes) = batch.map_err(|error| corrupt(tp, loaded.next_offset, &error))?;
            loaded.replay_batch(tp, &header, &bytes)?;
        }
        end = writer.offsets(tp)?.1;
    }
    loaded.next_offset = loaded.next_offset.max(end);
    Ok(loaded)
}

impl<H: HardState> Loaded<H> {
    fn replay_batch(
        &mut self,
        tp: &TopicPartition,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<(), Error> {
        let mut undo = Vec::new();
        let records = Records::new(header, batch, INFLATED_BYTES_MAX)
            .map_err(|error| corrupt(tp, header.base_offset, &error))?;
        for record in records {
            let record = record.map_err(|error| corrupt(tp, header.base_offset, &error))?;
            // A read starts at the batch that holds the offset, which may begin below it.
            if record.offset < self.next_offset {
                continue;
            }
            let origin = RecordOrigin {
                offset: record.offset,
                producer_id: header.producer_id,
            };
            let key = record.key.unwrap_or_default();
            if header.is_control() {
                match control_type(&key) {
                    Some(kind @ (ABORT | COMMIT)) => {
                        self.state
                            .end_transaction(header.producer_id, kind == COMMIT, &mut undo);
                    }
                    _ => continue,
                }
            } else if let Some(record) = H::decode(key, record.value)? {
                self.state.replay(origin, record, &mut undo);
            } else {
                warn!(%tp, offset = origin.offset, "skipped a record of an unknown type");
            }
            self.records += 1;
            if origin.offset >= self.committed {
                self.uncommitted
                    .extend(undo.drain(..).map(|undo| (origin.offset, undo)));
            }
            undo.clear();
        }
        self.next_offset = header.next_offset();
        Ok(())
    }
}

/// The key is a version and a type, both 16 bit.
fn control_type(key: &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes([*key.get(2)?, *key.get(3)?]))
}

fn corrupt(tp: &TopicPartition, offset: Offset, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::CorruptMessage,
        format!("{tp} cannot be loaded at offset {offset}: {error}"),
    )
}
