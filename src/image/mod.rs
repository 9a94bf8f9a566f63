//! Image trees in CRIU's format: framing, typed entries, page stores, JSON views.
//!
//! A tree is a directory ([`ImageDir`]); a file in it is of a kind ([`ImageKind`]) and holds
//!
//! ```text
//!  u32 common magic   (not in the inventory)
//!  u32 magic of the kind
//!  { u32 size, protobuf message of that size, payload } ...   (payload: pipes-data.img only)
//! ```
//!
//! All numbers are little endian. Messages are the structs of [`proto`], named as CRIU names them;
//! [`ImageDir::read`] and [`ImageDir::write`] pick the file by the message's type:
//!
//! ```
//! use isamorph::image::{ImageDir, proto};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tmp = tempfile::tempdir()?;
//! let tree = ImageDir::open(tmp.path())?;
//! tree.write_one(42, proto::FsEntry { cwd_id: 1, root_id: 2, umask: Some(0o22) })?; // fs-42.img
//! let mut fs = tree.read::<proto::FsEntry>(42)?;
//! fs[0].edit()?.umask = Some(0o77);   // without `edit`, the entry is written as the bytes it was read from
//! tree.write(42, &fs)?;
//! # Ok(())
//! # }
//! ```
//!
//! What prost leaves out is done here: required fields are checked on reading, an entry with
//! unknown fields is carried as it is, but cannot be edited ([`Entry::edit`]).
//!
//! Memory is in `pagemap-PID.img` (runs of pages) and the raw `pages-N.img` (their bytes, one after
//! the other); a run may refer to the tree that the `parent` link leads to. [`PageReader`] reads
//! through all of that, [`PageWriter`] writes it. [`digest`] recognises a changed parent.
//!
//! Source: CRIU's image format (<https://criu.org/Images>) and the schemas in `proto/`.

mod dir;
mod entry;
mod error;
pub mod explore;
pub mod json;
mod kind;
#[cfg(test)]
mod mutations;
mod pages;
mod registers;
pub mod schema;
mod tree_digest;
pub mod vma;

pub use dir::{ImageDir, PARENT_LINK};
pub use entry::{Entry, ImageEntry};
pub use error::{ImageError, Problem};
pub use kind::{Head, ImageKind};
pub use pages::{PAGE_SIZE, PageReader, PageWriter, Place, Run, Segment, read_runs};
pub use tree_digest::{PARENT_DIGEST, TreeDigest, check_parent, digest, record_parent};

/// The messages that images consist of, generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in proto/ where it matters")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/isamorph.criu.rs"));
}

impl proto::CoreEntry {
    /// The instruction set of the thread, `None` if it is none that isamorph knows.
    #[must_use]
    pub fn isa(&self) -> Option<isamorph_arch::Isa> {
        match self.mtype() {
            proto::core_entry::March::X8664 => Some(isamorph_arch::Isa::X86_64),
            proto::core_entry::March::Aarch64 => Some(isamorph_arch::Isa::Aarch64),
            _ => None,
        }
    }
}
