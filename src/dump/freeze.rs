//! Stopping a process, and letting it go again.
use std::sync::atomic::Ordering;

use isamorph_arch::{RegisterFile, RemoteAddr};

use super::guard::Undo;
use super::stall::stall;
use super::survey::Survey;
use super::{After, Error, Log, Result, park};
use crate::tracee::host::{self, Interrupted};
use crate::tracee::proc::{BlockedCall, Status};
use crate::tracee::{self, Running, Stop, Stopped, Watch, sys};

/// A process that we stopped.
#[derive(Debug)]
pub struct Frozen {
    /// Its thread.
    pub stopped: Option<Stopped>,
    /// What it would go on with here: handed back to the kernel as it was.
    pub registers: RegisterFile,
    /// What it goes on with anywhere: a call that it was blocked in is made again.
    pub resumable: RegisterFile,
    /// It was stopped by SIGSTOP or the like before.
    pub group_stopped: bool,
    /// It is at an equivalence point.
    pub parked: bool,
    /// Of a parked process: where its stub's calls are.
    pub calls: Option<[RemoteAddr; 2]>,
    /// Where its executable has the instructions of an errand.
    pub gadget: Option<RemoteAddr>,
    /// Its restartable-sequences registration.
    pub rseq: Option<sys::Rseq>,
}

/// Stops the process; parks it if it is portable.
///
/// # Errors
/// It dies, does not stop in time, or has state that only shows when it is stopped. It goes on then.
pub fn freeze(survey: &Survey, watch: &Watch, undo: &Undo, log: &Log) -> Result<Frozen> {
    let pid = survey.pid;
    let running = Running::seize(pid)?;
    stall("seized", watch)?;
    // What it is blocked in shows only before: a stop makes aarch64 forget.
    let before = BlockedCall::read(pid)?;
    let (stopped, stop) = running.interrupt(watch)?;
    let group_stopped = matches!(stop, Stop::Group(_));
    log.info(&format!("process {pid} stopped at {}", stopped.registers()?.pc()));
    let mut parking = park::Parking { stopped: Some(stopped), undo, log, pid, group_stopped };
    let outcome = settle(&mut parking, survey, watch, before.as_ref());
    match outcome {
        Ok((registers, resumable, parked)) => {
            let rseq = sys::get_rseq(pid)?;
            let gadget = survey.portable.as_ref().and_then(park::gadget);
            let calls =
                survey.portable.as_ref().map(|e| [e.manifest.syscall_insn, e.manifest.gate_insn].map(RemoteAddr));
            let (stopped, group_stopped) = (parking.stopped.take(), parking.group_stopped);
            Ok(Frozen { stopped, registers, resumable, group_stopped, parked, calls, gadget, rseq })
        }
        Err(error) => {
            parking.abandon();
            Err(error)
        }
    }
}

type Settled = (RegisterFile, RegisterFile, bool);

fn settle(
    parking: &mut park::Parking<'_>,
    survey: &Survey,
    watch: &Watch,
    before: Option<&BlockedCall>,
) -> Result<Settled> {
    let pid = survey.pid;
    stall("stopped", watch)?;
    if let Some(what) = host::unsupported_state(pid)? {
        return Err(Error::Unsupported {
            pid,
            what: what.into(),
            reason: "no image can carry that",
            remedy: "try again at another moment, or run it without".into(),
        });
    }
    if let Some(executable) = &survey.portable {
        let parked = park::park(parking, executable, watch, before)?;
        return Ok((parked, parked, true));
    }
    let stopped = parking.stopped()?;
    let mut registers = stopped.registers()?;
    leave_sequence(stopped, &mut registers)?;
    // A signal that is waiting interrupts the call all by itself, here and after a restore.
    let status = Status::read(pid)?;
    let mut resumable = host::fresh_call(&registers, before);
    registers = host::continued_call(&registers, before);
    if host::interrupted(&registers, before) == Interrupted::Eintr {
        if status.deliverable() == 0 {
            parking.log.info("EINTR was our doing: the call is made again");
            registers = resumable;
        } else {
            resumable = registers;
        }
    }
    Ok((registers, resumable, false))
}

/// A thread inside a restartable sequence is sent to the abort handler, as the kernel would on any
/// preemption (`include/uapi/linux/rseq.h`).
fn leave_sequence(stopped: &Stopped, registers: &mut RegisterFile) -> Result<()> {
    let Some(rseq) = sys::get_rseq(stopped.pid())?.filter(|r| r.pointer != 0) else { return Ok(()) };
    let memory = stopped.memory()?;
    let Some(at) = RemoteAddr(rseq.pointer).checked_add(8) else { return Ok(()) };
    let descriptor = memory.read_u64(at)?;
    if descriptor == 0 {
        return Ok(());
    }
    // struct rseq_cs: u32 version, flags; u64 start_ip, post_commit_offset, abort_ip.
    let words = memory.read_vec(RemoteAddr(descriptor), 32)?;
    let word = |i: usize| u64::from_le_bytes(words[8 * i..8 * i + 8].try_into().unwrap_or_default());
    if registers.pc().0.wrapping_sub(word(1)) < word(2) {
        registers.set_pc(RemoteAddr(word(3)));
    }
    Ok(())
}

impl Frozen {
    /// The stopped thread.
    ///
    /// # Errors
    /// It was lost in a failed errand.
    pub fn stopped(&self) -> Result<&Stopped> {
        self.stopped.as_ref().ok_or_else(lost)
    }
}

/// The error of a thread that died on an errand.
pub(super) fn lost() -> Error {
    Error::Tracee(tracee::Error::Died { pid: 0, how: "on an errand".into() })
}

/// Ends the freeze after a successful dump.
///
/// # Errors
/// The process is gone already.
pub fn conclude(mut frozen: Frozen, after: After, undo: &Undo, log: &Log) -> Result<()> {
    match after {
        After::Kill => {
            let Some(stopped) = frozen.stopped.take() else { return Ok(()) };
            let pid = stopped.pid();
            log.info(&format!("killing process {pid}"));
            // SAFETY: a plain system call.
            if unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
                return Err(Error::last_os(format!("killing process {pid}")));
            }
            // The death is ours to collect as its tracer; then its parent's.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let watch = Watch::new(None, Some(deadline))?;
            let mut running = match stopped.resume(0) {
                Ok(running) => running,
                Err(error) if error.is_death() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            loop {
                match running.wait(&watch, "it was killed") {
                    Err(error) if error.is_death() => return Ok(()),
                    Err(error) => return Err(error.into()),
                    Ok((stopped, _)) => running = stopped.resume(0)?,
                }
            }
        }
        After::Run | After::Stop => go_on(frozen, after == After::Stop, undo),
    }
}

/// Lets the process go on after a failed dump.
pub fn release(frozen: Frozen, undo: &Undo, log: &Log) {
    if let Err(error) = go_on(frozen, false, undo) {
        log.error(&format!("letting the process go on: {error}"));
    }
}

fn go_on(frozen: Frozen, stop: bool, undo: &Undo) -> Result<()> {
    let Some(mut stopped) = frozen.stopped else { return Ok(()) };
    stopped.set_registers(&frozen.registers)?;
    if let Some(calls) = frozen.calls {
        park::enter_call(&mut stopped, calls, undo)?;
    }
    if stop {
        // SAFETY: a plain system call.
        unsafe { libc::kill(stopped.pid(), libc::SIGSTOP) };
    }
    Ok(stopped.detach()?)
}

/// Marks the dump as complete: from here on, images stay.
pub fn commit(undo: &Undo) {
    undo.complete.store(true, Ordering::SeqCst);
}
