//! Every operation of the log layer that changes the disk goes through here: create, write, cut, rename, remove, sync.
//! Plain system calls in the product. Under `cfg(test)` each is told to the recorder of its directory, where there is one
//! (`tests/disk_recorder.rs`): it keeps what a power cut would leave behind and makes the n-th operation fail.
//!
//! What is durable when: bytes after [`sync_data`] of their file; a name (created, renamed, removed) after [`sync_dir`] of
//! the directory that holds it. Nothing else promises anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;

#[cfg(test)]
use super::tests::disk_recorder::{Op, path_of, through};

/// Slices that one system call takes (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// Outside tests an operation is what it is.
#[cfg(not(test))]
macro_rules! through {
    ($op:expr, $act:expr) => {
        $act
    };
}

#[cfg(test)]
macro_rules! through {
    ($op:expr, $act:expr) => {
        through($op, || $act)
    };
}

/// A new empty file for reading and writing, or an old one emptied.
pub fn create(path: &Path) -> io::Result<File> {
    through!(
        Op::Create(path.to_owned()),
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
    )
}

/// A file that is there, for reading and writing. Changes nothing by itself.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Writes all slices at `position`, with as few system calls as the kernel allows.
pub fn write_all_at(
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let batch = &slices[..slices.len().min(SLICES_MAX)];
        match write_at(file, batch, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn write_at(file: &File, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
    through!(
        Op::Write(
            path_of(file),
            position,
            slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect()
        ),
        Ok(rustix::io::pwritev(file, slices, position)?)
    )
}

/// Cuts a file off, or extends it with zeros.
pub fn set_len(file: &File, len: u64) -> io::Result<()> {
    through!(Op::SetLen(path_of(file), len), file.set_len(len))
}

/// Creates or empties a file and writes `content`. Not durable before a sync.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<File> {
    let file = create(path)?;
    write_all_at(&file, &mut [IoSlice::new(content)], 0)?;
    Ok(file)
}

/// Makes a file's bytes durable. Never call it again after it failed: the kernel has dropped what it could not write.
pub fn sync_data(file: &File) -> io::Result<()> {
    through!(Op::Sync(path_of(file)), file.sync_data())
}

/// [`sync_data`] of a file by its name.
pub fn sync_file(path: &Path) -> io::Result<()> {
    sync_data(&File::open(path)?)
}

/// Makes names durable: creations, renames and removals in `dir`.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    through!(Op::SyncDir(dir.to_owned()), File::open(dir)?.sync_all())
}

/// Makes everything on the file system of `dir` durable.
pub fn sync_file_system(dir: &Path) -> io::Result<()> {
    through!(
        Op::SyncAll(dir.to_owned()),
        Ok(rustix::fs::syncfs(File::open(dir)?)?)
    )
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    through!(
        Op::Rename(from.to_owned(), to.to_owned()),
        fs::rename(from, to)
    )
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    through!(Op::Remove(path.to_owned()), fs::remove_file(path))
}

pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    through!(Op::Remove(path.to_owned()), fs::remove_dir_all(path))
}

/// Fails where the directory is there already.
pub fn create_dir(path: &Path) -> io::Result<()> {
    through!(Op::CreateDir(path.to_owned()), fs::create_dir(path))
}
