//! All log directories of a node: which can be used at the start, and when the node cannot go on without those that failed.
//!
//! A directory that cannot be opened (unreadable, read-only, vanished, I/O errors) is left out, and its partitions are offline;
//! the node does without it as long as others are left and the metadata log's own is not the one (KIP-112).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::error;

use super::checkpoint::META_PROPERTIES;
use super::dir::LogDir;
use super::error::StorageError;
use crate::types::Uuid;

/// The directories of `log.dirs`, and that of the metadata log.
#[derive(Clone, Debug)]
pub struct LogDirs {
    /// Those of `log.dirs` that could be opened, in their order. Some may have failed since.
    dirs: Arc<[Arc<LogDir>]>,
    /// Absolute paths of those that could not be opened.
    failed: Arc<[PathBuf]>,
    /// May be one of `dirs`, or not.
    metadata: Arc<LogDir>,
}

impl LogDirs {
    /// Opens `log.dirs` and the directory of the metadata log. Fails if the latter cannot be opened, if none of `log.dirs` can,
    /// if one is named twice or used by another process.
    pub fn open(paths: &[PathBuf], metadata: &Path) -> Result<Self, StorageError> {
        let all = || paths.iter().map(PathBuf::as_path).chain([metadata]);
        let is_formatted = |path: &Path| path.join(META_PROPERTIES).exists();
        let node_is_new = !all().any(is_formatted);
        let open = |path: &Path| {
            if node_is_new || path.exists() {
                LogDir::open(path)
            } else {
                let reason = "does not exist, although other log directories of this node do";
                Err(StorageError::Io {
                    action: "open",
                    path: path.to_owned(),
                    source: Arc::new(std::io::Error::new(std::io::ErrorKind::NotFound, reason)),
                })
            }
        };
        let mut dirs: Vec<Arc<LogDir>> = Vec::with_capacity(paths.len());
        let mut failed = Vec::new();
        for path in paths {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if let Some(same) = dirs.iter().find(|dir| dir.path() == real) {
                return Err(StorageError::Unusable {
                    path: path.clone(),
                    reason: format!(
                        "the same directory as {} in log.dirs",
                        same.name().display()
                    ),
                });
            }
            match open(path) {
                Ok(dir) => dirs.push(dir),
                Err(cause @ StorageError::Io { .. }) => {
                    error!(dir = %path.display(), error = %cause, "log directory cannot be used, going on without it");
                    failed.push(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
                }
                Err(cause) => return Err(cause),
            }
        }
        let real = metadata.canonicalize().ok();
        let known = dirs.iter().find(|dir| Some(dir.path()) == real.as_deref());
        let metadata = match known {
            Some(dir) => Arc::clone(dir),
            None => open(metadata).map_err(|cause| StorageError::Unusable {
                path: metadata.to_owned(),
                reason: format!("the metadata log directory cannot be used: {cause}"),
            })?,
        };
        if dirs.is_empty() {
            return Err(StorageError::Unusable {
                path: paths.first().cloned().unwrap_or_default(),
                reason: "none of log.dirs can be used".into(),
            });
        }
        Ok(Self {
            dirs: dirs.into(),
            failed: failed.into(),
            metadata,
        })
    }

    /// Those that could be opened, in the order of `log.dirs`.
    pub fn dirs(&self) -> &[Arc<LogDir>] {
        &self.dirs
    }

    /// Those that have not failed.
    pub fn online(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        self.dirs.iter().filter(|dir| !dir.is_offline())
    }

    /// The directory of `__cluster_metadata-0`, which may be outside `log.dirs`.
    pub fn metadata(&self) -> &Arc<LogDir> {
        &self.metadata
    }

    /// Every directory that is open.
    pub fn all(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        let apart = |dir: &&Arc<LogDir>| !self.dirs.iter().any(|other| Arc::ptr_eq(dir, other));
        self.dirs.iter().chain(Some(&self.metadata).filter(apart))
    }

    /// Absolute paths of directories that cannot be used: since the start, or since they failed.
    pub fn offline(&self) -> Vec<PathBuf> {
        let failed = self.dirs.iter().filter(|dir| dir.is_offline());
        let failed = failed.map(|dir| dir.name().to_owned());
        self.failed.iter().cloned().chain(failed).collect()
    }

    /// The open directory of that absolute path, as the settings have it.
    pub fn named(&self, name: &Path) -> Option<&Arc<LogDir>> {
        self.dirs.iter().find(|dir| dir.name() == name)
    }

    pub fn with_id(&self, id: Uuid) -> Option<&Arc<LogDir>> {
        self.dirs.iter().find(|dir| dir.directory_id() == Some(id))
    }

    /// Why the process cannot go on: the metadata log or every other log is out of reach (Kafka halts then).
    pub fn fatal_failure(&self) -> Option<String> {
        if self.metadata.is_offline() {
            let dir = self.metadata.name().display();
            return Some(format!("the metadata log directory {dir} has failed"));
        }
        if self.online().next().is_none() {
            let names: Vec<_> = self
                .dirs
                .iter()
                .map(|dir| dir.name().display().to_string())
                .collect();
            return Some(format!(
                "all log directories have failed: {}",
                names.join(", ")
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::MetaProperties;
    use super::*;

    fn formatted(path: &Path) -> PathBuf {
        let meta = MetaProperties {
            cluster_id: "c".into(),
            node_id: 1,
            directory_id: Some(Uuid::new_v4()),
        };
        meta.write(path, "now").expect("a fresh directory");
        path.to_owned()
    }

    #[test]
    fn the_node_starts_without_a_directory_that_vanished() {
        let temp = tempfile::tempdir().expect("space");
        let (a, b) = (formatted(&temp.path().join("a")), temp.path().join("b"));
        let dirs = LogDirs::open(&[a.clone(), b.clone()], &a).expect("one is left");
        assert_eq!(dirs.dirs().len(), 1);
        assert_eq!(dirs.offline(), std::slice::from_ref(&b));
        assert!(!b.exists(), "nothing is created in its place");
        assert_eq!(dirs.fatal_failure(), None);
    }

    #[test]
    fn the_metadata_directory_and_the_last_one_are_needed() {
        let temp = tempfile::tempdir().expect("space");
        let (a, b) = (formatted(&temp.path().join("a")), temp.path().join("b"));
        let metadata_gone = LogDirs::open(std::slice::from_ref(&a), &b);
        assert!(metadata_gone.is_err_and(|e| e.to_string().contains("metadata log directory")));
        let none_left = LogDirs::open(&[b], &a);
        assert!(none_left.is_err_and(|e| e.to_string().contains("none of log.dirs")));
    }

    #[test]
    fn a_directory_named_twice_is_refused() {
        let temp = tempfile::tempdir().expect("space");
        let a = formatted(&temp.path().join("a"));
        let twice = LogDirs::open(&[a.clone(), temp.path().join("a/../a")], &a);
        assert!(twice.is_err_and(|e| e.to_string().contains("the same directory")));
    }

    #[test]
    fn failures_at_run_time_are_fatal_only_where_nothing_is_left() {
        let temp = tempfile::tempdir().expect("space");
        let path = |name: &str| formatted(&temp.path().join(name));
        let dirs = LogDirs::open(&[path("a"), path("b")], &path("m")).expect("all there");
        let fail = |dir: &Arc<LogDir>| {
            let cause =
                StorageError::io("write", dir.path(), std::io::ErrorKind::StorageFull.into());
            dir.fail(cause);
        };
        assert_eq!(dirs.all().count(), 3);
        fail(&dirs.dirs()[0]);
        assert_eq!((dirs.online().count(), dirs.fatal_failure()), (1, None));
        fail(&dirs.dirs()[1]);
        assert!(
            dirs.fatal_failure()
                .is_some_and(|why| why.contains("all log directories"))
        );
        fail(dirs.metadata());
        assert!(
            dirs.fatal_failure()
                .is_some_and(|why| why.contains("metadata log directory"))
        );
    }
}
