//! Bringing a portable process to its equivalence points (`docs/architecture.md`, invariant 7).
//!
//! ```text
//!   stopped ─▶ signals that wait for it are let in
//!      ├── already in the stub's call ───────────────────────────────────▶ parked: pc at the restart label,
//!      │                                                                   ▲     sp at the record
//!      └─ polls become jumps ─▶ runs ─▶ about to make the stub's call ─────┘
//!                                │            │ in a signal handler: polls become nops, the mask is its own,
//!                                │            ▼ until rt_sigreturn
//!                                └── anything else the stubs call goes on
//! ```
//!
//! Signals that could be delivered when the thread is stopped are: they end a call that they interrupt, and
//! sigprocmask(2) and kill(2) promise that one is delivered before they return. From then on all but those of the
//! thread's own instructions stay blocked outside handlers, so that new ones keep waiting in the kernel, in order and
//! with their siginfo; [`enter_call`] lets them in where they would have come in: in the call. From the moment its
//! call is cancelled the thread, left alone, makes the call again by itself: what is dumped and what runs on are
//! the same state.
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
use crate::tracee::proc::{BlockedCall, Status};
use crate::tracee::process::Waited;
use crate::tracee::{Errand, Memory, Running, Stop, Stopped, Watch, maps};

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
    /// Job control has stopped it (SIGSTOP, which nothing blocks).
    pub group_stopped: bool,
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
    let_signals_in(parking, watch)?;
    let begun = Instant::now();
    let mut place = place_of(parking.stopped()?, executable, &memory, before)?;
    let mut armed = false;
    let mut leaving = false;
    let mut signal = 0;
    loop {
        // A handler runs with its own mask, and its polls stay nops: what it forks must not inherit jumps.
        let arm = place != Place::Handler;
        if arm && !armed {
            parking.quiet()?;
            stall("masked", watch)?;
        }
        if place == Place::Stub {
            break;
        }
        if arm && !armed {
            parking.patch(&text)?;
            stall("patched", watch)?;
        } else if !arm && armed {
            parking.unpatch(&text)?;
            parking.unquiet()?;
        }
        armed = arm;
        let Some(thread) = parking.stopped.take() else { return Err(super::freeze::lost()) };
        let running = thread.resume_to_syscall(std::mem::take(&mut signal))?;
        stall("running", watch)?;
        let (stopped, stop) = next_stop(running, watch, executable, begun, place)?;
        parking.stopped = Some(stopped);
        match stop {
            Stop::Entry(number) => {
                let mut registers = parking.stopped()?.registers()?;
                let insn = registers.pc().0.wrapping_sub(SYSCALL_LEN);
                leaving = number == RT_SIGRETURN;
                let stub = insn == executable.manifest.syscall_insn || insn == executable.manifest.gate_insn;
                if stub && in_handler(&memory, executable, &registers)? {
                    place = Place::Handler;
                } else if stub {
                    // Out of the handler by a jump, maybe.
                    if !armed {
                        parking.quiet()?;
                    }
                    host::cancel_syscall(pid, &mut registers)?;
                    registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
                    parking.stopped()?.set_registers(&registers)?;
                    stall("cancelled", watch)?;
                    let stop = parking.stopped()?.step_to_interrupt()?;
                    parking.log.debug(&format!("call cancelled, then {stop:?}"));
                    break;
                }
            }
            // Back where the handler came in, or in the handler that it came into.
            Stop::Exit(_) if std::mem::take(&mut leaving) => {
                if armed {
                    // The mask is the one from before the handler now.
                    parking.quiet()?;
                }
                let registers = parking.stopped()?.registers()?;
                let within = in_handler(&memory, executable, &registers)?;
                place = if within { Place::Handler } else { Place::Elsewhere };
            }
            Stop::Exit(_) => {}
            Stop::Interrupted | Stop::Group(_) => {
                parking.group_stopped |= matches!(stop, Stop::Group(_));
                place = place_of(parking.stopped()?, executable, &memory, None)?;
            }
            // Only those that its own instructions raise are blocked nowhere.
            Stop::Signal(number) => {
                parking.group_stopped &= number != libc::SIGCONT;
                signal = number;
            }
            Stop::Event(event) => new_process(parking, event, &text, armed)?,
        }
    }
    stall("parked", watch)?;
    if parking.undo.patched.load(Ordering::SeqCst) {
        parking.unpatch(&text)?;
    }
    stall("unpatched", watch)?;
    let mut stopped = parking.stopped.take().ok_or_else(super::freeze::lost)?;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Whether the thread returns to the signal restorer, at once or by the chain of frame pointers. Exact in the stub and
/// at a handler's first instruction; elsewhere the first frame may be missing, which the next look makes good.
fn in_handler(memory: &Memory, executable: &Executable, registers: &RegisterFile) -> Result<bool> {
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

/// The next stop of a thread that runs, looked at now and then; too long is an error that says where it is.
fn next_stop(
    mut running: Running,
    watch: &Watch,
    executable: &Executable,
    begun: Instant,
    place: Place,
) -> Result<(Stopped, Stop)> {
    let pid = running.pid();
    loop {
        running = match running.wait_for(watch, LOOK)? {
            Waited::Stopped(stopped, stop) => return Ok((stopped, stop)),
            Waited::Running(running) => running,
        };
        let late = watch.deadline().is_some_and(|deadline| deadline <= Instant::now());
        // A look would interrupt a call that a handler is blocked in; its end shows by itself.
        if late || place != Place::Handler || BlockedCall::read(pid)?.is_none() {
            running.ask_to_stop()?;
            let mut grace = Watch::new(None, None)?;
            grace.relax(REPAIR_LIMIT);
            let (stopped, stop) = running.wait(&grace, "it is in uninterruptible sleep")?;
            if late {
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
            return Ok((stopped, stop));
        }
    }
}

/// Delivers what can be delivered to a thread that was just stopped: each comes in where the thread is, in the order of
/// the kernel, and the thread stops again before its first instruction.
fn let_signals_in(parking: &mut Parking<'_>, watch: &Watch) -> Result<()> {
    // With SA_NODEFER a handler's own signal may come in again and again: as deep as that, they can wait.
    const MAX_NESTED: usize = 64;
    for _ in 0..MAX_NESTED {
        if Status::read(parking.pid)?.deliverable() == 0 {
            return Ok(());
        }
        let Some(thread) = parking.stopped.take() else { return Err(super::freeze::lost()) };
        let (stopped, stop) = thread.resume(0)?.wait(watch, "a signal is to be delivered")?;
        parking.log.debug(&format!("let in: {stop:?}"));
        match stop {
            Stop::Signal(signal) => {
                parking.group_stopped &= signal != libc::SIGCONT;
                let running = stopped.resume_to_stop(signal)?;
                let (stopped, stop) = running.wait(watch, "a signal was delivered")?;
                parking.group_stopped |= matches!(stop, Stop::Group(_));
                parking.stopped = Some(stopped);
            }
            // Somebody else took it (a signalfd, say), or it was no signal that stops a traced thread.
            _ => parking.stopped = Some(stopped),
        }
    }
    Ok(())
}

/// Lets a parked thread that is about to go on make its call before signals come in that waited meanwhile; see
/// [`Stopped::enter_call`].
///
/// # Errors
/// It dies.
pub fn enter_call(stopped: &mut Stopped, calls: [RemoteAddr; 2], undo: &Undo) -> Result<()> {
    undo.mask.store(stopped.sigmask()?, Ordering::SeqCst);
    undo.masked.store(true, Ordering::SeqCst);
    stopped.enter_call(calls)?;
    undo.masked.store(false, Ordering::SeqCst);
    Ok(())
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
