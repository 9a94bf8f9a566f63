//! What can be wrong with an image, always with the file's path.
use std::io;
use std::path::{Path, PathBuf};

use super::schema::SchemaError;

/// An image that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ImageError {
    /// The file, below the directory as it was given by the user.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is not there.
    #[error("no such image")]
    Missing,
    /// The system refused an operation.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The head is not that of an image of this kind.
    #[error("magic {found:#010x} where a {kind} image has {expected:#010x}")]
    Magic {
        /// Kind of image that was expected.
        kind: &'static str,
        /// Its magic.
        expected: u32,
        /// What the file has.
        found: u32,
    },
    /// The head is that of no kind of image that isamorph knows.
    #[error("magic {found:#010x} is that of no kind of image that isamorph knows")]
    UnknownMagic {
        /// What the file has.
        found: u32,
    },
    /// An image that does not consist of entries.
    #[error("{kind} images hold plain bytes, not entries; the pagemaps say which pages are where")]
    NoEntries {
        /// Kind of image.
        kind: &'static str,
    },
    /// Entries that are followed by bytes whose number only a schema would tell.
    #[error("isamorph has no schema for {kind} images; use crit")]
    NoSchema {
        /// Kind of image.
        kind: &'static str,
    },
    /// The file ends in the middle of something.
    #[error("truncated: {need} bytes wanted at offset {offset}, {have} left")]
    Truncated {
        /// Where, in bytes.
        offset: u64,
        /// Bytes wanted.
        need: u64,
        /// Bytes left in the file.
        have: u64,
    },
    /// An image larger than any real one, so that lengths in it cannot be trusted.
    #[error("{len} bytes, more than the {max} that isamorph reads")]
    TooLong {
        /// Length found, in bytes.
        len: u64,
        /// Greatest accepted length, in bytes.
        max: u64,
    },
    /// An entry is not valid protobuf, or lacks a required field.
    #[error("entry {index}: {source}")]
    Entry {
        /// Position in the file, from 0.
        index: usize,
        /// What is wrong with it.
        source: SchemaError,
    },
    /// An image of exactly one entry has another number of them.
    #[error("{found} entries where there must be exactly one")]
    NotOne {
        /// Entries found.
        found: usize,
    },
    /// Runs of a pagemap overlap or are not in ascending order.
    #[error("pagemap run at {addr:#x} ({pages} pages) is out of order or overlaps")]
    RunOrder {
        /// First address.
        addr: u64,
        /// Length in pages.
        pages: u64,
    },
    /// A run has a length or address that no address space has.
    #[error("pagemap run at {addr:#x} of {pages} pages is not page aligned, empty, or leaves the address space")]
    RunBounds {
        /// First address.
        addr: u64,
        /// Length in pages.
        pages: u64,
    },
    /// A run of a kind that nobody knows.
    #[error("pagemap run at {addr:#x} has flags {flags:#x}, not all of which isamorph knows")]
    RunFlags {
        /// First address.
        addr: u64,
        /// Its flags.
        flags: u32,
    },
    /// A run whose pages only CRIU's lazy-pages daemon has.
    #[error("pages at {addr:#x} are lazy and not in the pages image")]
    LazyRun {
        /// First address.
        addr: u64,
    },
    /// A run refers to the parent tree, which does not have it.
    #[error("page {addr:#x} should be in the parent tree, which does not have it")]
    NotInParent {
        /// First missing address.
        addr: u64,
    },
    /// There is a run in the parent tree, but no parent tree.
    #[error(
        "pages at {addr:#x} should be in the parent tree, and it is not here; \
         bring it along to where the `parent` link leads, or translate with --flatten"
    )]
    NoParent {
        /// First address.
        addr: u64,
    },
    /// The `parent` link leads nowhere.
    #[error("the parent tree {} cannot be opened ({source}); bring it along, or translate with --flatten", target.display())]
    Parent {
        /// Where the link leads.
        target: PathBuf,
        /// Why it could not be opened.
        source: io::Error,
    },
    /// The parent tree is not the one that this tree was made from.
    #[error(
        "the parent tree was changed after this one was made from it; run `isamorph transform` again, \
         with --flatten if this tree is to need no parent"
    )]
    ParentChanged,
    /// Parent links lead in a circle, or are absurdly many.
    #[error("more than {max} parent trees in a row")]
    ParentDepth {
        /// Greatest accepted number.
        max: usize,
    },
    /// The tree has no copy of a page.
    #[error("no page at {addr:#x}")]
    NoPage {
        /// Address wanted.
        addr: u64,
    },
    /// A name that is no plain file name of an image.
    #[error("not a file name of this kind of image")]
    Name,
}

impl ImageError {
    pub(super) fn new(path: impl AsRef<Path>, problem: Problem) -> Self {
        Self { path: path.as_ref().to_owned(), problem }
    }

    pub(super) fn io(path: impl AsRef<Path>, e: io::Error) -> Self {
        let problem = if e.kind() == io::ErrorKind::NotFound { Problem::Missing } else { Problem::Io(e) };
        Self::new(path, problem)
    }
}
