//! The walk over batches on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::protocol::batch::{BatchHeader, HEADER_SIZE, parse_header};

/// A batch found on disk.
#[derive(Clone, Copy, Debug)]
pub struct BatchAt {
    pub position: u64,
    pub header: BatchHeader,
}

impl BatchAt {
    pub fn end(&self) -> u64 {
        self.position + self.header.size_bytes() as u64
    }
}

/// Walks the batches of a file between two positions, reading ahead `chunk` bytes at a time. Ends at the first bytes that
/// are no whole batch; `position` tells where.
pub struct BatchScanner<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    chunk: usize,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> BatchScanner<'a> {
    pub fn new(file: &'a File, position: u64, end: u64, chunk: usize) -> Self {
        Self {
            file,
            position,
            end,
            chunk,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// `len` bytes at `at`, which the caller has checked to lie before the end.
    fn bytes_at(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if at < self.buffer_at || at + len as u64 > buffered {
            let wanted = (len.max(self.chunk) as u64).min(self.end - at) as usize;
            self.buffer.resize(wanted, 0);
            self.buffer_at = at;
            self.file.read_exact_at(&mut self.buffer, at)?;
        }
        let from = (at - self.buffer_at) as usize;
        Ok(&self.buffer[from..from + len])
    }

    /// The next batch's header.
    pub fn next_header(&mut self) -> io::Result<Option<BatchAt>> {
        let position = self.position;
        if position + HEADER_SIZE as u64 > self.end {
            return Ok(None);
        }
        let Ok(header) = parse_header(self.bytes_at(position, HEADER_SIZE)?) else {
            return Ok(None);
        };
        let found = BatchAt { position, header };
        if found.end() > self.end {
            return Ok(None);
        }
        self.position = found.end();
        Ok(Some(found))
    }

    /// The whole bytes of a batch that [`BatchScanner::next_header`] found.
    pub fn batch_bytes(&mut self, batch: &BatchAt) -> io::Result<&[u8]> {
        self.bytes_at(batch.position, batch.header.size_bytes())
    }
}
