//! ptrace on x86_64: registers, XSAVE, system calls made by a tracee, signal frames.
use isamorph_arch::x86_64::Regs;
use isamorph_arch::{Isa, RegisterFile, RemoteAddr};

use super::super::proc::BlockedCall;
use super::super::regs::XsaveArea;
use super::super::{Error, FpState, Result, sys};
use super::{EINTR, Interrupted, RESTART_BLOCK, RESTART_FRESH};

/// This machine's instruction set.
pub const ISA: Isa = Isa::X86_64;
/// Bytes below `sp` that a leaf function may use (psABI 1.0, section 3.2.2).
pub const RED_ZONE: u64 = 128;
/// `syscall; mov $15, %eax; syscall`: one system call, then `rt_sigreturn`.
pub const GADGET: [u8; 9] = [0x0f, 0x05, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// Bytes of a system-call instruction.
pub const SYSCALL_LEN: u64 = 2;
/// Bytes that [`signal_frame`] takes at most.
pub const FRAME_MAX: usize = 304 + 64 + XSAVE_MAX + 4;

/// The XSAVE area up to and including PKRU, with room for other processors' layouts.
const XSAVE_MAX: usize = 4096;

/// General registers.
///
/// # Errors
/// Of ptrace; a process in 32-bit mode.
pub fn get_registers(pid: i32) -> Result<RegisterFile> {
    let mut bytes = [0u8; size_of::<Regs>()];
    let len = sys::get_regset(pid, sys::NT_PRSTATUS, &mut bytes)?;
    if len != bytes.len() {
        return Err(Error::ForeignRegisters { pid, expected: ISA, len });
    }
    // SAFETY: Regs is repr(C), consists of u64 only and has exactly this size.
    Ok(RegisterFile::X86_64(unsafe { std::mem::transmute::<[u8; size_of::<Regs>()], Regs>(bytes) }))
}

/// Sets the general registers.
///
/// # Errors
/// Of ptrace; registers of another instruction set.
pub fn set_registers(pid: i32, registers: &RegisterFile) -> Result<()> {
    let RegisterFile::X86_64(regs) = registers else {
        return Err(Error::ForeignRegisters { pid, expected: ISA, len: 0 });
    };
    // SAFETY: Regs is repr(C), consists of u64 only and has exactly this size.
    let bytes = unsafe { std::mem::transmute::<Regs, [u8; size_of::<Regs>()]>(*regs) };
    sys::set_regset(pid, sys::NT_PRSTATUS, &bytes)
}

/// Floating-point registers.
///
/// # Errors
/// Of ptrace.
pub fn get_fp(pid: i32) -> Result<FpState> {
    let mut area = vec![0; 1 << 16];
    let len = sys::get_regset(pid, sys::NT_X86_XSTATE, &mut area)?;
    area.truncate(len.max(576));
    Ok(FpState::X86_64(XsaveArea { bytes: area, layout: component_layout() }))
}

/// Offsets and sizes of XSAVE components 0 to 9: CPUID leaf 0xd (Intel SDM volume 2; they differ per vendor).
fn component_layout() -> [(u32, u32); 10] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let mut layout = [(0, 0); 10];
    if __cpuid(0).eax < 0xd || __cpuid(1).ecx & 1 << 27 == 0 {
        return layout;
    }
    let supported = __cpuid_count(0xd, 0).eax;
    for bit in (2..10).filter(|bit| supported >> bit & 1 != 0) {
        let component = __cpuid_count(0xd, bit);
        layout[bit as usize] = (component.ebx, component.eax);
    }
    layout
}

/// State that no image can carry, by name.
///
/// # Errors
/// Of ptrace.
pub fn unsupported_state(_pid: i32) -> Result<Option<&'static str>> {
    Ok(None)
}

/// At a system-call entry stop: the call is not made.
///
/// # Errors
/// Never here; the number is part of the registers.
pub fn cancel_syscall(_pid: i32, registers: &mut RegisterFile) -> Result<()> {
    if let RegisterFile::X86_64(regs) = registers {
        regs.orig_rax = u64::MAX;
    }
    Ok(())
}

/// How the thread stands in a system call that it was interrupted in. The registers say it all.
#[must_use]
pub fn interrupted(registers: &RegisterFile, _before: Option<&BlockedCall>) -> Interrupted {
    let RegisterFile::X86_64(regs) = registers else { return Interrupted::No };
    if regs.orig_rax.cast_signed() < 0 {
        return Interrupted::No;
    }
    match regs.rax.cast_signed() {
        RESTART_BLOCK => Interrupted::Restarts,
        code if RESTART_FRESH.contains(&code) => Interrupted::Restarts,
        EINTR => Interrupted::Eintr,
        _ => Interrupted::No,
    }
}

/// The address of the system-call instruction that an interrupted thread is at.
#[must_use]
pub fn interrupted_at(registers: &RegisterFile) -> RemoteAddr {
    RemoteAddr(registers.pc().0.wrapping_sub(SYSCALL_LEN))
}

/// Registers that go on with an interrupted call here, with what is left of its time: the kernel sees to
/// that whenever it finds the code of a restart in `rax`.
#[must_use]
pub fn continued_call(registers: &RegisterFile, _before: Option<&BlockedCall>) -> RegisterFile {
    *registers
}

/// Registers that make an interrupted call again from the start; the same if there is none.
#[must_use]
pub fn fresh_call(registers: &RegisterFile, before: Option<&BlockedCall>) -> RegisterFile {
    let mut again = *registers;
    if interrupted(registers, before) != Interrupted::No
        && let RegisterFile::X86_64(regs) = &mut again
    {
        regs.rax = regs.orig_rax;
        regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
        regs.orig_rax = u64::MAX;
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
    if let RegisterFile::X86_64(regs) = &mut detour {
        (regs.rip, regs.rsp, regs.rax, regs.orig_rax) = (site.0, frame.0, number, u64::MAX);
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
    }
    detour
}

/// The signal frame that brings a thread back to `registers`: `struct ucontext` as
/// `rt_sigreturn` reads it from `sp` (Linux's `arch/x86/include/uapi/asm/{ucontext,sigcontext}.h`).
///
/// ```text
///   frame        uc_flags, uc_link, uc_stack (invalid: the alternate stack stays as it is)
///   frame +  40  r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags, cs gs fs ss, err trapno oldmask cr2, fpstate
///   frame + 296  uc_sigmask
///   aligned 64   XSAVE area, FP_XSTATE_MAGIC2
/// ```
#[must_use]
pub fn signal_frame(frame: RemoteAddr, registers: &RegisterFile, fp: &FpState, mask: u64) -> Vec<u8> {
    let (RegisterFile::X86_64(r), FpState::X86_64(area)) = (registers, fp) else { return Vec::new() };
    const FLAGS: u64 = 1 | 2 | 4; // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
    const BAD_STACK_FLAGS: u64 = 0x7777;
    let fpstate = (frame.0 + 304).next_multiple_of(64);
    let segments = (r.cs & 0xffff) | (r.ss & 0xffff) << 48;
    let words = [
        FLAGS,
        0,
        0,
        BAD_STACK_FLAGS,
        0, //
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15, //
        r.rdi,
        r.rsi,
        r.rbp,
        r.rbx,
        r.rdx,
        r.rax,
        r.rcx,
        r.rsp,
        r.rip,
        r.eflags,
        segments, //
        0,
        0,
        0,
        0,
        fpstate,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, //
        mask,
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize((fpstate - frame.0) as usize, 0);
    let mut area = area.base().to_vec();
    area.truncate(XSAVE_MAX);
    let features = u64::from_le_bytes(area[464..472].try_into().unwrap_or_default()) & 0x2ff;
    let len = area.len() as u32;
    area[464..512].fill(0);
    area[464..468].copy_from_slice(&0x4650_5853u32.to_le_bytes());
    area[468..472].copy_from_slice(&(len + 4).to_le_bytes());
    area[472..480].copy_from_slice(&features.to_le_bytes());
    area[480..484].copy_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&area);
    bytes.extend_from_slice(&0x4650_5845u32.to_le_bytes());
    bytes
}
