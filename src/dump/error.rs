//! What can go wrong with a dump; every refusal names the thing, the reason and the remedy.
use std::io;

use crate::image::ImageError;
use crate::portable;
use crate::tracee;

/// Why a dump did not happen. The process goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process has something that images cannot carry.
    #[error("process {pid} has {what}: {reason}; {remedy}")]
    Unsupported {
        /// Which process.
        pid: i32,
        /// What it has, by name.
        what: String,
        /// Why that cannot be dumped.
        reason: &'static str,
        /// What to do about it.
        remedy: String,
    },
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number.
        pid: i32,
    },
    /// The process did not come to an equivalence point.
    #[error("process {pid} did not reach an equivalence point within {timeout:?}: thread {tid} {place}; {remedy}")]
    NotParked {
        /// Which process.
        pid: i32,
        /// Which of its threads.
        tid: i32,
        /// How long it was awaited.
        timeout: std::time::Duration,
        /// Where that thread is.
        place: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The process is not held by `isamorph park`.
    #[error("process {pid} is not parked: {reason}")]
    NotHeld {
        /// Which process.
        pid: i32,
        /// How that shows.
        reason: String,
    },
    /// The images' directory already has some.
    #[error("{dir} already holds images; remove them or choose another directory")]
    NotEmpty {
        /// The directory.
        dir: String,
    },
    /// The worker that traced the process died.
    #[error("the tracing worker of process {pid} died ({how}); what it had changed was undone")]
    WorkerDied {
        /// Which process.
        pid: i32,
        /// How.
        how: String,
    },
    /// The worker's own words.
    #[error("{0}")]
    Worker(String),
    /// The translation that was asked for failed.
    #[error("translating the images: {0}")]
    Translate(String),
    /// A live process could not be observed or steered.
    #[error(transparent)]
    Tracee(#[from] tracee::Error),
    /// An image could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The executable declares itself portable but is damaged.
    #[error("the executable of process {pid}: {source}; dump it as an ordinary process with --no-park")]
    Portable {
        /// Which process.
        pid: i32,
        /// What is wrong with it.
        source: portable::Error,
    },
    /// A system call of our own failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's last answer to a call described by `what`.
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::System { what: what.into(), source: io::Error::last_os_error() }
    }

    /// A failed call of nix's.
    pub fn nix(what: impl Into<String>, errno: nix::Error) -> Self {
        Self::System { what: what.into(), source: errno.into() }
    }
}
