//! Bringing a portable process to its equivalence points (`docs/architecture.md`, invariant 7).
//!
//! ```text
//!   stopped ──already in the stub's call──────────────────────────────▶ parked: pc at the restart label,
//!      │                                                                   ▲     sp at the record
//!      └─ polls become jumps ─▶ runs ─▶ about to make the stub's call ─────┘
//!                                │            │ in a signal handler: polls become nops, the call is made,
//!                                │            ▼ until rt_sigreturn
//!                                └── anything else the stubs call goes on
//! ```
//!
//! Meanwhile all signals but those of its own instructions stay blocked, so that new ones keep waiting in
//! the kernel, in order and with their siginfo. From the moment its call is cancelled the thread, left
//! alone, makes the call again by itself: what is dumped and what runs on are the same state.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isamorph_arch::{RegisterFile, RemoteAddr, syscall_record as record};

use super::guard::{REPAIR_LIMIT, Undo};
use super::polls::Text;
use super::stall::stall;
use super::{Error, Log, Result};
use crate::portable::Executable;
use crate::tracee::errand::quiet_mask;
use crate::tracee::host::{self, Interrupted, SYSCALL_LEN};
use crate::tracee::process::Waited;
use crate::tracee::{Errand, Memory, Running, Stop, Stopped, Watch, maps, proc::BlockedCall};

/// Neutral numbers of calls that return EINTR for a mere stop, and that are the same when made again:
/// io_getevents, epoll_pwait, epoll_pwait2, rt_sigtimedwait, semtimedop, semop, accept(4), recvfrom, recvmsg, recvmmsg.
const EINTR_IS_OURS: [u64; 11] = [4, 22, 441, 137, 192, 193, 202, 242, 207, 212, 243];
/// rt_sigreturn, natively.
const RT_SIGRETURN: u64 = libc::SYS_rt_sigreturn as u64;
/// How long a thread may run before it is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// A process on its way to being parked, and what was changed in it.
#[derive(Debug)]
pub struct Parking<'a> {
    /// Its thread, while it is stopped.
    pub stopped: Option<Stopped>,
    /// Shared with whoever repairs if we die.
    pub undo: &'a Undo,
    /// Where to say what happens.
    pub log: &'a Log,
    /// Its ID.
    pub pid: i32,
}

impl Parking<'_> {
    /// The stopped thread.
    ///
    /// # Errors
    /// It runs.
    pub fn stopped(&mut self) -> Result<&mut Stopped> {
        self.stopped.as_mut().ok_or_else(super::freeze::lost)
    }

    fn quiet(&mut self) -> Result<()> {
        let mask = self.stopped()?.sigmask()?;
        self.undo.mask.store(mask, Ordering::SeqCst);
        self.undo.masked.store(true, Ordering::SeqCst);
        Ok(self.stopped()?.set_sigmask(mask | quiet_mask())?)
    }

    fn unquiet(&mut self) -> Result<()> {
        let mask = self.undo.mask.load(Ordering::SeqCst);
        self.stopped()?.set_sigmask(mask)?;
        self.undo.masked.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn patch(&mut self, text: &Text<'_>) -> Result<()> {
        self.undo.patched.store(true, Ordering::SeqCst);
        text.patch(&self.stopped()?.memory()?)
    }

    fn unpatch(&mut self, text: &Text<'_>) -> Result<()> {
        text.unpatch(&self.stopped()?.memory()?)?;
        self.undo.patched.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// After a failure: stops the process if need be, puts everything back, lets it go.
    pub fn abandon(mut self) {
        if let Err(error) = self.put_back() {
            self.log.error(&format!("letting process {} go on: {error}", self.pid));
        }
    }

    fn put_back(&mut self) -> Result<()> {
        let mut stopped = match self.stopped.take() {
            Some(stopped) => stopped,
            None => {
                let mut watch = Watch::new(None, None)?;
                watch.relax(REPAIR_LIMIT);
                Running::new_unchecked(self.pid).interrupt(&watch)?.0
            }
        };
        undo_all(self.pid, &mut stopped, self.undo)?;
        Ok(stopped.detach()?)
    }
}

fn undo_all(pid: i32, stopped: &mut Stopped, undo: &Undo) -> Result<()> {
    if undo.patched.load(Ordering::SeqCst) {
        let bytes = crate::tracee::proc::read(pid, "exe")?;
        let executable = Executable::parse(bytes).map_err(|source| Error::Portable { pid, source })?;
        Text::new(pid, &executable)?.unpatch(&stopped.memory()?)?;
        undo.patched.store(false, Ordering::SeqCst);
    }
    if undo.masked.load(Ordering::SeqCst) {
        stopped.set_sigmask(undo.mask.load(Ordering::SeqCst))?;
        undo.masked.store(false, Ordering::SeqCst);
    }
    Ok(())
}

/// Puts back what a worker that died had changed. The kernel has let its tracee go.
///
/// # Errors
/// The process cannot be stopped.
pub fn repair(pid: i32, undo: &Undo) -> Result<()> {
    let mut watch = Watch::new(None, None)?;
    watch.relax(REPAIR_LIMIT);
    let (mut stopped, _) = Running::seize(pid)?.interrupt(&watch)?;
    undo_all(pid, &mut stopped, undo)?;
    Ok(stopped.detach()?)
}

/// Where a portable executable has the instructions of an errand: the call before its signal restorer.
#[must_use]
pub fn gadget(executable: &Executable) -> Option<RemoteAddr> {
    RemoteAddr(executable.manifest.restore_rt).checked_sub(SYSCALL_LEN)
}

/// Parks a stopped process; returns the registers of its thread.
///
/// # Errors
/// It did not get there before the deadline; its text is not its file's; it died.
pub fn park(
    parking: &mut Parking<'_>,
    executable: &Executable,
    watch: &Watch,
    before: Option<&BlockedCall>,
) -> Result<RegisterFile> {
    let pid = parking.pid;
    let text = Text::new(pid, executable)?;
    let memory = parking.stopped()?.memory()?;
    if text.repair(&memory)? {
        parking.log.warn("the text was left patched by a dump that was killed; repaired");
    }
    parking.quiet()?;
    stall("masked", watch)?;
    let mut stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
    let mut place = place_of(&stopped, executable, &memory, before)?;
    let begun = Instant::now();
    if !matches!(place, Place::Stub) {
        let mut patched = false;
        let mut leaving = false;
        let mut signal = 0;
        loop {
            parking.stopped = Some(stopped);
            // In a handler the polls stay nops: what it forks must not inherit jumps.
            let want = !matches!(place, Place::Handler);
            if want != patched {
                if want {
                    parking.patch(&text)?;
                    stall("patched", watch)?;
                } else {
                    parking.unpatch(&text)?;
                }
                patched = want;
            }
            let Some(thread) = parking.stopped.take() else { return Err(super::freeze::lost()) };
            let running = thread.resume_to_syscall(std::mem::take(&mut signal))?;
            stall("running", watch)?;
            let stop;
            (stopped, stop) = next_stop(running, watch, executable, begun)?;
            match stop {
                Stop::Entry(number) => {
                    let registers = stopped.registers()?;
                    let insn = registers.pc().0.wrapping_sub(SYSCALL_LEN);
                    leaving = number == RT_SIGRETURN;
                    let stub = insn == executable.manifest.syscall_insn || insn == executable.manifest.gate_insn;
                    if stub && !in_handler(&memory, executable, &registers)? {
                        let mut registers = registers;
                        host::cancel_syscall(pid, &mut registers)?;
                        registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
                        stopped.set_registers(&registers)?;
                        parking.stopped = Some(stopped);
                        stall("cancelled", watch)?;
                        let thread = parking.stopped()?;
                        let stop = thread.step_to_interrupt()?;
                        parking.log.debug(&format!("call cancelled, then {stop:?}"));
                        stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
                        break;
                    }
                    place = if stub { Place::Handler } else { place };
                }
                Stop::Exit(_) => {
                    if std::mem::take(&mut leaving) {
                        // The mask is what it was before the handler.
                        parking.stopped = Some(stopped);
                        parking.quiet()?;
                        stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
                        place = Place::Elsewhere;
                    }
                }
                Stop::Interrupted | Stop::Group(_) => {
                    place = place_of(&stopped, executable, &memory, None)?;
                    if matches!(place, Place::Stub) {
                        break;
                    }
                }
                // Only those that its own instructions raise are not blocked.
                Stop::Signal(number) => signal = number,
                Stop::Event(event) => {
                    parking.stopped = Some(stopped);
                    new_process(parking, event, &text, patched)?;
                    stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
                }
            }
        }
        parking.stopped = Some(stopped);
        stall("parked", watch)?;
        if patched {
            parking.unpatch(&text)?;
        }
        stall("unpatched", watch)?;
        stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
    }
    let parked = at_restart(&stopped, executable)?;
    stopped.set_registers(&parked)?;
    let flags = RemoteAddr(parked.sp().0.wrapping_add(record::FLAGS));
    memory.write(flags, &(memory.read_u64(flags)? | record::FLAG_RESUMED).to_le_bytes())?;
    parking.stopped = Some(stopped);
    parking.unquiet()?;
    drop_copies(parking, &text, parked, executable)?;
    parking.log.info(&format!("process {pid} is parked after {:?}", begun.elapsed()));
    Ok(parked)
}

/// Registers of a thread in the stub, to go on at the restart label.
fn at_restart(stopped: &Stopped, executable: &Executable) -> Result<RegisterFile> {
    let mut registers = stopped.registers()?;
    if let RegisterFile::X86_64(regs) = &mut registers {
        // No call is being restarted by the kernel: rax is no number to it.
        (regs.orig_rax, regs.rax) = (u64::MAX, 0);
    }
    registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
    Ok(registers)
}

/// Where a thread is, as far as parking it goes.
#[derive(Debug)]
enum Place {
    /// In the stub, at its call, which was not made yet or is made again.
    Stub,
    /// Inside a signal handler.
    Handler,
    /// In the program.
    Elsewhere,
}

fn place_of(
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

/// Whether the chain of frame pointers passes a frame that returns to the signal restorer. Exact in the
/// stub; elsewhere the first frame may be missing, which the next look makes good.
fn in_handler(memory: &Memory, executable: &Executable, registers: &RegisterFile) -> Result<bool> {
    // No stack holds more frames than this.
    const MAX_FRAMES: usize = 1 << 24;
    let manifest = &executable.manifest;
    let mut fp = registers.fp().0;
    for _ in 0..MAX_FRAMES {
        let mut frame = [0u8; 16];
        if !fp.is_multiple_of(8) || memory.read(RemoteAddr(fp), &mut frame).is_err() {
            return Ok(false);
        }
        let word = |i: usize| u64::from_le_bytes(frame[8 * i..8 * i + 8].try_into().unwrap_or_default());
        let (next, ret) = (word(0), word(1));
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

/// The next stop of a thread that runs, looked at now and then; too long is an error that says where it is.
fn next_stop(running: Running, watch: &Watch, executable: &Executable, begun: Instant) -> Result<(Stopped, Stop)> {
    let pid = running.pid();
    match running.wait_for(watch, LOOK)? {
        Waited::Stopped(stopped, stop) => Ok((stopped, stop)),
        Waited::Running(running) => {
            running.ask_to_stop()?;
            let mut grace = Watch::new(None, None)?;
            grace.relax(REPAIR_LIMIT);
            let (stopped, stop) = running.wait(&grace, "it is in uninterruptible sleep")?;
            if watch.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                let pc = stopped.registers()?.pc();
                // The caller lost its hold on the thread: letting it run keeps `abandon` simple.
                drop(stopped.resume(0)?);
                return Err(Error::NotParked {
                    pid,
                    timeout: begun.elapsed(),
                    place: format!("is at {} ({pc})", executable.name(pc)),
                    remedy: "try a longer --timeout, or --no-park to dump it as it is",
                });
            }
            Ok((stopped, stop))
        }
    }
}

/// A process that a signal handler started, or another program that it executed.
fn new_process(parking: &mut Parking<'_>, event: i32, text: &Text<'_>, patched: bool) -> Result<()> {
    let pid = parking.pid;
    if event == libc::PTRACE_EVENT_EXEC {
        parking.undo.patched.store(false, Ordering::SeqCst);
        return Err(Error::Tracee(crate::tracee::Error::Unexpected {
            pid,
            got: "it executed another program".into(),
            expected: "an equivalence point",
        }));
    }
    let child = crate::tracee::sys::event_message(pid)? as i32;
    let mut grace = Watch::new(None, None)?;
    grace.relax(REPAIR_LIMIT);
    let (stopped, _) = Running::new_unchecked(child).wait(&grace, "it was just started")?;
    if patched && event != libc::PTRACE_EVENT_CLONE {
        text.unpatch(&stopped.memory()?)?;
    }
    parking.log.warn(&format!("a signal handler started process {child}"));
    Ok(stopped.detach()?)
}

/// The pages that patching copied are given back by the process itself.
fn drop_copies(
    parking: &mut Parking<'_>,
    text: &Text<'_>,
    registers: RegisterFile,
    executable: &Executable,
) -> Result<()> {
    let stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
    let mappings = match maps::read(parking.pid) {
        Ok(mappings) => mappings,
        Err(error) => {
            parking.stopped = Some(stopped);
            return Err(error.into());
        }
    };
    match Errand::begin(stopped, registers, &mappings, gadget(executable)) {
        Ok(mut errand) => {
            let result = text.drop_copies(&mut errand);
            parking.stopped = Some(errand.finish()?);
            result
        }
        Err((stopped, error)) => {
            parking.stopped = Some(stopped);
            Err(error.into())
        }
    }
}
