//! Image tree of one instruction set to image tree of another: unwind, frames, registers, kernel facts, emit.
//!
//! Offline, on any host, in both directions by the same code. What is read is one thread's stack, the images of the
//! process's objects and its pagemap; what is written are the few pages that change and those images. The cost
//! follows the depth of the stack and the number of pagemap runs, never the size of the memory.
pub mod auxv;
pub mod core;
pub mod emit;
mod error;
pub mod explain;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod frames;
pub mod jumps;
#[cfg(test)]
mod machine;
pub mod memory;
mod process;
pub mod space;
#[cfg(test)]
mod tests;
pub mod text;
pub mod unwind;
pub mod wire;

pub use error::TransformError;
pub use explain::{FrameReport, ThreadReport};

use crate::image::{ImageDir, ImageKind, PageReader, read_runs};
use emit::Staged;
use isamorph_arch::Isa;
use std::path::{Path, PathBuf};

/// What to translate, to what, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image tree.
    pub images: PathBuf,
    /// The target.
    pub arch: Isa,
    /// The translated tree; the target's name below `images` if not given.
    pub out: Option<PathBuf>,
    /// Where both executables are; beside the recorded path if not given.
    pub pair: Option<PathBuf>,
    /// Make a tree that needs no parent.
    pub flatten: bool,
    /// Do everything but write.
    pub check: bool,
    /// Report every frame.
    pub explain: bool,
}

impl Options {
    /// Translates `images` to `arch`, in the usual place.
    #[must_use]
    pub fn new(images: impl Into<PathBuf>, arch: Isa) -> Self {
        Self { images: images.into(), arch, out: None, pair: None, flatten: false, check: false, explain: false }
    }

    /// Where the translated tree is put.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| self.images.join(self.arch.name()))
    }
}

/// What a translation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The translated tree; `None` after a check.
    pub out: Option<PathBuf>,
    /// Every thread.
    pub threads: Vec<ThreadReport>,
    /// Pages in the translated tree itself.
    pub pages: u64,
    /// What the other node needs, by the paths it must have there.
    pub travel: Vec<PathBuf>,
}

/// Translates an image tree. On error nothing is left behind, and an older translation stays.
///
/// # Errors
/// Whatever cannot be moved, by name.
pub fn transform(options: &Options) -> Result<Report, TransformError> {
    let out = options.out();
    let source = ImageDir::open(&options.images)?;
    let real = |path: &Path| path.canonicalize().ok();
    if real(&out).is_some_and(|out| Some(out) == real(&options.images)) {
        return Err(TransformError::Exists { path: out });
    }
    let mut process = process::Process::open(&source, options)?;
    let pid = u64::from(process.pid);
    let store = PageReader::open(&source, pid)?;
    let (threads, changes) = process.translate(&store, options)?;
    let mut travel = vec![process.peer_path.clone()];
    if options.check {
        return Ok(Report { out: None, threads, pages: changes.changed.len() as u64, travel });
    }
    let staged = Staged::create(&out)?;
    let tree = &staged.tree;
    let pages = if options.flatten {
        let (pages_id, _) = read_runs(&source, ImageKind::Pagemap, pid)?;
        emit::record_source(tree, &source)?;
        emit::write_flat(&store, tree, pid, pages_id, &changes)?
    } else {
        emit::link_parent(tree, &source, &parent_link(&options.images, &out)?)?;
        emit::write_incremental(&source, tree, pid, &changes)?
    };
    for (kind, id) in source.images()? {
        if let (ImageKind::ShmemPagemap, Some(shmid)) = (kind, id) {
            emit::write_shared(&source, tree, shmid, options.flatten)?;
        }
    }
    let written = process.write(tree)?;
    emit::copy_images(&source, tree, &written)?;
    staged.publish()?;
    travel.insert(0, if options.flatten { out.clone() } else { options.images.clone() });
    if !options.flatten && !out.starts_with(&options.images) {
        travel.insert(1, out.clone());
    }
    Ok(Report { out: Some(out), threads, pages, travel })
}

/// How the translated tree names its parent: relative to itself in the usual place, else absolutely.
fn parent_link(images: &Path, out: &Path) -> Result<PathBuf, TransformError> {
    let real = |path: &Path| path.canonicalize().map_err(TransformError::io("finding", path));
    let images = real(images)?;
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => real(folder)?,
        _ => real(Path::new("."))?,
    };
    Ok(if folder == images { PathBuf::from("..") } else { images })
}
