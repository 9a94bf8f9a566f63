//! General registers as `PTRACE_GETREGSET(NT_PRSTATUS)` and `NT_ARM_TLS` give them.

/// Linux's `struct user_pt_regs` (`arch/arm64/include/uapi/asm/ptrace.h`), then `tpidr_el0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the registers' own")]
pub struct Regs {
    pub x: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
    pub tls: u64,
}

/// Bytes of `struct user_pt_regs`: the part of [`Regs`] that `NT_PRSTATUS` covers.
pub const PRSTATUS_LEN: usize = 34 * 8;

const _: () = assert!(size_of::<Regs>() == PRSTATUS_LEN + 8);

impl Regs {
    /// The registers with which user code runs when nothing else is known: `PSR_MODE_EL0t`, condition flags clear.
    pub const USER: Self = Self { x: [0; 31], sp: 0, pc: 0, pstate: 0, tls: 0 };
}

/// `MINSIGSTKSZ` (`arch/arm64/include/uapi/asm/signal.h`): sigaltstack(2) refuses less.
pub const MIN_ALT_STACK: u64 = 5120;
