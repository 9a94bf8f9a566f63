//! A live process under ptrace: stopped and running types, remote system calls, memory, registers.
//!
//! ```text
//!   Running ──interrupt──▶ Stopped ──resume──▶ Running        moved, never copied: a ptrace call
//!                             │                               exists only on a Stopped, so ESRCH
//!                             └──errand──▶ system calls       there can only mean death
//! ```
//!
//! Nothing here leaves a trap instruction in a tracee, and a thread that is sent on an errand
//! (a system call that it makes for us) returns by itself, through a signal frame, if we die:
//! see [`errand`].
pub mod errand;
pub mod error;
pub mod host;
pub mod maps;
pub mod memory;
pub mod proc;
pub mod process;
pub mod regs;
pub mod sys;
pub mod wait;

pub use errand::Errand;
pub use error::Error;
pub use maps::{Backing, Mapping};
pub use memory::Memory;
pub use process::{Running, Stop, Stopped};
pub use regs::FpState;
pub use wait::Watch;

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;
