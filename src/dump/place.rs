//! Where a stopped thread is, as far as parking it goes.
use isamorph_arch::{RegisterFile, RemoteAddr};

use super::Result;
use crate::portable::Executable;
use crate::tracee::host::{self, Interrupted};
use crate::tracee::proc::BlockedCall;
use crate::tracee::{Memory, Stopped};

/// Neutral numbers of calls that return EINTR for a mere stop, and that are the same when made again:
/// io_getevents, epoll_pwait, epoll_pwait2, rt_sigtimedwait, semtimedop, semop, accept(4), recvfrom, recvmsg, recvmmsg.
const EINTR_IS_OURS: [u64; 11] = [4, 22, 441, 137, 192, 193, 202, 242, 207, 212, 243];

/// Where a thread is, as far as parking it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the stub, at its call, which was not made yet or is made again.
    Stub,
    /// Inside a signal handler.
    Handler,
    /// In the program.
    #[default]
    Elsewhere,
}

/// Where it is; `before` is the call that it was blocked in before it was stopped.
///
/// # Errors
/// The process is gone.
pub fn place_of(
    stopped: &Stopped,
    executable: &Executable,
    memory: &Memory,
    before: Option<&BlockedCall>,
) -> Result<Place> {
    let registers = stopped.registers()?;
    if in_handler(memory, executable, &registers)? {
        return Ok(Place::Handler);
    }
    let manifest = &executable.manifest;
    let stub = |at: u64| at == manifest.syscall_insn || at == manifest.gate_insn;
    let there = match host::interrupted(&registers, before) {
        // The call is still to be made; aarch64 has also moved a call back that will be made again.
        Interrupted::No => registers.pc().0 == manifest.syscall_insn || registers.pc().0 == manifest.gate_insn,
        Interrupted::Restarts => stub(host::interrupted_at(&registers).0),
        Interrupted::Eintr => {
            stub(host::interrupted_at(&registers).0) && {
                let number = memory.read_u64(registers.sp())?;
                EINTR_IS_OURS.contains(&number)
            }
        }
    };
    let restart = registers.pc().0 == manifest.syscall_restart;
    Ok(if there || restart { Place::Stub } else { Place::Elsewhere })
}

/// Whether the thread returns to the signal restorer, at once or by the chain of frame pointers. Exact in the stub and
/// at a handler's first instruction; elsewhere the first frame may be missing, which the next look makes good.
///
/// # Errors
/// The process is gone.
pub fn in_handler(memory: &Memory, executable: &Executable, registers: &RegisterFile) -> Result<bool> {
    // No stack holds more frames than this. They are read by the window, for there may be hundred thousands.
    const MAX_FRAMES: usize = 1 << 24;
    const WINDOW: usize = 1 << 16;
    let manifest = &executable.manifest;
    let innermost = match registers {
        RegisterFile::X86_64(r) => memory.read_u64(RemoteAddr(r.rsp)).unwrap_or(0),
        RegisterFile::Aarch64(r) => r.x[30],
    };
    if innermost == manifest.restore_rt {
        return Ok(true);
    }
    let mut fp = registers.fp().0;
    let (mut start, mut window) = (0u64, Vec::new());
    for _ in 0..MAX_FRAMES {
        if !fp.is_multiple_of(8) {
            return Ok(false);
        }
        if fp < start || fp - start + 16 > window.len() as u64 {
            (start, window) = (fp, memory.read_some(RemoteAddr(fp), WINDOW)?);
            if window.len() < 16 {
                return Ok(false);
            }
        }
        let at = (fp - start) as usize;
        let word = |at: usize| u64::from_le_bytes(window[at..at + 8].try_into().unwrap_or_default());
        let (next, ret) = (word(at), word(at + 8));
        if ret == manifest.restore_rt {
            return Ok(true);
        }
        if next <= fp || manifest.root_ret.contains(&ret) {
            return Ok(false);
        }
        fp = next;
    }
    Ok(false)
}

/// Registers of a thread in the stub, to go on at the restart label.
///
/// # Errors
/// The process is gone.
pub fn at_restart(stopped: &Stopped, executable: &Executable) -> Result<RegisterFile> {
    let mut registers = stopped.registers()?;
    if let RegisterFile::X86_64(regs) = &mut registers {
        // No call is being restarted by the kernel: rax is no number to it.
        (regs.orig_rax, regs.rax) = (u64::MAX, 0);
    }
    registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
    Ok(registers)
}
