//! x86_64: System V psABI 1.0, Linux's `arch/x86`.
pub mod dwarf;
pub mod regs;
pub mod safepoint;

pub use regs::Regs;
