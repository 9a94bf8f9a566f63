//! Writing the translated tree: a few pages of its own, the rest by its parent link; or all of it.
//!
//! Everything is written below a temporary name beside the output and renamed when it is complete.
use super::error::TransformError;
use crate::image::{
    ImageDir, ImageKind, PAGE_SIZE, PARENT_DIGEST, PARENT_LINK, PageReader, PageWriter, digest, read_runs,
    record_parent,
};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Name of the file that says what a tree without a parent was made from.
pub const SOURCE_DIGEST: &str = "source.blake3";

/// Bytes read at once when pages are copied.
const CHUNK: u64 = 1 << 20;

/// What becomes of the pages of the process.
#[derive(Debug, Default)]
pub struct PageChanges {
    /// New contents, by address.
    pub changed: BTreeMap<u64, Vec<u8>>,
    /// Addresses whose pages are left out, ascending.
    pub dropped: Vec<Range<u64>>,
}

/// A translated tree that is being written; removed again unless it is [published](Staged::publish).
#[derive(Debug)]
pub struct Staged {
    /// The tree.
    pub tree: ImageDir,
    path: PathBuf,
    out: PathBuf,
    published: bool,
}

impl Staged {
    /// Begins a tree that will be at `out`.
    ///
    /// # Errors
    /// There is something at `out` that is no image tree, or the folder cannot be made.
    pub fn create(out: &Path) -> Result<Self, TransformError> {
        let exists = fs::symlink_metadata(out).is_ok();
        if exists && !is_replaceable(out) {
            return Err(TransformError::Exists { path: out.to_owned() });
        }
        let path = beside(out, "new")?;
        // What an earlier run with this process ID was killed over.
        remove(&path);
        fs::create_dir(&path).map_err(TransformError::io("making", &path))?;
        let tree = ImageDir::open(&path)?;
        Ok(Self { tree, path, out: out.to_owned(), published: false })
    }

    /// Gives the complete tree its name, in the place of an older one.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn publish(mut self) -> Result<(), TransformError> {
        let old = beside(&self.out, "old")?;
        remove(&old);
        let replaced = fs::rename(&self.out, &old).is_ok();
        if let Err(error) = fs::rename(&self.path, &self.out) {
            if replaced {
                // Put back what was there; the first error is the one to report.
                let _ = fs::rename(&old, &self.out);
            }
            return Err(TransformError::io("renaming", &self.path)(error));
        }
        self.published = true;
        remove(&old);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            remove(&self.path);
        }
    }
}

/// Removes a folder of ours, if it is there; nothing can be done if that fails, and nothing depends on it.
fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// Whether a folder is empty, or a translation and nothing else: no dump, no work of somebody's is replaced.
fn is_replaceable(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else { return false };
    let mut empty = true;
    for entry in entries {
        empty = false;
        if entry.and_then(|entry| entry.file_type()).is_ok_and(|kind| kind.is_dir()) {
            return false;
        }
    }
    empty || [PARENT_DIGEST, SOURCE_DIGEST].iter().any(|name| out.join(name).is_file())
}

fn beside(out: &Path, what: &str) -> Result<PathBuf, TransformError> {
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the name of a folder");
    let name = out.file_name().ok_or_else(invalid).map_err(TransformError::io("writing", out))?;
    let name = format!(".{}.{what}-{}", name.to_string_lossy(), std::process::id());
    Ok(out.with_file_name(name))
}

/// Links the tree to its parent and records the parent's digest.
///
/// # Errors
/// The parent cannot be read, the tree not be written.
pub fn link_parent(tree: &ImageDir, source: &ImageDir, target: &Path) -> Result<(), TransformError> {
    tree.link_parent(target)?;
    record_parent(tree, source)?;
    Ok(())
}

/// Records what a tree that needs no parent was made from.
///
/// # Errors
/// The source cannot be read, the file not be written.
pub fn record_source(tree: &ImageDir, source: &ImageDir) -> Result<(), TransformError> {
    let path = tree.path().join(SOURCE_DIGEST);
    let line = format!("{}\n", digest(source)?);
    fs::write(&path, line).map_err(TransformError::io("writing", &path))
}

/// Writes the pages of the process: changed ones here, the others in the parent.
///
/// # Errors
/// The source's pagemap cannot be read, the tree not be written.
pub fn write_incremental(
    source: &ImageDir,
    tree: &ImageDir,
    pid: u64,
    changes: &PageChanges,
) -> Result<u64, TransformError> {
    let (pages_id, runs) = read_runs(source, ImageKind::Pagemap, pid)?;
    let mut writer = PageWriter::create(tree, pid, pages_id)?;
    let ranges = runs.iter().map(|run| run.addr..run.end());
    merge(ranges, changes, |piece| match piece {
        Piece::Changed(addr, page) => writer.present(addr, page),
        Piece::Kept(range) => writer.in_parent(range.start, (range.end - range.start) / PAGE_SIZE),
    })?;
    Ok(writer.finish()?)
}

/// Writes the pages of the process, all of them.
///
/// # Errors
/// The source's pages cannot be read, the tree not be written.
pub fn write_flat(
    store: &PageReader,
    tree: &ImageDir,
    pid: u64,
    pages_id: u32,
    changes: &PageChanges,
) -> Result<u64, TransformError> {
    let mut writer = PageWriter::create(tree, pid, pages_id)?;
    let ranges = store.segments().iter().map(|segment| segment.addr..segment.end());
    merge(ranges, changes, |piece| match piece {
        Piece::Changed(addr, page) => writer.present(addr, page),
        Piece::Kept(range) => copy(store, &mut writer, range),
    })?;
    Ok(writer.finish()?)
}

fn copy(store: &PageReader, writer: &mut PageWriter<'_>, range: Range<u64>) -> Result<(), crate::image::ImageError> {
    let mut addr = range.start;
    let mut buffer = vec![0; CHUNK.min(range.end - range.start) as usize];
    while addr < range.end {
        let len = CHUNK.min(range.end - addr);
        let part = &mut buffer[..len as usize];
        store.read(addr, part)?;
        writer.present(addr, part)?;
        addr += len;
    }
    Ok(())
}

enum Piece<'a> {
    Changed(u64, &'a [u8]),
    Kept(Range<u64>),
}

/// Walks the old runs, cuts out what is dropped, and puts changed pages in their places.
fn merge<E>(
    runs: impl Iterator<Item = Range<u64>>,
    changes: &PageChanges,
    mut emit: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut changed = changes.changed.iter().peekable();
    let mut dropped = changes.dropped.iter().peekable();
    for run in runs {
        let mut addr = run.start;
        while addr < run.end {
            while dropped.next_if(|gap| gap.end <= addr).is_some() {}
            let gap = dropped.peek().map_or(u64::MAX..u64::MAX, |gap| (*gap).clone());
            if gap.contains(&addr) {
                addr = gap.end.min(run.end);
                continue;
            }
            let end = run.end.min(gap.start);
            // Pages that the source did not have.
            while let Some((at, page)) = changed.next_if(|(at, _)| **at < addr) {
                emit(Piece::Changed(*at, page))?;
            }
            let next = changed.peek().map_or(u64::MAX, |(at, _)| **at);
            if next == addr {
                if let Some((at, page)) = changed.next() {
                    emit(Piece::Changed(*at, page))?;
                }
                addr += PAGE_SIZE;
            } else {
                let end = end.min(next);
                emit(Piece::Kept(addr..end))?;
                addr = end;
            }
        }
    }
    for (at, page) in changed {
        emit(Piece::Changed(*at, page))?;
    }
    Ok(())
}

/// Writes the pagemaps of shared memory, whose pages no translation changes.
///
/// # Errors
/// They cannot be read or written.
pub fn write_shared(source: &ImageDir, tree: &ImageDir, shmid: u64, flat: bool) -> Result<(), TransformError> {
    let (pages_id, runs) = read_runs(source, ImageKind::ShmemPagemap, shmid)?;
    let mut writer = PageWriter::create_shmem(tree, shmid, pages_id)?;
    if flat {
        let store = PageReader::open_shmem(source, shmid)?;
        for segment in store.segments() {
            copy(&store, &mut writer, segment.addr..segment.end())?;
        }
    } else {
        for run in runs {
            writer.in_parent(run.addr, run.pages)?;
        }
    }
    writer.finish()?;
    Ok(())
}

/// Copies the images that translation does not touch, as the bytes they are.
///
/// # Errors
/// One cannot be copied.
pub fn copy_images(source: &ImageDir, tree: &ImageDir, written: &[PathBuf]) -> Result<(), TransformError> {
    for name in source.list()? {
        let to = tree.path().join(&name);
        let skipped = match ImageKind::from_file_name(&name) {
            Some((kind, _)) => matches!(
                kind,
                ImageKind::Pages | ImageKind::Pagemap | ImageKind::ShmemPagemap
                    // Features of the machine that dumped, and its statistics.
                    | ImageKind::Cpuinfo | ImageKind::StatsDump | ImageKind::StatsRestore
            ),
            None => !name.ends_with(".img"),
        };
        if skipped || name == PARENT_LINK || written.contains(&to) {
            continue;
        }
        let from = source.path().join(&name);
        fs::copy(&from, &to).map_err(TransformError::io("copying", &from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_SIZE;

    fn pieces(runs: &[(u64, u64)], changed: &[u64], dropped: &[(u64, u64)]) -> Vec<(bool, Range<u64>)> {
        let scale = |(start, end): &(u64, u64)| start * P..end * P;
        let changes = PageChanges {
            changed: changed.iter().map(|page| (page * P, vec![1; P as usize])).collect(),
            dropped: dropped.iter().map(scale).collect(),
        };
        let mut pieces = Vec::new();
        merge(runs.iter().map(scale), &changes, |piece| {
            pieces.push(match piece {
                Piece::Changed(at, _) => (true, at / P..at / P + 1),
                Piece::Kept(range) => (false, range.start / P..range.end / P),
            });
            Ok::<(), ()>(())
        })
        .unwrap();
        pieces
    }

    #[test]
    fn changed_pages_replace_old_ones_and_new_ones_are_put_in_order() {
        assert_eq!(pieces(&[(0, 4)], &[1, 2], &[]), [(false, 0..1), (true, 1..2), (true, 2..3), (false, 3..4)]);
        let expected = [(true, 0..1), (false, 2..4), (true, 5..6), (false, 8..9), (true, 20..21)];
        assert_eq!(pieces(&[(2, 4), (8, 9)], &[0, 5, 20], &[]), expected);
    }

    #[test]
    fn dropped_ranges_cut_runs() {
        assert_eq!(pieces(&[(0, 10)], &[], &[(2, 3), (5, 12)]), [(false, 0..2), (false, 3..5)]);
        assert_eq!(pieces(&[(0, 2), (4, 6)], &[4], &[(0, 4)]), [(true, 4..5), (false, 5..6)]);
    }

    #[test]
    fn what_is_not_published_is_removed() {
        let t = tempfile::tempdir().unwrap();
        let out = t.path().join("aarch64");
        drop(Staged::create(&out).unwrap());
        assert_eq!(fs::read_dir(t.path()).unwrap().count(), 0);
        let staged = Staged::create(&out).unwrap();
        fs::write(staged.tree.path().join(PARENT_DIGEST), "1").unwrap();
        staged.publish().unwrap();
        let again = Staged::create(&out).unwrap();
        fs::write(again.tree.path().join(PARENT_DIGEST), "2").unwrap();
        again.publish().unwrap();
        assert_eq!(fs::read(out.join(PARENT_DIGEST)).unwrap(), b"2");
        assert_eq!(fs::read_dir(t.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_no_tree_is_left_alone() {
        let t = tempfile::tempdir().unwrap();
        let out = t.path().join("aarch64");
        fs::create_dir(&out).unwrap();
        for name in ["thesis.tex", "inventory.img"] {
            fs::write(out.join(name), "x").unwrap();
            assert!(matches!(Staged::create(&out), Err(TransformError::Exists { .. })));
        }
        assert!(out.join("thesis.tex").is_file());
    }
}
