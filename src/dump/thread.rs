//! One thread: registers, scheduling, robust list, alternate stack.
use isamorph_arch::RegisterFile;

use super::freeze::FrozenThread;
use super::self_report::ThreadReport;
use super::{Error, Result};
use crate::image::proto;
use crate::image::proto::core_entry::March;
use crate::tracee::FpState;

/// The thread's part of a core entry; signals and credentials are the caller's to add.
///
/// # Errors
/// The thread cannot be asked.
pub fn core(thread: &FrozenThread, own: &ThreadReport) -> Result<proto::CoreEntry> {
    let pid = thread.tid;
    let (list, list_len) = robust_list(pid)?;
    let thread_core = proto::ThreadCoreEntry {
        futex_rla: list,
        futex_rla_len: list_len,
        sas: Some(proto::ThreadSasEntry {
            ss_sp: own.alternate_stack.0,
            ss_size: own.alternate_stack.1,
            ss_flags: own.alternate_stack.2,
        }),
        pdeath_sig: (own.pdeath_signal != 0).then_some(own.pdeath_signal),
        rseq_entry: thread.rseq.map(|rseq| proto::RseqEntry {
            rseq_abi_pointer: rseq.pointer,
            rseq_abi_size: rseq.size,
            signature: rseq.signature,
            rseq_cs_pointer: None,
        }),
        ..schedule(pid)?
    };
    let mut core = proto::CoreEntry { thread_core: Some(thread_core), ..Default::default() };
    let clear_tid_addr = own.tid_address;
    match (thread.resumable, thread.stopped()?.fp()?) {
        (RegisterFile::X86_64(regs), FpState::X86_64(area)) => {
            core.mtype = March::X8664.into();
            core.thread_info = Some(proto::ThreadInfoX86 {
                clear_tid_addr,
                gpregs: (&regs).into(),
                fpregs: x86_fp(&area),
                tls: Vec::new(),
            });
        }
        (RegisterFile::Aarch64(regs), FpState::Aarch64(state)) => {
            let word = |at: usize| u32::from_le_bytes(state[at..at + 4].try_into().unwrap_or_default());
            core.mtype = March::Aarch64.into();
            core.ti_aarch64 = Some(proto::ThreadInfoAarch64 {
                clear_tid_addr,
                tls: regs.tls,
                gpregs: (&regs).into(),
                fpsimd: proto::UserAarch64FpsimdContextEntry {
                    vregs: state[..512]
                        .chunks_exact(8)
                        .map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default()))
                        .collect(),
                    fpsr: word(512),
                    fpcr: word(516),
                },
                ..Default::default()
            });
        }
        _ => {
            return Err(Error::Tracee(crate::tracee::Error::Unexpected {
                pid,
                got: "floating-point registers of another instruction set".into(),
                expected: "those of the general ones",
            }));
        }
    }
    Ok(core)
}

/// The FXSAVE part and those extended components that are in use: one that is not comes back in its
/// initial state all the same, and the image suits processors that lack it.
fn x86_fp(area: &crate::tracee::regs::XsaveArea) -> proto::UserX86FpregsEntry {
    let half = |at: usize| u32::from(u16::from_le_bytes(area.bytes[at..at + 2].try_into().unwrap_or_default()));
    let u32s = |bytes: &[u8]| -> Vec<u32> {
        bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap_or_default())).collect()
    };
    let u64s = |bytes: &[u8]| -> Vec<u64> {
        bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect()
    };
    let words = u32s(&area.bytes[..512]);
    let long = |at: usize| u64::from(words[at / 4]) | u64::from(words[at / 4 + 1]) << 32;
    // The value that Linux gives every process (init_pkru) is as good as none.
    const PKRU_DEFAULT: [u8; 4] = 0x5555_5554u32.to_le_bytes();
    let part = |bit| area.component(bit).filter(|bytes| bit != 9 || !bytes.starts_with(&PKRU_DEFAULT));
    let in_use = (2..=9).filter(|bit| part(*bit).is_some()).fold(0, |all, bit| all | 1u64 << bit);
    let xsave = (in_use != 0).then(|| proto::UserX86XsaveEntry {
        xstate_bv: in_use | 3,
        ymmh_space: part(2).map(u32s).unwrap_or_default(),
        bndreg_state: part(3).map(u64s).unwrap_or_default(),
        bndcsr_state: part(4).map(u64s).unwrap_or_default(),
        opmask_reg: part(5).map(u64s).unwrap_or_default(),
        zmm_upper: part(6).map(u64s).unwrap_or_default(),
        hi16_zmm: part(7).map(u64s).unwrap_or_default(),
        pkru: part(9).map(u32s).unwrap_or_default(),
        cet: None,
    });
    // An area in its initial state may hold anything: SSE registers are zero then, and x87 as after FNINIT.
    let (x87, sse) = (area.in_use(0), area.in_use(1));
    proto::UserX86FpregsEntry {
        cwd: if x87 { half(0) } else { 0x37f },
        swd: if x87 { half(2) } else { 0 },
        twd: if x87 { half(4) & 0xff } else { 0 },
        fop: if x87 { half(6) } else { 0 },
        rip: if x87 { long(8) } else { 0 },
        rdp: if x87 { long(16) } else { 0 },
        mxcsr: words[6],
        mxcsr_mask: words[7],
        st_space: if x87 { words[8..40].to_vec() } else { vec![0; 32] },
        xmm_space: if sse { words[40..104].to_vec() } else { vec![0; 64] },
        padding: Vec::new(),
        xsave,
    }
}

fn robust_list(pid: i32) -> Result<(u64, u32)> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: the kernel writes a pointer and a size_t.
    let answer = unsafe { libc::syscall(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut len) };
    if answer != 0 {
        return Err(Error::last_os(format!("asking for the robust list of thread {pid}")));
    }
    Ok((head, len as u32))
}

fn schedule(pid: i32) -> Result<proto::ThreadCoreEntry> {
    let mut priority = 0i32;
    // SAFETY: plain system calls; the second writes one int.
    let policy = unsafe {
        let policy = libc::syscall(libc::SYS_sched_getscheduler, pid);
        libc::syscall(libc::SYS_sched_getparam, pid, &raw mut priority);
        policy
    };
    if policy < 0 {
        return Err(Error::last_os(format!("asking for the scheduling of thread {pid}")));
    }
    // The raw call returns 20 - nice, so that no value looks like an error.
    // SAFETY: a plain system call.
    let nice = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, pid) };
    if nice < 0 {
        return Err(Error::last_os(format!("asking for the priority of thread {pid}")));
    }
    Ok(proto::ThreadCoreEntry {
        sched_nice: Some(20 - nice as i32),
        sched_policy: Some(policy as u32),
        sched_prio: (priority != 0).then_some(priority.cast_unsigned()),
        ..Default::default()
    })
}
