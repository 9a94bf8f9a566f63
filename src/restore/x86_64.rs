//! The restorer program's interpreter, and the registers of a restored thread, on x86_64.
use std::arch::{asm, global_asm, x86_64::__cpuid_count};

use isamorph_arch::RegisterFile;
use isamorph_arch::x86_64::Regs;

use super::super::tree::Tree;
use super::super::{Error, Result};
use super::CloneArgs;
use crate::image::proto::{CoreEntry, UserX86FpregsEntry, UserX86XsaveEntry};
use crate::tracee::sys;

/// The address after the last one that a process has (`TASK_SIZE` with four-level page tables).
pub const ADDRESS_LIMIT: u64 = 0x7fff_ffff_f000;

// r12: next call, r13: end of calls, rbx: header. Nothing touches memory but the calls; there is no
// stack. A system call clobbers rcx and r11 (psABI, section A.2.1).
global_asm!(
    ".pushsection .rodata.isamorph_restorer, \"a\"",
    ".balign 16",
    ".globl __isamorph_restorer_start",
    "__isamorph_restorer_start:",
    "    mov rbx, rdi",
    "    mov r12, [rbx]",
    "    mov r13, [rbx + 8]",
    "2:  cmp r12, r13",
    "    jae 5f",
    "    mov rax, [r12]",
    "    mov rdi, [r12 + 8]",
    "    mov rsi, [r12 + 16]",
    "    mov rdx, [r12 + 24]",
    "    mov r10, [r12 + 32]",
    "    mov r8, [r12 + 40]",
    "    mov r9, [r12 + 48]",
    "    syscall",
    "    cmp qword ptr [r12 + 56], 0",
    "    jne 3f",
    "    cmp rax, -4095", // success: no errno
    "    jae 6f",
    "    jmp 4f",
    "3:  cmp qword ptr [r12 + 56], 2",
    "    je 8f",
    "    cmp rax, [r12 + 64]", // exactly this
    "    jne 6f",
    "4:  add r12, 72",
    "    jmp 2b",
    "8:  cmp rax, -4095", // a thread
    "    jae 6f",
    "    test rax, rax",
    "    jnz 4b",
    "    mov rbx, [r12 + 64]", // the new one: it has a header of its own
    "    mov r12, [rbx]",
    "    mov r13, [rbx + 8]",
    "    jmp 2b",
    // All done: say so, and wait for the tracer.
    "5:  mov qword ptr [rbx + 40], 1",
    "7:  xor edi, edi",
    "    xor esi, esi",
    "    xor edx, edx",
    "    xor r10d, r10d",
    "    mov r8d, 8",
    "    mov eax, {ppoll}",
    "    syscall",
    "    jmp 7b",
    // A call failed: report which one and how, and end.
    "6:  mov [rbx + 24], r12",
    "    mov [rbx + 32], rax",
    "    mov rdi, [rbx + 16]",
    "    lea rsi, [rbx + 24]",
    "    mov edx, 16",
    "    mov eax, {write}",
    "    syscall",
    "    mov edi, 127",
    "    mov eax, {exit_group}",
    "    syscall",
    ".globl __isamorph_restorer_syscall",
    "__isamorph_restorer_syscall:",
    "    syscall",
    "    ud2",
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {header}",
            "jmp {code}",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            header = in(reg) header,
            code = in(reg) code,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// `mov $target, %rax; jmp *%rax`: entered by a call, so that rax is free.
#[must_use]
pub fn jump_to(target: u64) -> Vec<u8> {
    let mut code = vec![0x48, 0xb8];
    code.extend(target.to_le_bytes());
    code.extend([0xff, 0xe0]);
    code
}

/// `struct epoll_event`: packed here.
#[must_use]
pub fn epoll_event(events: u32, data: u64) -> Vec<u8> {
    let mut bytes = events.to_le_bytes().to_vec();
    bytes.extend(data.to_le_bytes());
    bytes
}

/// The general registers that a thread goes on with. `None`: the images have none for this machine.
#[must_use]
pub fn registers(core: &CoreEntry) -> Option<RegisterFile> {
    let registers = Regs::from(&core.thread_info.as_ref()?.gpregs);
    // Whatever call it was in, the images have it rewound or completed.
    Some(RegisterFile::X86_64(Regs { orig_rax: u64::MAX, ..registers }))
}

/// The address for set_tid_address(2).
#[must_use]
pub fn clear_tid(core: &CoreEntry) -> u64 {
    core.thread_info.as_ref().map_or(0, |t| t.clear_tid_addr)
}

/// Makes `registers` those of a system call from inside the area, whose code begins at `code`.
pub fn prepare_call(registers: &mut RegisterFile, code: u64, number: libc::c_long, args: [u64; 2]) {
    if let RegisterFile::X86_64(r) = registers {
        (r.rip, r.rax, r.orig_rax) = (code + super::super::launch::call_offset(), number as u64, u64::MAX);
        [r.rdi, r.rsi] = args;
    }
}

/// The result of a system call.
#[must_use]
pub fn call_result(registers: &RegisterFile) -> i64 {
    match registers {
        RegisterFile::X86_64(r) => r.rax.cast_signed(),
        RegisterFile::Aarch64(_) => -1,
    }
}

/// Refuses floating-point state that this processor does not have.
///
/// # Errors
/// By the name of the feature.
pub fn check_fp(tree: &Tree, core: &CoreEntry) -> Result<()> {
    let info = core.thread_info.as_ref().ok_or_else(|| tree.inconsistent("no x86_64 registers in core image"))?;
    if info.gpregs.mode() != crate::image::proto::X86RegsMode::Native {
        return Err(tree.unsupported("a 32-bit program", "only 64-bit ones can be restored"));
    }
    if info.tls.iter().any(|t| !t.seg_not_present && t.usable) {
        return Err(tree.unsupported("a set_thread_area(2) segment", "only 32-bit code uses these"));
    }
    let Some(xsave) = &info.fpregs.xsave else { return Ok(()) };
    if xsave.cet.as_ref().is_some_and(|c| c.cet != 0) {
        return Err(tree.unsupported("a shadow stack", "control-flow enforcement cannot be restored yet"));
    }
    let have = supported();
    if let Some(c) = COMPONENTS.iter().find(|c| xsave.xstate_bv & (1 << c.bit) != 0 && have & (1 << c.bit) == 0) {
        return Err(tree.unsupported(format!("{} registers in use", c.name), "this processor does not have them"));
    }
    Ok(())
}

struct Component {
    bit: u32,
    name: &'static str,
}

/// XSAVE state components (Intel SDM volume 1, section 13.1).
const COMPONENTS: [Component; 7] = [
    Component { bit: 2, name: "AVX" },
    Component { bit: 3, name: "MPX" },
    Component { bit: 4, name: "MPX" },
    Component { bit: 5, name: "AVX-512 mask" },
    Component { bit: 6, name: "AVX-512" },
    Component { bit: 7, name: "AVX-512" },
    Component { bit: 9, name: "protection key" },
];

/// The components that processor and kernel support, 0 without XSAVE.
fn supported() -> u64 {
    // Leaf 1, ecx bit 27: the kernel uses XSAVE. Leaf 0xd exists then.
    if __cpuid_count(1, 0).ecx & (1 << 27) == 0 {
        return 0;
    }
    let leaf = __cpuid_count(0xd, 0);
    u64::from(leaf.edx) << 32 | u64::from(leaf.eax)
}

/// Where a component is in the standard format: offset and length in bytes.
fn place(bit: u32) -> (usize, usize) {
    let leaf = __cpuid_count(0xd, bit);
    (leaf.ebx as usize, leaf.eax as usize)
}

/// Sets floating-point and vector registers.
///
/// # Errors
/// Of ptrace.
pub fn set_fp(pid: i32, core: &CoreEntry) -> Result<()> {
    let Some(info) = &core.thread_info else { return Ok(()) };
    let mut area = vec![0; 1 << 16];
    match sys::get_regset(pid, sys::NT_X86_XSTATE, &mut area) {
        Ok(len) if len >= 576 => {
            area.truncate(len);
            fill(&mut area, &info.fpregs);
            sys::set_regset(pid, sys::NT_X86_XSTATE, &area).map_err(Error::from)
        }
        _ => sys::set_regset(pid, sys::NT_PRFPREG, &legacy(&info.fpregs)).map_err(Error::from),
    }
}

/// The 512 bytes of FXSAVE (Intel SDM volume 1, table 10-2).
fn legacy(fp: &UserX86FpregsEntry) -> [u8; 512] {
    let mut a = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| a[at..at + bytes.len()].copy_from_slice(bytes);
    // The first three are 16-bit registers.
    put(0, &(fp.cwd as u16).to_le_bytes());
    put(2, &(fp.swd as u16).to_le_bytes());
    put(4, &(fp.twd as u16).to_le_bytes());
    put(6, &(fp.fop as u16).to_le_bytes());
    put(8, &fp.rip.to_le_bytes());
    put(16, &fp.rdp.to_le_bytes());
    put(24, &fp.mxcsr.to_le_bytes());
    put(28, &fp.mxcsr_mask.to_le_bytes());
    fp.st_space.iter().take(32).enumerate().for_each(|(n, w)| put(32 + 4 * n, &w.to_le_bytes()));
    fp.xmm_space.iter().take(64).enumerate().for_each(|(n, w)| put(160 + 4 * n, &w.to_le_bytes()));
    a
}

/// Puts the images' state into an XSAVE area in standard format.
fn fill(area: &mut [u8], fp: &UserX86FpregsEntry) {
    let software = area[464..512].to_vec();
    area.fill(0);
    area[..512].copy_from_slice(&legacy(fp));
    area[464..512].copy_from_slice(&software);
    let none = UserX86XsaveEntry { xstate_bv: 3, ..Default::default() };
    let x = fp.xsave.as_ref().unwrap_or(&none);
    let have = supported();
    let mut bv = x.xstate_bv & 3;
    let parts: [(u32, Vec<u8>); 7] = [
        (2, bytes32(&x.ymmh_space)),
        (3, bytes64(&x.bndreg_state)),
        (4, bytes64(&x.bndcsr_state)),
        (5, bytes64(&x.opmask_reg)),
        (6, bytes64(&x.zmm_upper)),
        (7, bytes64(&x.hi16_zmm)),
        (9, bytes32(&x.pkru)),
    ];
    for (bit, bytes) in parts {
        if have & x.xstate_bv & (1 << bit) == 0 {
            continue;
        }
        let (offset, len) = place(bit);
        let len = len.min(bytes.len());
        if let Some(to) = area.get_mut(offset..offset + len) {
            to.copy_from_slice(&bytes[..len]);
            bv |= 1 << bit;
        }
    }
    area[512..520].copy_from_slice(&bv.to_le_bytes());
}

fn bytes32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn bytes64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_state_is_where_fxsave_has_it() {
        let fp = UserX86FpregsEntry {
            cwd: 0x37f,
            mxcsr: 0x1f80,
            st_space: (0..32).collect(),
            xmm_space: (100..164).collect(),
            ..Default::default()
        };
        let a = legacy(&fp);
        assert_eq!((a[0], a[1], a[24], a[25]), (0x7f, 3, 0x80, 0x1f));
        assert_eq!((a[32 + 4 * 31], a[160], a[160 + 4 * 63]), (31, 100, 163));
        assert_eq!(jump_to(0x1234).len(), 12);
    }
}
