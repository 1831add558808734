//! A flush that runs outside the partition's lock: which files to sync, and what is durable afterwards.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint::sync_dir;
use super::error::StorageError;
use super::{LogDir, disk};
use crate::types::Offset;

/// Files to sync, made by [`super::Log::begin_flush`].
#[derive(Debug)]
pub struct FlushJob {
    dir: Arc<LogDir>,
    active: Option<(Arc<File>, PathBuf)>,
    paths: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    up_to: Offset,
    truncations: u64,
    /// Whether the recovery point is worth a write to disk afterwards.
    pub(super) checkpoint: bool,
}

impl FlushJob {
    pub(super) fn new(dir: Arc<LogDir>, up_to: Offset, truncations: u64) -> Self {
        Self {
            dir,
            active: None,
            paths: Vec::new(),
            dirs: Vec::new(),
            up_to,
            truncations,
            checkpoint: false,
        }
    }

    pub(super) fn set_active(&mut self, file: Arc<File>, path: PathBuf) {
        self.active = Some((file, path));
    }

    pub(super) fn add_path(&mut self, path: PathBuf) {
        self.paths.push(path);
    }

    pub(super) fn add_dir(&mut self, path: PathBuf) {
        self.dirs.push(path);
    }

    pub(super) fn truncations(&self) -> u64 {
        self.truncations
    }

    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.dir
    }

    /// What is durable once [`FlushJob::run`] is through: every offset below this one.
    pub fn up_to(&self) -> Offset {
        self.up_to
    }

    /// Syncs. Blocking; run it without the partition's lock, then call [`super::Log::finish_flush`]. A failure takes the
    /// directory offline: what the kernel dropped cannot be synced again.
    pub fn run(&self) -> Result<(), StorageError> {
        self.dir.check_online()?;
        for path in &self.paths {
            match disk::sync_file(path) {
                // Deleted or truncated away meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| self.dir.fail(StorageError::io("sync", path, e)))?,
            }
        }
        if let Some((file, path)) = &self.active {
            disk::sync_data(file).map_err(|e| self.dir.fail(StorageError::io("sync", path, e)))?;
        }
        for path in &self.dirs {
            if path.exists() {
                sync_dir(path).map_err(|e| self.dir.fail(e))?;
            }
        }
        Ok(())
    }
}
