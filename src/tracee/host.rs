//! What of ptrace depends on this machine's instruction set.
#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod isa;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod isa;

pub use isa::*;

/// `-ERESTARTSYS`, `-ERESTARTNOINTR`, `-ERESTARTNOHAND`: make the call again, from the start.
pub const RESTART_FRESH: [i64; 3] = [-512, -513, -514];
/// `-ERESTART_RESTARTBLOCK`: go on with what is left of the call.
pub const RESTART_BLOCK: i64 = -516;
/// `-EINTR`.
pub const EINTR: i64 = -(libc::EINTR as i64);

/// How a thread that was interrupted in a system call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It was not in a system call, or the call was over.
    No,
    /// The kernel would make the call again, or go on with it.
    Restarts,
    /// The call returns EINTR.
    Eintr,
}
