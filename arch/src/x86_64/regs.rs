//! General registers as `PTRACE_GETREGSET(NT_PRSTATUS)` gives them.

/// Linux's `struct user_regs_struct` (`arch/x86/include/asm/user_64.h`), field for field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the registers' own")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

const _: () = assert!(size_of::<Regs>() == 27 * 8);

impl Regs {
    /// The registers with which 64-bit user code runs when nothing else is known: flat segments, interrupts on, no
    /// system call to restart.
    pub const USER: Self = Self {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        orig_rax: u64::MAX,
        rip: 0,
        cs: USER_CS,
        eflags: EFLAGS_USER,
        rsp: 0,
        ss: USER_DS,
        fs_base: 0,
        gs_base: 0,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    };
}

/// `__USER_CS` (`arch/x86/include/asm/segment.h`).
pub const USER_CS: u64 = 0x33;
/// `__USER_DS`.
pub const USER_DS: u64 = 0x2b;
/// `EFLAGS` of user code: the bit that is always one, and IF.
pub const EFLAGS_USER: u64 = 0x202;
/// `MINSIGSTKSZ` (`arch/x86/include/uapi/asm/signal.h`): sigaltstack(2) refuses less.
pub const MIN_ALT_STACK: u64 = 2048;
