//! isamorph: checkpoints running Linux processes, translates them between x86_64 and aarch64, restores them.
//!
//! Data flows one way: [`tracee`] → [`dump`] → [`image`] → [`transform`] → [`image`] → [`restore`].
//! `image`, `portable` and `transform` know no live process and compile for any host; `tracee`,
//! `dump` and `restore` know no DWARF. `docs/architecture.md` has the invariants and the formats.
pub mod cli;
#[cfg(target_os = "linux")]
pub mod dump;
pub mod image;
pub mod portable;
#[cfg(target_os = "linux")]
pub mod restore;
#[cfg(target_os = "linux")]
pub mod tracee;
pub mod transform;
