//! aarch64: AAPCS64, AADWARF64, Linux's `arch/arm64`.
pub mod auxv;
pub mod dwarf;
pub mod fpu;
pub mod open_flags;
pub mod regs;
pub mod safepoint;

pub use regs::Regs;
