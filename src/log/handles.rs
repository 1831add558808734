//! The files of active segments: opened when somebody needs them, closed when nobody did for a while, and never more open at
//! once than a bound. Beyond it a file is opened for each use, until others have been idle long enough.
//!
//! Who closes a file gives up one thing: an error that the kernel meets later, writing back what no sync covered, reaches a
//! sync of the file opened anew only while the inode is in memory. So bytes that are not durable keep their file open while
//! there is room.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::disk;

/// Files that are kept open, over all logs.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Half of what the process may open: the rest is for connections, closed segments and whatever else there is.
static KEPT_MAX: OnceLock<usize> = OnceLock::new();

fn kept_max() -> usize {
    #[cfg(test)]
    if let max @ 1.. = super::tests::handles::KEPT_MAX.load(Ordering::Relaxed) {
        return max;
    }
    *KEPT_MAX.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile).current;
        limit.map_or(usize::MAX, |limit| limit as usize / 2)
    })
}

/// One file, open or not. Belongs to a log, under whose lock it is used; the mutex is for readers that share the log.
#[derive(Debug, Default)]
pub struct Handle(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    file: Arc<File>,
    used: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handle {
    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, for reading and writing.
    pub fn open(&self, path: impl FnOnce() -> PathBuf) -> io::Result<Arc<File>> {
        let mut kept = self.lock();
        if let Some(kept) = kept.as_mut() {
            kept.used = true;
            return Ok(kept.file.clone());
        }
        let file = Arc::new(disk::open(&path())?);
        if KEPT.fetch_add(1, Ordering::Relaxed) < kept_max() {
            *kept = Some(Kept {
                file: file.clone(),
                used: true,
            });
        } else {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(file)
    }

    /// The file, where it is open.
    pub fn get(&self) -> Option<Arc<File>> {
        self.lock().as_ref().map(|kept| kept.file.clone())
    }

    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Closes the file if nobody used it since the last call; with bytes that are not `durable` only where room is scarce.
    /// Tells whether it stays open.
    pub fn release_idle(&self, durable: bool) -> bool {
        let mut kept = self.lock();
        let idle = kept
            .as_mut()
            .is_some_and(|kept| !std::mem::take(&mut kept.used));
        if idle && (durable || KEPT.load(Ordering::Relaxed) > kept_max() / 2) {
            *kept = None;
        }
        kept.is_some()
    }
}
