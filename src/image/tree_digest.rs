//! A digest of an image tree that is cheap for any amount of memory.
use std::fmt;
use std::os::unix::fs::FileExt as _;

use super::dir::{ImageDir, PARENT_LINK};
use super::error::{ImageError, Problem};
use super::kind::{Head, ImageKind};
use super::pages::PAGE_SIZE;

/// Pages of each pages image that enter a digest.
const SAMPLES: u64 = 256;
/// Parent links that are followed.
const MAX_DEPTH: usize = 1000;

/// BLAKE3 of what identifies a tree, see [`digest`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TreeDigest(pub [u8; 32]);

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The digest of a tree and of all its parents.
///
/// It covers the names and the whole contents of all images but those of pages and statistics, and
/// of each pages image its length and 256 evenly spread pages: another dump into the same directory
/// changes registers, times or counters, a truncation changes a length. A single page changed in
/// place can go unnoticed; that is damage, not another version. Times and inode numbers do not
/// enter, because they change when a tree is copied to another node. Folders and files that are no
/// images (logs, the translated tree) do not enter either.
///
/// # Errors
/// A file cannot be read.
pub fn digest(tree: &ImageDir) -> Result<TreeDigest, ImageError> {
    let mut hash = blake3::Hasher::new();
    let mut parent = None;
    for _ in 0..MAX_DEPTH {
        let tree = parent.as_ref().unwrap_or(tree);
        one(tree, &mut hash)?;
        match tree.open_parent()? {
            Some(next) => parent = Some(next),
            None => return Ok(TreeDigest(*hash.finalize().as_bytes())),
        }
    }
    Err(ImageError::new(tree.path(), Problem::ParentDepth { max: MAX_DEPTH }))
}

/// Name of the file that says which parent a translated tree was made from.
pub const PARENT_DIGEST: &str = "parent.blake3";

/// Records in `tree` that it was made from `parent` as it is now.
///
/// # Errors
/// The parent cannot be read, or the file not be written.
pub fn record_parent(tree: &ImageDir, parent: &ImageDir) -> Result<(), ImageError> {
    let path = tree.path().join(PARENT_DIGEST);
    let line = format!("{}\n", digest(parent)?);
    std::fs::write(&path, line).map_err(|e| ImageError::io(path, e))
}

/// Checks that the parent is still the one that [`record_parent`] saw; a tree without a record passes.
///
/// # Errors
/// [`Problem::ParentChanged`]; the parent is missing or cannot be read.
pub fn check_parent(tree: &ImageDir) -> Result<(), ImageError> {
    let path = tree.path().join(PARENT_DIGEST);
    let recorded = match std::fs::read_to_string(&path) {
        Ok(line) => line,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(ImageError::io(path, e)),
    };
    let Some(parent) = tree.open_parent()? else {
        return Err(ImageError::new(tree.path().join(PARENT_LINK), Problem::Missing));
    };
    if recorded.trim_end() != digest(&parent)?.to_string() {
        return Err(ImageError::new(parent.path(), Problem::ParentChanged));
    }
    Ok(())
}

fn one(tree: &ImageDir, hash: &mut blake3::Hasher) -> Result<(), ImageError> {
    for name in tree.list()? {
        let Some((kind, id)) = ImageKind::from_file_name(&name) else { continue };
        match kind.head() {
            Head::Service => continue,
            Head::Common | Head::Own => {
                let (_, bytes) = tree.read_bytes(kind, id)?;
                frame(hash, &name, bytes.len() as u64);
                hash.update(&bytes);
            }
            Head::Raw => {
                let path = tree.path().join(&name);
                let file = tree.open_file(kind, id)?;
                let len = file.metadata().map_err(|e| ImageError::io(&path, e))?.len();
                frame(hash, &name, len);
                let pages = len / PAGE_SIZE;
                let mut page = [0; PAGE_SIZE as usize];
                for sample in 0..SAMPLES.min(pages) {
                    let at = if pages <= SAMPLES { sample } else { sample * (pages - 1) / (SAMPLES - 1) };
                    file.read_exact_at(&mut page, at * PAGE_SIZE).map_err(|e| ImageError::io(&path, e))?;
                    hash.update(&page);
                }
            }
        }
    }
    // A tree and its parent must not be exchangeable.
    hash.update(b"tree");
    Ok(())
}

fn frame(hash: &mut blake3::Hasher, name: &str, len: u64) {
    hash.update(&(name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update(&len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::proto;

    #[test]
    fn it_sees_changes_of_the_tree_and_of_its_parent_and_nothing_else() {
        let t = tempfile::tempdir().unwrap();
        let parent = ImageDir::create(t.path().join("p")).unwrap();
        let child = ImageDir::create(t.path().join("p/aarch64")).unwrap();
        child.link_parent("..").unwrap();
        parent.write_one(1, proto::FsEntry { cwd_id: 1, root_id: 2, umask: None }).unwrap();
        let mut pages = vec![0u8; 1000 * PAGE_SIZE as usize];
        let pages_path = t.path().join("p/pages-1.img");
        std::fs::write(&pages_path, &pages).unwrap();
        let (p, c) = (digest(&parent).unwrap(), digest(&child).unwrap());
        assert_ne!(p, c);

        std::fs::write(t.path().join("p/dump.log"), "x").unwrap();
        assert_eq!((digest(&parent).unwrap(), digest(&child).unwrap()), (p, c));

        *pages.last_mut().unwrap() = 1;
        std::fs::write(&pages_path, &pages).unwrap();
        assert!(digest(&parent).unwrap() != p && digest(&child).unwrap() != c);
        std::fs::write(&pages_path, &pages[..pages.len() / 2]).unwrap();
        assert_ne!(digest(&parent).unwrap(), p);
        *pages.last_mut().unwrap() = 0;
        std::fs::write(&pages_path, &pages).unwrap();
        assert_eq!(digest(&child).unwrap(), c);

        parent.write_one(1, proto::FsEntry { cwd_id: 1, root_id: 3, umask: None }).unwrap();
        assert!(digest(&parent).unwrap() != p && digest(&child).unwrap() != c);
    }

    #[test]
    fn a_recorded_parent_is_checked() {
        let t = tempfile::tempdir().unwrap();
        let parent = ImageDir::open(t.path()).unwrap();
        let child = ImageDir::create(t.path().join("aarch64")).unwrap();
        check_parent(&child).unwrap();
        child.link_parent("..").unwrap();
        parent.write_one(1, proto::FsEntry { cwd_id: 1, root_id: 2, umask: None }).unwrap();
        record_parent(&child, &parent).unwrap();
        check_parent(&child).unwrap();
        parent.write_one(1, proto::FsEntry { cwd_id: 3, root_id: 2, umask: None }).unwrap();
        assert!(matches!(check_parent(&child).unwrap_err().problem, Problem::ParentChanged));
        std::fs::remove_file(t.path().join("aarch64/parent")).unwrap();
        assert!(check_parent(&child).is_err());
    }
}
