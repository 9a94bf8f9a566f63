//! What of restoring depends on this machine's instruction set.
#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod isa;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod isa;

pub use isa::*;

/// `struct clone_args` (Linux's `include/uapi/linux/sched.h`), as far as `set_tid_size`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Not used.
    pub pidfd: u64,
    /// Not used.
    pub child_tid: u64,
    /// Not used.
    pub parent_tid: u64,
    /// Sent to the parent when the child ends.
    pub exit_signal: u64,
    /// Not used.
    pub stack: u64,
    /// Not used.
    pub stack_size: u64,
    /// Not used.
    pub tls: u64,
    /// Where the wanted process IDs are, the innermost namespace's first.
    pub set_tid: u64,
    /// How many.
    pub set_tid_size: u64,
}
