//! General registers of a thread as an arch-tagged value.
use crate::{Isa, RemoteAddr, aarch64, x86_64};

/// A register by its DWARF number: psABI table 3.36 on x86_64, AADWARF64 section 4.1 on aarch64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DwarfReg(pub u16);

/// The general registers of a thread of either instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterFile {
    /// `user_regs_struct` of an x86_64 thread.
    X86_64(x86_64::Regs),
    /// `user_pt_regs` of an aarch64 thread, and its thread pointer.
    Aarch64(aarch64::Regs),
}

impl RegisterFile {
    /// All zeros, for `isa`.
    #[must_use]
    pub fn zeroed(isa: Isa) -> Self {
        match isa {
            Isa::X86_64 => Self::X86_64(x86_64::Regs::default()),
            Isa::Aarch64 => Self::Aarch64(aarch64::Regs::default()),
        }
    }

    /// Whose registers these are.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        match self {
            Self::X86_64(_) => Isa::X86_64,
            Self::Aarch64(_) => Isa::Aarch64,
        }
    }

    /// The program counter.
    #[must_use]
    pub const fn pc(&self) -> RemoteAddr {
        match self {
            Self::X86_64(r) => RemoteAddr(r.rip),
            Self::Aarch64(r) => RemoteAddr(r.pc),
        }
    }

    /// Sets the program counter.
    pub fn set_pc(&mut self, pc: RemoteAddr) {
        match self {
            Self::X86_64(r) => r.rip = pc.0,
            Self::Aarch64(r) => r.pc = pc.0,
        }
    }

    /// The stack pointer.
    #[must_use]
    pub const fn sp(&self) -> RemoteAddr {
        match self {
            Self::X86_64(r) => RemoteAddr(r.rsp),
            Self::Aarch64(r) => RemoteAddr(r.sp),
        }
    }

    /// Sets the stack pointer.
    pub fn set_sp(&mut self, sp: RemoteAddr) {
        match self {
            Self::X86_64(r) => r.rsp = sp.0,
            Self::Aarch64(r) => r.sp = sp.0,
        }
    }

    /// The frame pointer: `rbp`, `x29`.
    #[must_use]
    pub const fn fp(&self) -> RemoteAddr {
        match self {
            Self::X86_64(r) => RemoteAddr(r.rbp),
            Self::Aarch64(r) => RemoteAddr(r.x[29]),
        }
    }

    /// The thread pointer: `fs_base`, `tpidr_el0`.
    #[must_use]
    pub const fn thread_pointer(&self) -> RemoteAddr {
        match self {
            Self::X86_64(r) => RemoteAddr(r.fs_base),
            Self::Aarch64(r) => RemoteAddr(r.tls),
        }
    }

    /// Sets the thread pointer.
    pub fn set_thread_pointer(&mut self, tp: RemoteAddr) {
        match self {
            Self::X86_64(r) => r.fs_base = tp.0,
            Self::Aarch64(r) => r.tls = tp.0,
        }
    }

    /// The general register with a DWARF number, `None` for one that is not a 64-bit general register.
    #[must_use]
    pub fn get(&self, reg: DwarfReg) -> Option<u64> {
        match self {
            Self::X86_64(r) => x86_64::dwarf::get(r, reg),
            Self::Aarch64(r) => aarch64::dwarf::get(r, reg),
        }
    }

    /// Sets the general register with a DWARF number; `false` if there is none.
    pub fn set(&mut self, reg: DwarfReg, value: u64) -> bool {
        match self {
            Self::X86_64(r) => x86_64::dwarf::set(r, reg, value),
            Self::Aarch64(r) => aarch64::dwarf::set(r, reg, value),
        }
    }
}
