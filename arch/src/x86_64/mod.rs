//! x86_64: System V psABI 1.0, Linux's `arch/x86`.
pub mod auxv;
pub mod dwarf;
pub mod fpu;
pub mod open_flags;
pub mod regs;
pub mod safepoint;

pub use regs::Regs;
