//! Facts about the instruction sets that isamorph moves processes between.
//!
//! Everything here compiles on every host: a register file is an arch-tagged value, never the host's
//! own structure. The folders `x86_64/` and `aarch64/` hold the same file names; adding an
//! instruction set means filling one more folder.
#![no_std]

pub mod aarch64;
pub mod addr;
pub mod auxv;
pub mod fpu;
pub mod isa;
pub mod jump_cell;
pub mod open_flags;
pub mod regs;
pub mod syscall_record;
pub mod tls;
pub mod x86_64;

pub use addr::{RemoteAddr, ReturnAddr};
pub use isa::Isa;
pub use regs::{DwarfReg, RegisterFile};
