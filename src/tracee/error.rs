//! What can go wrong with a live process.
use std::io;
use std::path::PathBuf;

use isamorph_arch::RemoteAddr;

/// A failure to observe or to steer a process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process is gone.
    #[error("process {pid} died ({how})")]
    Died {
        /// Whose death.
        pid: i32,
        /// `exit status N`, `signal N`, or what was being done to it.
        how: String,
    },
    /// Waiting for the thread is in vain: it has another ID, or somebody else has collected its death.
    #[error("process {pid} died (no longer traced)")]
    Gone {
        /// Whose death.
        pid: i32,
    },
    /// A ptrace request was refused.
    #[error("ptrace {request} of process {pid}: {source}")]
    Ptrace {
        /// Name of the request.
        request: &'static str,
        /// Of whom.
        pid: i32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call of our own failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file under `/proc` could not be read.
    #[error("reading {}: {source}", path.display())]
    Proc {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file under `/proc` is not what this program knows.
    #[error("{}: no {what} in {text:?}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// The line.
        text: String,
    },
    /// Memory of the process could not be read or written.
    #[error("{access} {len} bytes at {addr} of process {pid}: {source}")]
    Memory {
        /// Whose memory.
        pid: i32,
        /// `reading` or `writing`.
        access: &'static str,
        /// Where.
        addr: RemoteAddr,
        /// How much.
        len: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call that the process made for us failed.
    #[error("{call} made by process {pid} itself: {source}")]
    Errand {
        /// Name of the call.
        call: &'static str,
        /// Who made it.
        pid: i32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is nowhere to make system calls from, or no room for the signal frame.
    #[error("process {pid} cannot make system calls for us: {reason}")]
    NoErrand {
        /// Who.
        pid: i32,
        /// Why not.
        reason: &'static str,
    },
    /// The process did something else than what it was told.
    #[error("process {pid}: {got} where {expected} was expected")]
    Unexpected {
        /// Who.
        pid: i32,
        /// What it did.
        got: String,
        /// What it should have done.
        expected: &'static str,
    },
    /// A 32-bit process, or one of another instruction set.
    #[error("process {pid} does not run {expected} code (its register set has {len} bytes)")]
    ForeignRegisters {
        /// Who.
        pid: i32,
        /// This machine's instruction set.
        expected: isamorph_arch::Isa,
        /// What the kernel gave.
        len: usize,
    },
    /// The time that was allowed is over.
    #[error("process {pid} did not stop in time: {waiting_for}")]
    Timeout {
        /// Who.
        pid: i32,
        /// What was awaited.
        waiting_for: &'static str,
    },
    /// The command that this worker works for is gone.
    #[error("the command that asked for this is gone")]
    Abandoned,
}

impl Error {
    /// The kernel's last answer to a call described by `what`.
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::System { what: what.into(), source: io::Error::last_os_error() }
    }

    /// Whether the process is gone.
    #[must_use]
    pub fn is_death(&self) -> bool {
        matches!(self, Self::Died { .. } | Self::Gone { .. })
    }
}
