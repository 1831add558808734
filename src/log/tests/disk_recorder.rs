//! A disk that forgets (tests only): records what `disk.rs` does below one directory, builds the tree that a power cut after
//! any operation would leave, and makes chosen operations fail.
//!
//! The model is the strict reading of POSIX: bytes survive that were synced with their file, names survive that were synced
//! with their directory, and of everything else any part. A name of a file that was never synced may survive with its bytes
//! lost. [`Survival`] picks the part.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::io::Errno;

/// One change of the disk. Paths as the caller gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Sync(PathBuf),
    SyncDir(PathBuf),
    SyncAll(PathBuf),
    Rename(PathBuf, PathBuf),
    /// A file, or a directory with all it holds.
    Remove(PathBuf),
    CreateDir(PathBuf),
}

impl Op {
    fn path(&self) -> &Path {
        match self {
            Self::Create(path)
            | Self::Write(path, ..)
            | Self::SetLen(path, _)
            | Self::Sync(path)
            | Self::SyncDir(path)
            | Self::SyncAll(path)
            | Self::Rename(path, _)
            | Self::Remove(path)
            | Self::CreateDir(path) => path,
        }
    }
}

/// What of the bytes and names that no sync has covered is there after the power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    Everything,
    /// A prefix of the names' changes in each directory, and any of the 512-byte sectors in each file, chosen by the seed;
    /// lost ones are zeros where the file's new size survived.
    Some(u64),
}

/// A bug that the code under test does not have: operations that the durable image does not hear of.
pub type Deaf = fn(&Op) -> bool;

thread_local! {
    static FORGETS_INDEX_TRUNCATION: Cell<bool> = const { Cell::new(false) };
}

/// Plants a bug in this thread: a truncation leaves the indexes as they are.
pub fn forget_index_truncation(forget: bool) {
    FORGETS_INDEX_TRUNCATION.set(forget);
}

pub fn forgets_index_truncation() -> bool {
    FORGETS_INDEX_TRUNCATION.get()
}

const SECTOR: usize = 512;

type Shared = Arc<Mutex<State>>;

/// Recorders by the directory that they watch.
static RECORDERS: RwLock<Vec<(PathBuf, Shared)>> = RwLock::new(Vec::new());

/// Records what happens below a directory until it is dropped.
pub struct Recorder {
    root: PathBuf,
    state: Shared,
}

#[derive(Default)]
struct State {
    base: Tree,
    ops: Vec<Op>,
    deaf: Option<Deaf>,
    /// Operations from now on until one fails, and how.
    fail_in: Option<(usize, Errno)>,
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Starts with what is below `root` as durable.
    pub fn watch(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        let state = Arc::new(Mutex::new(State {
            base: Tree::read(&root),
            ..State::default()
        }));
        RECORDERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push((root.clone(), state.clone()));
        Self { root, state }
    }

    pub fn plant(&self, deaf: Deaf) {
        lock(&self.state).deaf = Some(deaf);
    }

    /// Makes the operation fail before which `after` others succeed, once.
    pub fn fail_in(&self, after: usize, errno: Errno) {
        lock(&self.state).fail_in = Some((after, errno));
    }

    /// No operation fails any more.
    pub fn heal(&self) {
        lock(&self.state).fail_in = None;
    }

    /// Operations so far: the next crash point.
    pub fn ops_count(&self) -> usize {
        lock(&self.state).ops.len()
    }

    pub fn ops(&self) -> Vec<Op> {
        lock(&self.state).ops.clone()
    }

    /// Writes into the empty directory `target` what is left of the tree after a power cut behind the first `ops` operations.
    pub fn crash(&self, ops: usize, survival: Survival, target: &Path) {
        let state = lock(&self.state);
        let mut tree = state.base.clone();
        for op in &state.ops[..ops] {
            if !state.deaf.is_some_and(|deaf| deaf(op)) {
                tree.apply(op, &self.root);
            }
        }
        tree.write(survival, target);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        RECORDERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(root, _)| *root != self.root);
    }
}

/// The file's name now.
pub fn path_of(file: &File) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// Runs an operation, unless it is chosen to fail, and records it if it succeeded.
pub fn through<T>(op: Op, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let recorder = RECORDERS
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .find(|(root, _)| op.path().starts_with(root))
        .map(|(_, state)| state.clone());
    let Some(recorder) = recorder else {
        return act();
    };
    let mut state = lock(&recorder);
    match &mut state.fail_in {
        Some((0, errno)) => {
            let errno = *errno;
            state.fail_in = None;
            return Err(errno.into());
        }
        Some((left, _)) => *left -= 1,
        None => {}
    }
    let done = act()?;
    state.ops.push(op);
    Ok(done)
}

/// A file: what is durable, and what happened since.
#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    live: Vec<u8>,
}

type Entries = BTreeMap<String, usize>;

/// A file or a directory.
#[derive(Clone)]
enum Node {
    File(Content),
    Dir {
        durable: Entries,
        /// All states of the entries since then, the live one last.
        since: Vec<Entries>,
    },
}

/// All files and directories that ever were, by number; number 0 is the root.
#[derive(Clone)]
struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![empty_dir()],
        }
    }
}

fn empty_dir() -> Node {
    Node::Dir {
        durable: Entries::new(),
        since: Vec::new(),
    }
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_dir(root, 0);
        tree
    }

    fn read_dir(&mut self, path: &Path, number: usize) {
        let mut entries = Entries::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let child = self.nodes.len();
            if entry.file_type().unwrap().is_dir() {
                self.nodes.push(empty_dir());
                self.read_dir(&entry.path(), child);
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                self.nodes.push(Node::File(Content {
                    durable: bytes.clone(),
                    live: bytes,
                }));
            }
            entries.insert(entry.file_name().into_string().unwrap(), child);
        }
        self.nodes[number] = Node::Dir {
            durable: entries,
            since: Vec::new(),
        };
    }

    fn entries(&self, number: usize) -> &Entries {
        match &self.nodes[number] {
            Node::Dir { durable, since } => since.last().unwrap_or(durable),
            Node::File(_) => unreachable!("a file has no entries"),
        }
    }

    fn find(&self, path: &Path, root: &Path) -> Option<usize> {
        let below = path.strip_prefix(root).ok()?;
        below
            .iter()
            .try_fold(0, |at, name| self.entries(at).get(name.to_str()?).copied())
    }

    fn change_entries(
        &mut self,
        path: &Path,
        root: &Path,
        change: impl FnOnce(&mut Entries, &str),
    ) {
        let parent = path.parent().expect("below the root");
        let Some(number) = self.find(parent, root) else {
            return;
        };
        let mut entries = self.entries(number).clone();
        change(&mut entries, path.file_name().unwrap().to_str().unwrap());
        if let Node::Dir { since, .. } = &mut self.nodes[number] {
            since.push(entries);
        }
    }

    fn file(&mut self, path: &Path, root: &Path) -> Option<&mut Content> {
        let number = self.find(path, root)?;
        match &mut self.nodes[number] {
            Node::File(content) => Some(content),
            Node::Dir { .. } => None,
        }
    }

    fn apply(&mut self, op: &Op, root: &Path) {
        match op {
            Op::Create(path) => {
                if let Some(content) = self.file(path, root) {
                    content.live.clear();
                    return;
                }
                self.add(path, root, Node::File(Content::default()));
            }
            Op::CreateDir(path) => self.add(path, root, empty_dir()),
            Op::Write(path, at, bytes) => {
                if let Some(content) = self.file(path, root) {
                    let end = *at as usize + bytes.len();
                    content.live.resize(content.live.len().max(end), 0);
                    content.live[*at as usize..end].copy_from_slice(bytes);
                }
            }
            Op::SetLen(path, len) => {
                if let Some(content) = self.file(path, root) {
                    content.live.resize(*len as usize, 0);
                }
            }
            Op::Sync(path) => {
                if let Some(content) = self.file(path, root) {
                    content.durable.clone_from(&content.live);
                }
            }
            Op::SyncDir(path) => {
                if let Some(number) = self.find(path, root) {
                    self.nodes[number].sync();
                }
            }
            Op::SyncAll(_) => self.nodes.iter_mut().for_each(Node::sync),
            Op::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "a rename within one directory");
                let Some(number) = self.find(from, root) else {
                    return;
                };
                let to = to.file_name().unwrap().to_str().unwrap().to_owned();
                self.change_entries(from, root, |entries, name| {
                    entries.remove(name);
                    entries.insert(to, number);
                });
            }
            Op::Remove(path) => self.change_entries(path, root, |entries, name| {
                entries.remove(name);
            }),
        }
    }

    fn add(&mut self, path: &Path, root: &Path, node: Node) {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.change_entries(path, root, |entries, name| {
            entries.insert(name.to_owned(), number);
        });
    }

    fn write(&self, survival: Survival, target: &Path) {
        let mut seed = match survival {
            Survival::Some(seed) => seed,
            Survival::Nothing | Survival::Everything => 0,
        };
        self.write_dir(0, survival, target, &mut seed);
    }

    fn write_dir(&self, number: usize, survival: Survival, target: &Path, seed: &mut u64) {
        let Node::Dir { durable, since } = &self.nodes[number] else {
            unreachable!("called for directories");
        };
        let entries = match survival {
            Survival::Nothing => durable,
            Survival::Everything => since.last().unwrap_or(durable),
            Survival::Some(_) => {
                let kept = (random(seed) % (since.len() as u64 + 1)) as usize;
                kept.checked_sub(1).map_or(durable, |last| &since[last])
            }
        };
        for (name, child) in entries {
            let path = target.join(name);
            match &self.nodes[*child] {
                Node::File(content) => {
                    fs::write(path, content.survivor(survival, seed)).unwrap();
                }
                Node::Dir { .. } => {
                    fs::create_dir(&path).unwrap();
                    self.write_dir(*child, survival, &path, seed);
                }
            }
        }
    }
}

impl Node {
    fn sync(&mut self) {
        match self {
            Self::File(content) => content.durable.clone_from(&content.live),
            Self::Dir { durable, since } => {
                if let Some(live) = since.pop() {
                    *durable = live;
                    since.clear();
                }
            }
        }
    }
}

impl Content {
    fn survivor(&self, survival: Survival, seed: &mut u64) -> Vec<u8> {
        match survival {
            Survival::Nothing => self.durable.clone(),
            Survival::Everything => self.live.clone(),
            Survival::Some(_) if self.live == self.durable => self.live.clone(),
            Survival::Some(_) => {
                // The new size may be lost, be there, or be there in part.
                let (low, high) = (
                    self.durable.len().min(self.live.len()),
                    self.durable.len().max(self.live.len()),
                );
                let len = match random(seed) % 3 {
                    0 => self.durable.len(),
                    1 => self.live.len(),
                    _ => low + (random(seed) % (high - low + 1) as u64) as usize,
                };
                let mut bytes = vec![0; len];
                for (at, sector) in bytes.chunks_mut(SECTOR).enumerate() {
                    let from = if random(seed).is_multiple_of(2) {
                        &self.live
                    } else {
                        &self.durable
                    };
                    for (byte, source) in sector.iter_mut().zip(from.iter().skip(at * SECTOR)) {
                        *byte = *source;
                    }
                }
                bytes
            }
        }
    }
}

/// `SplitMix64`: the same seed gives the same crash.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
