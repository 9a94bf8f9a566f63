//! Why a process could not be restored.
use std::io;
use std::path::PathBuf;

use isamorph_arch::Isa;

use crate::image::ImageError;

/// A failure to restore. Nothing of the process is left when one is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image is missing, damaged or contradicts itself.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Images that fit neither each other nor any real process.
    #[error("{}: {what}", tree.display())]
    Inconsistent {
        /// The tree.
        tree: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// State that cannot be restored (yet), or not with these options or rights.
    #[error("process {pid}: {what}: {remedy}")]
    Unsupported {
        /// Process in the images.
        pid: u32,
        /// The state, by name.
        what: String,
        /// Why, and what to do about it.
        remedy: String,
    },
    /// The images are of the other instruction set.
    #[error(
        "these images are of {images} and this machine is {host}; translate them first: \
         isamorph transform -D {tree} --arch {host}, then isamorph restore -D {tree}/{host}", tree = tree.display()
    )]
    ForeignIsa {
        /// The tree.
        tree: PathBuf,
        /// Whose images these are.
        images: Isa,
        /// What this machine is.
        host: Isa,
    },
    /// Somebody has the process ID.
    #[error("pid {pid} is in use{by}; end that process, or restore in a pid namespace of its own")]
    PidInUse {
        /// The process ID.
        pid: u32,
        /// By whom: `" by NAME"`, or nothing.
        by: String,
    },
    /// A file that the process had open or mapped is not what it was.
    #[error("{}: {what}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is the matter, and what to do about it.
        what: String,
    },
    /// A system call of this program failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call of the process in the making failed; the process has been ended.
    #[error("pid {pid}: {step}: {answer}")]
    Step {
        /// The process.
        pid: u32,
        /// What was being done.
        step: String,
        /// The kernel's answer.
        answer: String,
    },
    /// The process in the making died.
    #[error("process {pid} died while it was being restored ({how})")]
    Died {
        /// The process.
        pid: u32,
        /// `signal N` or `exit status N`.
        how: String,
    },
    /// The process could not be steered.
    #[error(transparent)]
    Tracee(#[from] crate::tracee::Error),
}

impl Error {
    /// The last failure of a system call of this program.
    pub(super) fn last(what: impl Into<String>) -> Self {
        Self::System { what: what.into(), source: io::Error::last_os_error() }
    }

    pub(super) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;
