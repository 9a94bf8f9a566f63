//! `core-TID.img`: registers and what else of a thread depends on the instruction set.
use super::frames::Rewritten;
use crate::image::proto::{self, core_entry::March};
use crate::portable::Manifest;
use isamorph_arch::fpu::{FpControl, FpEnv};
use isamorph_arch::syscall_record as record;
use isamorph_arch::x86_64::fpu::MXCSR_MASK;
use isamorph_arch::{DwarfReg, Isa, RegisterFile, RemoteAddr, aarch64, x86_64};

/// `RLIMIT_STACK` (`include/uapi/asm-generic/resource.h`).
const RLIMIT_STACK: usize = 3;
/// `SS_DISABLE`.
const SS_DISABLE: u32 = 2;
/// First DWARF number of aarch64's vector registers (`v0`).
const V0: u16 = 64;

/// Where a thread was when it was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// At the stub's restart label.
    Restart,
    /// In the gate, which other dumpers find closed.
    Gate,
}

/// The machine state of a stored thread, as far as it outlives an equivalence point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// General registers.
    pub registers: RegisterFile,
    /// Floating-point control.
    pub fp: FpControl,
    /// set_tid_address(2).
    pub clear_tid: u64,
}

/// Reads a thread's registers; `Err` says what of it cannot move.
///
/// # Errors
/// State that only this instruction set has.
pub fn read(core: &proto::CoreEntry) -> Result<ThreadState, String> {
    match (core.isa(), &core.thread_info, &core.ti_aarch64) {
        (Some(Isa::X86_64), Some(info), _) => read_x86_64(info),
        (Some(Isa::Aarch64), _, Some(info)) => read_aarch64(info),
        _ => Err("its core image has no registers of x86_64 or aarch64".into()),
    }
}

fn read_x86_64(info: &proto::ThreadInfoX86) -> Result<ThreadState, String> {
    let r = &info.gpregs;
    if r.mode() != proto::X86RegsMode::Native {
        return Err("a 32-bit thread".into());
    }
    if r.gs_base != 0 {
        return Err(format!("the GS base is set ({:#x}); no portable code does that", r.gs_base));
    }
    if info.tls.iter().any(|slot| !slot.seg_not_present) {
        return Err("a GDT entry of set_thread_area(2) is set".into());
    }
    if info.fpregs.xsave.as_ref().and_then(|xsave| xsave.cet.as_ref()).is_some_and(|cet| cet.cet != 0) {
        return Err("a shadow stack (CET) is in use; aarch64 has none".into());
    }
    let registers = x86_64::Regs { rip: r.ip, rsp: r.sp, rbp: r.bp, fs_base: r.fs_base, ..x86_64::Regs::USER };
    let fp = FpControl::X86_64 { mxcsr: info.fpregs.mxcsr, cwd: info.fpregs.cwd as u16 };
    Ok(ThreadState { registers: RegisterFile::X86_64(registers), fp, clear_tid: info.clear_tid_addr })
}

fn read_aarch64(info: &proto::ThreadInfoAarch64) -> Result<ThreadState, String> {
    let r = &info.gpregs;
    let Ok(x) = <[u64; 31]>::try_from(r.regs.as_slice()) else {
        return Err(format!("its core image has {} general registers, not 31", r.regs.len()));
    };
    let registers = aarch64::Regs { x, sp: r.sp, pc: r.pc, pstate: r.pstate, tls: info.tls };
    let fp = FpControl::Aarch64 { fpcr: info.fpsimd.fpcr, fpsr: info.fpsimd.fpsr };
    Ok(ThreadState { registers: RegisterFile::Aarch64(registers), fp, clear_tid: info.clear_tid_addr })
}

/// Whether a thread is where it can change its instruction set; `flags` is the flags word of the record at its `sp`.
#[must_use]
pub fn parked(registers: &RegisterFile, manifest: &Manifest, flags: u64) -> Option<Parked> {
    let call_len = match registers.isa() {
        Isa::X86_64 => 2,
        Isa::Aarch64 => 4,
    };
    let pc = registers.pc().0;
    // A dumper finds a thread that waits in a system call before it (restarted) or after it (interrupted).
    let at_gate = pc == manifest.gate_insn || pc == manifest.gate_insn.wrapping_add(call_len);
    if pc == manifest.syscall_restart {
        Some(Parked::Restart)
    } else if at_gate && flags & record::FLAG_GATE != 0 {
        Some(Parked::Gate)
    } else {
        None
    }
}

/// Gives a thread this signal mask; images have it twice.
pub fn set_signal_mask(core: &mut proto::CoreEntry, mask: u64) {
    if let Some(task) = &mut core.tc {
        task.blk_sigset = mask;
    }
    if let Some(thread) = &mut core.thread_core {
        thread.blk_sigset = Some(mask);
    }
}

/// Puts the target's registers into a core image.
pub fn write(
    core: &mut proto::CoreEntry,
    to: Isa,
    restart: u64,
    stack: &Rewritten,
    thread_pointer: RemoteAddr,
    env: FpEnv,
    clear_tid: u64,
) {
    let mut registers = match to {
        Isa::X86_64 => RegisterFile::X86_64(x86_64::Regs::USER),
        Isa::Aarch64 => RegisterFile::Aarch64(aarch64::Regs::USER),
    };
    let mut vector = Vec::new();
    for (reg, value) in &stack.registers {
        if !registers.set(*reg, *value) {
            vector.push((*reg, *value));
        }
    }
    registers.set_pc(RemoteAddr(restart));
    registers.set_sp(stack.start);
    registers.set_thread_pointer(thread_pointer);
    (core.thread_info, core.ti_aarch64) = (None, None);
    match (registers, env.control(to)) {
        (RegisterFile::X86_64(r), FpControl::X86_64 { mxcsr, cwd }) => {
            core.set_mtype(March::X8664);
            core.thread_info = Some(thread_info_x86_64(&r, mxcsr, cwd, clear_tid));
        }
        (RegisterFile::Aarch64(r), FpControl::Aarch64 { fpcr, fpsr }) => {
            core.set_mtype(March::Aarch64);
            core.ti_aarch64 = Some(thread_info_aarch64(&r, &vector, fpcr, fpsr, clear_tid));
        }
        // `control` and the register file are of one instruction set: `to`.
        _ => debug_assert!(false, "registers of two instruction sets"),
    }
}

fn thread_info_x86_64(r: &x86_64::Regs, mxcsr: u32, cwd: u16, clear_tid: u64) -> proto::ThreadInfoX86 {
    proto::ThreadInfoX86 {
        clear_tid_addr: clear_tid,
        gpregs: r.into(),
        fpregs: proto::UserX86FpregsEntry {
            cwd: cwd.into(),
            mxcsr,
            mxcsr_mask: MXCSR_MASK,
            st_space: vec![0; 32],
            xmm_space: vec![0; 64],
            ..proto::UserX86FpregsEntry::default()
        },
        tls: Vec::new(),
    }
}

fn thread_info_aarch64(
    r: &aarch64::Regs,
    vector: &[(DwarfReg, u64)],
    fpcr: u32,
    fpsr: u32,
    clear_tid: u64,
) -> proto::ThreadInfoAarch64 {
    let mut vregs = vec![0; 64];
    for (reg, value) in vector {
        if let Some(place) = reg.0.checked_sub(V0).and_then(|number| vregs.get_mut(usize::from(number) * 2)) {
            *place = *value;
        }
    }
    proto::ThreadInfoAarch64 {
        clear_tid_addr: clear_tid,
        tls: r.tls,
        gpregs: r.into(),
        fpsimd: proto::UserAarch64FpsimdContextEntry { vregs, fpsr, fpcr },
        pac_keys: None,
    }
}

/// What of a thread outside its registers cannot move to `to`; `None` if all of it can.
#[must_use]
pub fn unsupported(core: &proto::CoreEntry, manifest: &Manifest, to: Isa) -> Option<String> {
    if let Some(task) = &core.tc {
        // 1 alive, 3 stopped
        if !matches!(task.task_state, 1 | 3) {
            return Some(format!("a process in state {} (dead or a zombie)", task.task_state));
        }
        if task.old_seccomp_mode() != proto::SeccompMode::Disabled {
            return Some("a seccomp filter: it names the instruction set and its system-call numbers".into());
        }
        for (index, action) in task.sigactions.iter().enumerate() {
            // The image lacks SIGKILL and SIGSTOP.
            let signal = index + 1 + usize::from(index >= 8) + usize::from(index >= 17);
            let handled = action.sigaction > 1;
            if action.compat_sigaction() {
                return Some(format!("the action of signal {signal} is one of a 32-bit program"));
            }
            if handled && action.restorer != 0 && action.restorer != manifest.restore_rt {
                let restorer = action.restorer;
                return Some(format!(
                    "the action of signal {signal} returns through {restorer:#x}, not through the pair's restorer"
                ));
            }
        }
    }
    let thread = core.thread_core.as_ref()?;
    if thread.seccomp_mode() != proto::SeccompMode::Disabled {
        return Some("a seccomp filter: it names the instruction set and its system-call numbers".into());
    }
    if thread.rseq_entry.as_ref().is_some_and(|rseq| rseq.rseq_abi_pointer != 0) {
        return Some("an rseq area is registered; its abort signature differs per instruction set".into());
    }
    if let Some(alt) = &thread.sas {
        let need = match to {
            Isa::X86_64 => x86_64::regs::MIN_ALT_STACK,
            Isa::Aarch64 => aarch64::regs::MIN_ALT_STACK,
        };
        if alt.ss_flags & SS_DISABLE == 0 && alt.ss_size < need {
            let size = alt.ss_size;
            return Some(format!("an alternate signal stack of {size} bytes, where {to} demands {need}"));
        }
    }
    None
}

/// The soft limit of the stack's size in bytes; unlimited if the image has none.
#[must_use]
pub fn stack_limit(core: &proto::CoreEntry) -> u64 {
    let limits = core.tc.as_ref().and_then(|task| task.rlimits.as_ref());
    limits.and_then(|limits| limits.rlimits.get(RLIMIT_STACK)).map_or(u64::MAX, |limit| limit.cur)
}

/// Forgets a registration of rseq that is none: newer kernels' trees have it for every thread.
pub fn drop_empty_rseq(core: &mut proto::CoreEntry) {
    if let Some(thread) = &mut core.thread_core {
        thread.rseq_entry = None;
    }
}
