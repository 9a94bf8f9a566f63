//! ptrace on aarch64: registers, FP/SIMD, system calls made by a tracee, signal frames.
use isamorph_arch::aarch64::Regs;
use isamorph_arch::aarch64::regs::PRSTATUS_LEN;
use isamorph_arch::{Isa, RegisterFile, RemoteAddr};

use super::super::proc::BlockedCall;
use super::super::{Error, FpState, Result, sys};
use super::{EINTR, Interrupted};

/// This machine's instruction set.
pub const ISA: Isa = Isa::Aarch64;
/// AAPCS64 has no red zone.
pub const RED_ZONE: u64 = 0;
/// `svc #0; mov x8, #139; svc #0`: one system call, then `rt_sigreturn`.
pub const GADGET: [u8; 12] = [0x01, 0, 0, 0xd4, 0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4];
/// Bytes of a system-call instruction.
pub const SYSCALL_LEN: u64 = 4;
/// Bytes that [`signal_frame`] takes.
pub const FRAME_MAX: usize = 128 + 176 + 288 + 4096;

/// `restart_syscall`.
const RESTART_SYSCALL: u64 = 128;

/// General registers and the thread pointer.
///
/// # Errors
/// Of ptrace; a process in 32-bit mode.
pub fn get_registers(pid: i32) -> Result<RegisterFile> {
    let mut bytes = [0u8; size_of::<Regs>()];
    let len = sys::get_regset(pid, sys::NT_PRSTATUS, &mut bytes[..PRSTATUS_LEN])?;
    if len != PRSTATUS_LEN {
        return Err(Error::ForeignRegisters { pid, expected: ISA, len });
    }
    sys::get_regset(pid, sys::NT_ARM_TLS, &mut bytes[PRSTATUS_LEN..])?;
    // SAFETY: Regs is repr(C), consists of u64 only and has exactly this size.
    Ok(RegisterFile::Aarch64(unsafe { std::mem::transmute::<[u8; size_of::<Regs>()], Regs>(bytes) }))
}

/// Sets the general registers and the thread pointer.
///
/// # Errors
/// Of ptrace; registers of another instruction set.
pub fn set_registers(pid: i32, registers: &RegisterFile) -> Result<()> {
    let RegisterFile::Aarch64(regs) = registers else {
        return Err(Error::ForeignRegisters { pid, expected: ISA, len: 0 });
    };
    // SAFETY: Regs is repr(C), consists of u64 only and has exactly this size.
    let bytes = unsafe { std::mem::transmute::<Regs, [u8; size_of::<Regs>()]>(*regs) };
    sys::set_regset(pid, sys::NT_ARM_TLS, &bytes[PRSTATUS_LEN..])?;
    sys::set_regset(pid, sys::NT_PRSTATUS, &bytes[..PRSTATUS_LEN])
}

/// Floating-point registers.
///
/// # Errors
/// Of ptrace.
pub fn get_fp(pid: i32) -> Result<FpState> {
    let mut state = [0u8; 528];
    sys::get_regset(pid, sys::NT_PRFPREG, &mut state)?;
    let mut kept = Box::new([0; 520]);
    kept.copy_from_slice(&state[..520]);
    Ok(FpState::Aarch64(kept))
}

/// State that no image can carry, by name: SVE registers in use, tagged memory.
///
/// # Errors
/// Of ptrace.
pub fn unsupported_state(pid: i32) -> Result<Option<&'static str>> {
    // struct user_sve_header: u32 size, max_size; u16 vl, max_vl, flags. Bit 0 of flags: full SVE registers.
    let mut sve = [0u8; 16];
    if sys::get_regset(pid, sys::NT_ARM_SVE, &mut sve).is_ok() && sve[12] & 1 != 0 {
        return Ok(Some("live SVE registers"));
    }
    let mut control = [0u8; 8];
    if sys::get_regset(pid, sys::NT_ARM_TAGGED_ADDR_CTRL, &mut control).is_ok() && u64::from_le_bytes(control) != 0 {
        return Ok(Some("tagged addresses or memory (MTE)"));
    }
    Ok(None)
}

/// At a system-call entry stop: the call is not made.
///
/// # Errors
/// Of ptrace.
pub fn cancel_syscall(pid: i32, _registers: &mut RegisterFile) -> Result<()> {
    sys::set_regset(pid, sys::NT_ARM_SYSTEM_CALL, &(-1i32).to_le_bytes())
}

/// How the thread stands in a system call that it was interrupted in.
///
/// The kernel has already moved `pc` back to the instruction of a call that it would make again, and
/// forgotten the number; what `/proc/PID/syscall` said `before` tells a call that was under way from
/// one that is about to begin, and an EINTR that is being returned from an old one in `x0`.
#[must_use]
pub fn interrupted(registers: &RegisterFile, before: Option<&BlockedCall>) -> Interrupted {
    let (RegisterFile::Aarch64(regs), Some(before)) = (registers, before) else { return Interrupted::No };
    let same = regs.sp == before.sp.0 && (regs.x[8] == before.number || regs.x[8] == RESTART_SYSCALL);
    if same && regs.pc.wrapping_add(SYSCALL_LEN) == before.pc.0 {
        return Interrupted::Restarts;
    }
    if same && regs.pc == before.pc.0 && regs.x[0].cast_signed() == EINTR {
        return Interrupted::Eintr;
    }
    Interrupted::No
}

/// The address of the system-call instruction that an interrupted thread is at.
#[must_use]
pub fn interrupted_at(registers: &RegisterFile) -> RemoteAddr {
    match registers {
        RegisterFile::Aarch64(regs) if regs.x[0].cast_signed() == EINTR => {
            RemoteAddr(regs.pc.wrapping_sub(SYSCALL_LEN))
        }
        _ => registers.pc(),
    }
}

/// Registers that go on with an interrupted call here, with what is left of its time. The kernel would do
/// that by itself (`restart_syscall`), but it forgets on the way to an errand and back.
#[must_use]
pub fn continued_call(registers: &RegisterFile, before: Option<&BlockedCall>) -> RegisterFile {
    let mut on = *registers;
    if interrupted(registers, before) == Interrupted::Restarts
        && let (RegisterFile::Aarch64(regs), Some(before)) = (&mut on, before)
        && has_restart_block(before)
    {
        regs.x[8] = RESTART_SYSCALL;
    }
    on
}

/// Calls that are interrupted with `-ERESTART_RESTARTBLOCK` (Linux's `kernel/time/hrtimer.c`, `kernel/futex/waitwake.c`).
fn has_restart_block(call: &BlockedCall) -> bool {
    const TIMER_ABSTIME: u64 = 1;
    const FUTEX_COMMANDS: u64 = 0x7f;
    match i64::try_from(call.number) {
        Ok(libc::SYS_nanosleep) => true,
        Ok(libc::SYS_clock_nanosleep) => call.args[1] & TIMER_ABSTIME == 0,
        // FUTEX_WAIT, FUTEX_WAIT_BITSET.
        Ok(libc::SYS_futex) => matches!(call.args[1] & FUTEX_COMMANDS, 0 | 9) && call.args[3] != 0,
        Ok(libc::SYS_restart_syscall) => true,
        _ => false,
    }
}

/// Registers that make an interrupted call again from the start; the same if there is none.
#[must_use]
pub fn fresh_call(registers: &RegisterFile, before: Option<&BlockedCall>) -> RegisterFile {
    let mut again = *registers;
    if let (RegisterFile::Aarch64(regs), Some(before)) = (&mut again, before) {
        match interrupted(registers, Some(before)) {
            Interrupted::No => {}
            Interrupted::Restarts => regs.x[8] = before.number,
            Interrupted::Eintr => {
                regs.pc = regs.pc.wrapping_sub(SYSCALL_LEN);
                regs.x[0] = before.args[0];
                regs.x[8] = before.number;
            }
        }
    }
    again
}

/// Registers that make a system call at `site` with the signal frame at `frame`.
#[must_use]
pub fn detour(
    registers: &RegisterFile,
    site: RemoteAddr,
    frame: RemoteAddr,
    number: u64,
    args: [u64; 6],
) -> RegisterFile {
    let mut detour = *registers;
    if let RegisterFile::Aarch64(regs) = &mut detour {
        (regs.pc, regs.sp, regs.x[8]) = (site.0, frame.0, number);
        regs.x[..6].copy_from_slice(&args);
    }
    detour
}

/// The signal frame that brings a thread back to `registers`: `struct rt_sigframe` as
/// `rt_sigreturn` reads it from `sp` (Linux's `arch/arm64/kernel/signal.c`, `uapi/asm/sigcontext.h`).
///
/// ```text
///   frame        siginfo
///   frame + 128  uc_flags, uc_link, uc_stack (invalid: the alternate stack stays as it is), uc_sigmask
///   frame + 304  fault_address, x0..x30, sp, pc, pstate
///   frame + 592  fpsimd_context (magic, size, FPSR, FPCR, v0..v31), an empty record
/// ```
#[must_use]
pub fn signal_frame(_frame: RemoteAddr, registers: &RegisterFile, fp: &FpState, mask: u64) -> Vec<u8> {
    let (RegisterFile::Aarch64(r), FpState::Aarch64(state)) = (registers, fp) else { return Vec::new() };
    const BAD_STACK_FLAGS: u64 = 0x7777;
    let mut bytes = vec![0; FRAME_MAX];
    let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(128 + 24, BAD_STACK_FLAGS);
    put(128 + 40, mask);
    for (i, x) in r.x.iter().enumerate() {
        put(312 + 8 * i, *x);
    }
    put(560, r.sp);
    put(568, r.pc);
    put(576, r.pstate);
    bytes[592..596].copy_from_slice(&0x4650_8001u32.to_le_bytes());
    bytes[596..600].copy_from_slice(&528u32.to_le_bytes());
    bytes[600..608].copy_from_slice(&state[512..520]);
    bytes[608..1120].copy_from_slice(&state[..512]);
    bytes
}
