//! The restorer program's interpreter, and the registers of a restored thread, on aarch64.
use std::arch::{asm, global_asm};

use isamorph_arch::RegisterFile;
use isamorph_arch::aarch64::Regs;

use super::super::tree::Tree;
use super::super::{Error, Result};
use super::CloneArgs;
use crate::image::proto::CoreEntry;
use crate::tracee::sys;

/// The address after the last one that a process has (`TASK_SIZE` with 48-bit virtual addresses).
pub const ADDRESS_LIMIT: u64 = 1 << 48;

/// `NT_ARM_PACA_KEYS`, `NT_ARM_PACG_KEYS`, `NT_ARM_PAC_ENABLED_KEYS`: pointer authentication.
const PAC_SETS: [usize; 3] = [0x407, 0x408, 0x40a];

// x19: next call, x20: end of calls, x21: header. Nothing touches memory but the calls; there is no stack.
global_asm!(
    ".pushsection .rodata.isamorph_restorer, \"a\"",
    ".balign 16",
    ".globl __isamorph_restorer_start",
    "__isamorph_restorer_start:",
    "    mov x21, x0",
    "    ldp x19, x20, [x21]",
    "2:  cmp x19, x20",
    "    b.hs 5f",
    "    ldp x8, x0, [x19]",
    "    ldp x1, x2, [x19, #16]",
    "    ldp x3, x4, [x19, #32]",
    "    ldr x5, [x19, #48]",
    "    svc #0",
    "    ldp x9, x10, [x19, #56]",
    "    cbnz x9, 3f",
    "    cmn x0, #4095", // success: no errno
    "    b.hs 6f",
    "    b 4f",
    "3:  cmp x9, #2",
    "    b.eq 8f",
    "    cmp x0, x10", // exactly this
    "    b.ne 6f",
    "4:  add x19, x19, #72",
    "    b 2b",
    "8:  cmn x0, #4095", // a thread
    "    b.hs 6f",
    "    cbnz x0, 4b",
    "    mov x21, x10", // the new one: it has a header of its own
    "    ldp x19, x20, [x21]",
    "    b 2b",
    // All done: say so, and wait for the tracer.
    "5:  mov x9, #1",
    "    str x9, [x21, #40]",
    "7:  mov x0, #0",
    "    mov x1, #0",
    "    mov x2, #0",
    "    mov x3, #0",
    "    mov x4, #8",
    "    mov x8, #{ppoll}",
    "    svc #0",
    "    b 7b",
    // A call failed: report which one and how, and end.
    "6:  stp x19, x0, [x21, #24]",
    "    ldr x0, [x21, #16]",
    "    add x1, x21, #24",
    "    mov x2, #16",
    "    mov x8, #{write}",
    "    svc #0",
    "    mov x0, #127",
    "    mov x8, #{exit_group}",
    "    svc #0",
    ".globl __isamorph_restorer_syscall",
    "__isamorph_restorer_syscall:",
    "    svc #0",
    "    udf #0",
    ".globl __isamorph_restorer_end",
    "__isamorph_restorer_end:",
    ".popsection",
    ppoll = const libc::SYS_ppoll,
    write = const libc::SYS_write,
    exit_group = const libc::SYS_exit_group,
);

/// Creates a process that jumps to `code` with the address of the `header` as its argument; returns
/// its process ID, or a negative errno.
///
/// # Safety
/// `code` must be the interpreter and `header` a program, both mapped and staying so in the child.
pub unsafe fn clone_into(args: &CloneArgs, code: u64, header: u64) -> i64 {
    let result: i64;
    // SAFETY: the caller vouches for the child; without CLONE_VM nothing changes for the parent.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, {header}",
            "br {code}",
            "2:",
            inlateout("x0") std::ptr::from_ref(args) => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            header = in(reg) header,
            code = in(reg) code,
        );
    }
    result
}

/// `ldr x16, 1f; br x16; 1: .quad target`: x16 is free between functions (AAPCS64, section 6.1.1).
#[must_use]
pub fn jump_to(target: u64) -> Vec<u8> {
    let mut code = Vec::new();
    code.extend(0x5800_0050u32.to_le_bytes());
    code.extend(0xd61f_0200u32.to_le_bytes());
    code.extend(target.to_le_bytes());
    code
}

/// `struct epoll_event`.
#[must_use]
pub fn epoll_event(events: u32, data: u64) -> Vec<u8> {
    let mut bytes = u64::from(events).to_le_bytes().to_vec();
    bytes.extend(data.to_le_bytes());
    bytes
}

/// The general registers that a thread goes on with. `None`: the images have none for this machine.
#[must_use]
pub fn registers(core: &CoreEntry) -> Option<RegisterFile> {
    let info = core.ti_aarch64.as_ref()?;
    let r = &info.gpregs;
    let x: [u64; 31] = r.regs.get(..31)?.try_into().ok()?;
    Some(RegisterFile::Aarch64(Regs { x, sp: r.sp, pc: r.pc, pstate: r.pstate, tls: info.tls }))
}

/// The address for set_tid_address(2).
#[must_use]
pub fn clear_tid(core: &CoreEntry) -> u64 {
    core.ti_aarch64.as_ref().map_or(0, |t| t.clear_tid_addr)
}

/// Makes `registers` those of a system call from inside the area, whose code begins at `code`.
pub fn prepare_call(registers: &mut RegisterFile, code: u64, number: libc::c_long, args: [u64; 2]) {
    if let RegisterFile::Aarch64(r) = registers {
        r.pc = code + super::super::launch::call_offset();
        (r.x[0], r.x[1], r.x[8]) = (args[0], args[1], number as u64);
    }
}

/// The result of a system call.
#[must_use]
pub fn call_result(registers: &RegisterFile) -> i64 {
    match registers {
        RegisterFile::Aarch64(r) => r.x[0].cast_signed(),
        RegisterFile::X86_64(_) => -1,
    }
}

/// Refuses floating-point state that the images do not hold in full.
///
/// # Errors
/// By name.
pub fn check_fp(tree: &Tree, core: &CoreEntry) -> Result<()> {
    match &core.ti_aarch64 {
        Some(info) if info.fpsimd.vregs.len() == 64 && info.gpregs.regs.len() == 31 => Ok(()),
        _ => Err(tree.inconsistent("aarch64 registers are missing in the core image")),
    }
}

/// Sets floating-point registers, and pointer authentication keys where the images have some.
///
/// # Errors
/// Of ptrace.
pub fn set_fp(pid: i32, core: &CoreEntry) -> Result<()> {
    let Some(info) = &core.ti_aarch64 else { return Ok(()) };
    // struct user_fpsimd_state, without its 8 reserved bytes.
    let mut bytes: Vec<u8> = info.fpsimd.vregs.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.extend(info.fpsimd.fpsr.to_le_bytes());
    bytes.extend(info.fpsimd.fpcr.to_le_bytes());
    sys::set_regset(pid, sys::NT_PRFPREG, &bytes)?;
    let Some(keys) = &info.pac_keys else { return Ok(()) };
    let bytes = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    if let Some(a) = &keys.pac_address_keys {
        let words = [
            a.apiakey_lo,
            a.apiakey_hi,
            a.apibkey_lo,
            a.apibkey_hi,
            a.apdakey_lo,
            a.apdakey_hi,
            a.apdbkey_lo,
            a.apdbkey_hi,
        ];
        sys::set_regset(pid, PAC_SETS[0], &bytes(&words)).map_err(Error::from)?;
        sys::set_regset(pid, PAC_SETS[2], &bytes(&[a.pac_enabled_key])).map_err(Error::from)?;
    }
    if let Some(g) = &keys.pac_generic_keys {
        sys::set_regset(pid, PAC_SETS[1], &bytes(&[g.apgakey_lo, g.apgakey_hi])).map_err(Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jump_loads_the_word_behind_it() {
        // ldr x16, #8; br x16
        let code = jump_to(0x1122_3344_5566_7788);
        assert_eq!(code[..8], [0x50, 0, 0, 0x58, 0, 0x02, 0x1f, 0xd6]);
        assert_eq!(code[8..], 0x1122_3344_5566_7788u64.to_le_bytes());
    }
}
