//! Why an image tree is not translated.
use super::frames::LayoutError;
use super::unwind::{MemoryError, UnwindError};
use super::wire::WireError;
use crate::image::ImageError;
use crate::image::schema::UnknownField;
use crate::portable;
use isamorph_arch::fpu::FpUnrepresentable;
use isamorph_arch::{Isa, RemoteAddr};
use std::io;
use std::path::{Path, PathBuf};

/// Why an image tree is not translated. Nothing has been written when one of these is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// An image cannot be read or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An image that has to be changed has a field that would be lost.
    #[error("{image}: {field}; update isamorph")]
    UnknownField {
        /// The image.
        image: String,
        /// The field.
        field: UnknownField,
    },
    /// The tree is for the wanted instruction set already.
    #[error("the images are {isa} already; restore them as they are")]
    SameIsa {
        /// What was wanted.
        isa: Isa,
    },
    /// Something that this version does not move.
    #[error("cannot be translated to {to}: {what}")]
    Unsupported {
        /// The target.
        to: Isa,
        /// What it is, with the reason and the remedy.
        what: String,
    },
    /// The pair cannot be found or is damaged.
    #[error("the executable {path}: {source}", path = path.display())]
    Pair {
        /// Path of the executable in the images.
        path: PathBuf,
        /// Why.
        source: portable::Error,
    },
    /// The executable that was found is not the one that the process runs.
    #[error("{path} is not the executable of the images: {why}; give the folder of the right pair with --pair",
        path = path.display())]
    OtherExecutable {
        /// The file that was found.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// The thread is not where it can change its instruction set.
    #[error(
        "thread {tid} is at {at}, not at an equivalence point; dump with isamorph (without --no-park), or run \
         `isamorph park` before another CRIU dumps"
    )]
    NotParked {
        /// The thread.
        tid: u32,
        /// Its program counter, as a name.
        at: String,
    },
    /// The stack cannot be followed.
    #[error("thread {tid}: {source}{near}")]
    Unwind {
        /// The thread.
        tid: u32,
        /// Why.
        source: UnwindError,
        /// The nearest symbol, or nothing.
        near: String,
    },
    /// The stack cannot be laid out.
    #[error("thread {tid}: {source}")]
    Layout {
        /// The thread.
        tid: u32,
        /// Why.
        source: LayoutError,
    },
    /// The target's frames do not fit the stack.
    #[error("thread {tid}: {to} needs {need} bytes of stack more than there are below {sp}: {why}")]
    StackSpace {
        /// The thread.
        tid: u32,
        /// The target.
        to: Isa,
        /// Missing bytes.
        need: u64,
        /// The source's stack pointer.
        sp: RemoteAddr,
        /// What is in the way.
        why: String,
    },
    /// Executable text in memory is not the file's.
    #[error(
        "memory at {at} ({name}) differs from {path}: patched code (a debugger's breakpoint, a poll of a dump that was \
         killed) cannot be translated; dump once more", path = path.display()
    )]
    Text {
        /// The first differing byte.
        at: RemoteAddr,
        /// The function.
        name: String,
        /// The executable.
        path: PathBuf,
    },
    /// The floating-point environment has no equivalent.
    #[error("thread {tid}: {source}")]
    Fp {
        /// The thread.
        tid: u32,
        /// What has none.
        source: FpUnrepresentable,
    },
    /// Memory that translation needs is not in the images.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A message that is carried as bytes is damaged.
    #[error("files.img, file {id}: {source}")]
    Wire {
        /// ID of the file.
        id: u32,
        /// What is wrong.
        source: WireError,
    },
    /// The output is there and not an older translation.
    #[error("{path} exists and is no translation; remove it or choose another with -o", path = path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The system refused an operation.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl TransformError {
    pub(super) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn unknown(image: &str) -> impl FnOnce(UnknownField) -> Self {
        let image = image.to_owned();
        move |field| Self::UnknownField { image, field }
    }
}
