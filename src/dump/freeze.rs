//! Stopping a process, and letting it go again.
use std::sync::atomic::Ordering;

use isamorph_arch::{RegisterFile, RemoteAddr};

use super::guard::{Slot, Undo};
use super::stall::stall;
use super::survey::Survey;
use super::threads::{Thread, Threads};
use super::{After, Error, Log, Result, park};
use crate::tracee::host::{self, Interrupted};
use crate::tracee::proc::Status;
use crate::tracee::{self, Running, Stopped, Watch, sys};

/// A process that we stopped.
#[derive(Debug)]
pub struct Frozen {
    /// Its threads, the leader first; there is always one.
    pub threads: Vec<FrozenThread>,
    /// It was stopped by SIGSTOP or the like before.
    pub group_stopped: bool,
    /// It is at an equivalence point.
    pub parked: bool,
    /// Of a parked process: where its stub's calls are.
    pub calls: Option<[RemoteAddr; 2]>,
    /// Where its executable has the instructions of an errand.
    pub gadget: Option<RemoteAddr>,
}

/// A thread that we stopped.
#[derive(Debug)]
pub struct FrozenThread {
    /// Its ID.
    pub tid: i32,
    /// Itself; `None` if it was lost in a failed errand.
    pub stopped: Option<Stopped>,
    /// What it would go on with here: handed back to the kernel as it was.
    pub registers: RegisterFile,
    /// What it goes on with anywhere: a call that it was blocked in is made again.
    pub resumable: RegisterFile,
    /// Its restartable-sequences registration.
    pub rseq: Option<sys::Rseq>,
    slot: Slot,
}

/// Stops the process; parks it if it is portable.
///
/// # Errors
/// It dies, does not stop in time, or has state that only shows when it is stopped. It goes on then.
pub fn freeze(survey: &Survey, watch: &Watch, undo: &Undo, log: &Log) -> Result<Frozen> {
    let pid = survey.pid;
    let mut threads = Threads::seize(pid, undo, log)?;
    match settle(&mut threads, survey, watch) {
        Ok(settled) => {
            let gadget = survey.portable.as_ref().and_then(park::gadget);
            let calls =
                survey.portable.as_ref().map(|e| [e.manifest.syscall_insn, e.manifest.gate_insn].map(RemoteAddr));
            let group_stopped = threads.group_stopped;
            let frozen = threads.all.into_iter().zip(settled).map(|(thread, settled)| FrozenThread {
                tid: thread.tid,
                stopped: thread.stopped,
                registers: settled.registers,
                resumable: settled.resumable,
                rseq: settled.rseq,
                slot: thread.slot,
            });
            Ok(Frozen { threads: frozen.collect(), group_stopped, parked: survey.portable.is_some(), calls, gadget })
        }
        Err(error) => {
            threads.abandon();
            Err(error)
        }
    }
}

/// What is known of a thread once it stands still.
struct Settled {
    registers: RegisterFile,
    resumable: RegisterFile,
    rseq: Option<sys::Rseq>,
}

fn settle(threads: &mut Threads<'_>, survey: &Survey, watch: &Watch) -> Result<Vec<Settled>> {
    let pid = survey.pid;
    stall("seized", watch)?;
    threads.stop(watch)?;
    let (count, pc) = (threads.all.len(), threads.leader()?.registers()?.pc());
    threads.log.info(&format!("process {pid} stopped at {pc}, {count} threads"));
    stall("stopped", watch)?;
    for thread in &threads.all {
        if let Some(what) = host::unsupported_state(thread.tid)? {
            return Err(Error::Unsupported {
                pid,
                what: what.into(),
                reason: "no image can carry that",
                remedy: "try again at another moment, or run it without".into(),
            });
        }
    }
    if let Some(executable) = &survey.portable {
        let parked = park::park(threads, executable, watch)?;
        let settled = threads.all.iter().zip(parked).map(|(thread, registers)| {
            Ok(Settled { registers, resumable: registers, rseq: sys::get_rseq(thread.tid)? })
        });
        return settled.collect();
    }
    // Signals for the process as a whole that interrupt the call of a thread: of one only.
    let mut taken = 0;
    let log = threads.log;
    threads.all.iter_mut().map(|thread| settle_ordinary(thread, &mut taken, log)).collect()
}

fn settle_ordinary(thread: &mut Thread, taken: &mut u64, log: &Log) -> Result<Settled> {
    let (tid, before) = (thread.tid, thread.before);
    let before = before.as_ref();
    let stopped = thread.stopped()?;
    let mut registers = stopped.registers()?;
    leave_sequence(stopped, &mut registers)?;
    // A signal that is waiting interrupts the call all by itself, here and after a restore.
    let status = Status::read(tid)?;
    let shared = status.pending[1] & !status.blocked & !*taken;
    *taken |= shared;
    let deliverable = status.pending[0] & !status.blocked | shared;
    let mut resumable = host::fresh_call(&registers, before);
    registers = host::continued_call(&registers, before);
    if host::interrupted(&registers, before) == Interrupted::Eintr {
        if deliverable == 0 {
            log.info(&format!("thread {tid}: EINTR was our doing: the call is made again"));
            registers = resumable;
        } else {
            resumable = registers;
        }
    }
    Ok(Settled { registers, resumable, rseq: sys::get_rseq(tid)? })
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
    /// The leader: what concerns the process as a whole is asked of it.
    ///
    /// # Errors
    /// There is none, which cannot be.
    pub fn leader(&self) -> Result<&FrozenThread> {
        self.threads.first().ok_or_else(lost)
    }
}

impl FrozenThread {
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
pub fn conclude(frozen: Frozen, after: After, undo: &Undo, log: &Log) -> Result<()> {
    match after {
        After::Kill => {
            let pid = frozen.leader()?.tid;
            log.info(&format!("killing process {pid}"));
            // SAFETY: a plain system call.
            if unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
                return Err(Error::last_os(format!("killing process {pid}")));
            }
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let watch = Watch::new(None, Some(deadline))?;
            // The deaths are ours to collect as their tracer, that of the leader after all others; then its parent's.
            for thread in frozen.threads.into_iter().rev().filter(|thread| thread.stopped.is_some()) {
                collect_death(thread.tid, &watch)?;
            }
            Ok(())
        }
        After::Run | After::Stop => go_on(frozen, after == After::Stop, undo),
    }
}

fn collect_death(tid: i32, watch: &Watch) -> Result<()> {
    loop {
        let stopped = match Running::new_unchecked(tid).wait(watch, "it was killed") {
            Err(error) if error.is_death() => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok((stopped, _)) => stopped,
        };
        match stopped.resume(0) {
            Err(error) if !error.is_death() => return Err(error.into()),
            _ => {}
        }
    }
}

/// Lets the process go on after a failed dump.
pub fn release(frozen: Frozen, undo: &Undo, log: &Log) {
    if let Err(error) = go_on(frozen, false, undo) {
        log.error(&format!("letting the process go on: {error}"));
    }
}

fn go_on(mut frozen: Frozen, stop: bool, undo: &Undo) -> Result<()> {
    let pid = frozen.leader()?.tid;
    for thread in &mut frozen.threads {
        let Some(stopped) = &mut thread.stopped else { continue };
        stopped.set_registers(&thread.registers)?;
        if let Some(calls) = frozen.calls {
            park::enter_call(stopped, calls, undo, thread.slot)?;
        }
    }
    if stop {
        // SAFETY: a plain system call.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
    for thread in frozen.threads.into_iter().rev() {
        let Some(stopped) = thread.stopped else { continue };
        stopped.detach()?;
    }
    Ok(())
}

/// Marks the dump as complete: from here on, images stay.
pub fn commit(undo: &Undo) {
    undo.complete.store(true, Ordering::SeqCst);
}
