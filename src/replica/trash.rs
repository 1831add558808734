//! Files and directories that were renamed away and are removed once `file.delete.delay.ms` is over, so that readers who still
//! have them open by name come to an end first.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::{error, info};

use crate::log;

/// What waits to be removed. Times are those of the monotonic clock. As long as what was deleted within the delay.
#[derive(Default)]
pub struct Trash {
    /// When each may go.
    entries: Mutex<Vec<(i64, PathBuf)>>,
    added: Notify,
}

impl Trash {
    fn lock(&self) -> MutexGuard<'_, Vec<(i64, PathBuf)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes files or directories that may go at `due_ms`.
    pub fn add(&self, due_ms: i64, paths: impl IntoIterator<Item = PathBuf>) {
        let mut entries = self.lock();
        let before = entries.len();
        entries.extend(paths.into_iter().map(|path| (due_ms, path)));
        if entries.len() > before {
            self.added.notify_one();
        }
    }

    /// When the next one may go.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.lock().iter().map(|(due_ms, _)| *due_ms).min()
    }

    /// Resolves when something was added since the last call.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    /// Removes what is due. Blocking.
    pub fn empty(&self, now_ms: i64) {
        let due: Vec<_> = self
            .lock()
            .extract_if(.., |(due_ms, _)| *due_ms <= now_ms)
            .collect();
        for (_, path) in due {
            match log::delete(&path) {
                Ok(()) => info!(path = %path.display(), "deleted"),
                Err(error) => {
                    error!(path = %path.display(), %error, "deleted file or directory cannot be removed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_due_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(path(name), b"x").unwrap();
        }
        std::fs::create_dir(path("c")).unwrap();
        std::fs::write(path("c").join("in it"), b"x").unwrap();
        let trash = Trash::default();
        assert_eq!(trash.next_due_ms(), None);
        trash.add(20, [path("b")]);
        trash.add(10, [path("a"), path("c"), path("gone already")]);
        assert_eq!(trash.next_due_ms(), Some(10));
        trash.empty(9);
        assert!(path("a").exists());
        trash.empty(10);
        assert!(!path("a").exists() && !path("c").exists() && path("b").exists());
        assert_eq!(trash.next_due_ms(), Some(20));
    }
}
