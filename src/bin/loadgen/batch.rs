//! Record batches (magic 2) made once and sent many times, and a walk over those that come back.

use bytes::{Buf, BufMut};

const HEADER: usize = 61;

pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

fn put_signed(buf: &mut Vec<u8>, n: i64) {
    let mut z = ((n << 1) ^ (n >> 63)) as u64;
    while z >= 0x80 {
        buf.put_u8(z as u8 | 0x80);
        z >>= 7;
    }
    buf.put_u8(z as u8);
}

/// Key and value.
pub type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A batch of these values, without keys.
pub fn of_values(values: &[&[u8]], now_ms: i64, producer: Option<&Producer>) -> Vec<u8> {
    let records: Vec<_> = values.iter().map(|v| (None, Some(*v))).collect();
    of_records(&records, now_ms, producer)
}

/// A batch of these keys and values.
pub fn of_records(records: &[KeyValue], now_ms: i64, producer: Option<&Producer>) -> Vec<u8> {
    let mut buf = Vec::new();
    buf.put_i64(0);
    buf.put_i32(0); // length, below
    buf.put_i32(-1);
    buf.put_u8(2);
    buf.put_u32(0); // crc, below
    buf.put_i16(0);
    buf.put_i32(records.len() as i32 - 1);
    buf.put_i64(now_ms);
    buf.put_i64(now_ms);
    buf.put_i64(producer.map_or(-1, |p| p.id));
    buf.put_i16(producer.map_or(-1, |p| p.epoch));
    buf.put_i32(producer.map_or(-1, |p| p.sequence));
    buf.put_i32(records.len() as i32);
    let mut record = Vec::new();
    for (i, (key, value)) in records.iter().enumerate() {
        record.clear();
        record.put_u8(0);
        put_signed(&mut record, 0);
        put_signed(&mut record, i as i64);
        put_bytes(&mut record, *key);
        put_bytes(&mut record, *value);
        put_signed(&mut record, 0);
        put_signed(&mut buf, record.len() as i64);
        buf.put_slice(&record);
    }
    seal(&mut buf);
    buf
}

fn put_bytes(buf: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_signed(buf, bytes.map_or(-1, |b| b.len() as i64));
    buf.put_slice(bytes.unwrap_or_default());
}

/// Sets length and checksum.
pub fn seal(batch: &mut [u8]) {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// As many records of `record_bytes` value bytes as fit into `batch_bytes`, at least one.
pub fn filled(batch_bytes: usize, record_bytes: usize, now_ms: i64) -> (Vec<u8>, usize) {
    let value: Vec<u8> = (0..record_bytes).map(|i| b'a' + (i % 23) as u8).collect();
    let per_record = of_values(&[&value], now_ms, None).len() - HEADER;
    let mut count = (batch_bytes.saturating_sub(HEADER) / (per_record + 1)).max(1);
    loop {
        let batch = of_values(&vec![value.as_slice(); count], now_ms, None);
        if batch.len() <= batch_bytes || count == 1 {
            return (batch, count);
        }
        count -= count.div_ceil(200).min(count - 1);
    }
}

pub struct BatchView<'a> {
    pub base_offset: i64,
    pub next_offset: i64,
    pub producer_id: i64,
    pub bytes: &'a [u8],
}

/// The whole batches of a fetched piece; a part of one at the end is left out.
pub fn walk(mut bytes: &[u8]) -> impl Iterator<Item = BatchView<'_>> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        let base_offset = (&bytes[0..8]).get_i64();
        let length = (&bytes[8..12]).get_u32() as usize + 12;
        if bytes.len() < length || length < HEADER {
            return None;
        }
        let (batch, rest) = bytes.split_at(length);
        bytes = rest;
        Some(BatchView {
            base_offset,
            next_offset: base_offset + i64::from((&batch[23..27]).get_i32()) + 1,
            producer_id: (&batch[43..51]).get_i64(),
            bytes: batch,
        })
    })
}

fn take_signed(buf: &mut &[u8]) -> Option<i64> {
    let mut z = 0u64;
    for shift in (0..70).step_by(7) {
        if buf.is_empty() {
            return None;
        }
        let b = buf.get_u8();
        z |= u64::from(b & 0x7f).checked_shl(shift)?;
        if b & 0x80 == 0 {
            return Some((z >> 1) as i64 ^ -((z & 1) as i64));
        }
    }
    None
}

/// What `put_bytes` put: outer None is not enough of it.
#[allow(
    clippy::option_option,
    reason = "a value may be null, and bytes may be missing"
)]
fn take_bytes<'a>(buf: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let Ok(size) = usize::try_from(take_signed(buf)?) else {
        return Some(None);
    };
    let (bytes, rest) = buf.split_at_checked(size)?;
    *buf = rest;
    Some(Some(bytes))
}

pub struct RecordView<'a> {
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Records of an uncompressed batch of ours; None if it is not one or if its checksum is wrong.
pub fn records<'a>(batch: &BatchView<'a>) -> Option<Vec<RecordView<'a>>> {
    let crc = (&batch.bytes[17..21]).get_u32();
    if crc32c::crc32c(&batch.bytes[21..]) != crc || batch.bytes[22] & 7 != 0 {
        return None;
    }
    let count = (&batch.bytes[57..61]).get_i32();
    let mut out = Vec::new();
    let mut rest = &batch.bytes[HEADER..];
    for _ in 0..count {
        let mut record = take_bytes(&mut rest)??;
        record = record.get(1..)?;
        take_signed(&mut record)?;
        out.push(RecordView {
            offset: batch.base_offset + take_signed(&mut record)?,
            key: take_bytes(&mut record)?,
            value: take_bytes(&mut record)?,
        });
    }
    rest.is_empty().then_some(out)
}
