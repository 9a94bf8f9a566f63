//! Bringing a portable process to its equivalence points (`docs/architecture.md`, invariant 7).
//!
//! ```text
//!   all stopped ─▶ signals that wait for them are let in
//!      │     ┌──────────────────────────────────────────────────────────────────────────┐
//!      ▼     ▼                                                                          │
//!   a thread is in a signal handler? ── yes ─▶ polls are nops; its mask is its own      │ all stopped again when the
//!      │ no                                       │                                     │ first thread comes into a
//!      ▼                                          ▼                                     │ handler, or the last one
//!   polls become jumps ────────────────▶ those that are not parked run ─────────────────┘ leaves it
//!                                             │
//!                                             ▼ about to make the stub's call, in no handler
//!                                        parked: pc at the restart label, sp at the record
//! ```
//!
//! Signals that could be delivered when a thread is stopped are: they end a call that they interrupt, and
//! sigprocmask(2) and kill(2) promise that one is delivered before they return. From then on all but those of the
//! thread's own instructions stay blocked outside handlers, so that new ones keep waiting in the kernel, in order and
//! with their siginfo; [`enter_call`] lets them in where they would have come in: in the call. From the moment its
//! call is cancelled a thread, left alone, makes the call again by itself: what is dumped and what runs on are
//! the same state.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isamorph_arch::{RegisterFile, RemoteAddr, syscall_record as record};

use super::guard::{REPAIR_LIMIT, Slot, Undo};
use super::place::{self, Place};
use super::polls::Text;
use super::stall::stall;
use super::threads::{self, Threads};
use super::{Error, Result};
use crate::portable::Executable;
use crate::tracee::errand::{self, quiet_mask};
use crate::tracee::host::{self, SYSCALL_LEN};
use crate::tracee::proc::{BlockedCall, Status};
use crate::tracee::{Errand, Memory, Running, Stop, Stopped, Watch, maps};

/// rt_sigreturn, natively.
const RT_SIGRETURN: u64 = libc::SYS_rt_sigreturn as u64;
/// How long handlers may take before all threads run free: one of them may wait for a thread that is parked.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a thread may run before it is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// How far a thread is from its equivalence point.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    place: Place,
    /// It is making the call that ends a handler.
    leaving: bool,
    /// When to look where it is.
    look: Option<Instant>,
}

/// A process on its way.
struct Parking<'a, 'b> {
    threads: &'a mut Threads<'b>,
    executable: &'a Executable,
    text: Text<'a>,
    memory: Memory,
    watch: &'a Watch,
    begun: Instant,
    /// Since when handlers are waited for.
    handlers: Option<Instant>,
    /// While a handler is waited for, nobody is parked, and all have their own masks.
    free: bool,
}

/// Where a portable executable has the instructions of an errand: the call before its signal restorer.
#[must_use]
pub fn gadget(executable: &Executable) -> Option<RemoteAddr> {
    RemoteAddr(executable.manifest.restore_rt).checked_sub(SYSCALL_LEN)
}

/// Parks a process whose threads are all stopped; returns their registers, in their order.
///
/// # Errors
/// They did not get there before the deadline; its text is not its file's; it died.
pub fn park(threads: &mut Threads<'_>, executable: &Executable, watch: &Watch) -> Result<Vec<RegisterFile>> {
    let text = Text::new(threads.pid, executable)?;
    let memory = threads.leader()?.memory()?;
    if text.repair(&memory)? {
        threads.log.warn("the text was left patched by a dump that was killed; repaired");
    }
    let mut parking =
        Parking { threads, executable, text, memory, watch, begun: Instant::now(), handlers: None, free: false };
    for i in 0..parking.threads.all.len() {
        let result = parking.first_look(i);
        parking.tolerate(i, result)?;
    }
    parking.threads.purge();
    // The leader's look counts from here; so does the time that an error tells.
    parking.begun = Instant::now();
    while !parking.prepared()? {
        parking.run()?;
    }
    parking.finish()
}

impl Parking<'_, '_> {
    fn first_look(&mut self, i: usize) -> Result<()> {
        self.let_signals_in(i)?;
        self.find(i)
    }

    /// A thread other than the leader may end at any time.
    fn tolerate(&mut self, i: usize, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Tracee(error)) if error.is_death() && self.threads.all[i].tid != self.threads.pid => {
                self.threads.gone(i);
                Ok(())
            }
            other => other,
        }
    }

    fn is_parked(&self, i: usize) -> bool {
        self.threads.is_gone(i) || self.threads.all[i].way.place == Place::Stub
    }

    fn all_parked(&self) -> bool {
        (0..self.threads.all.len()).all(|i| self.is_parked(i))
    }

    fn patched(&self) -> bool {
        self.threads.undo.patched.load(Ordering::SeqCst)
    }

    /// A handler's polls stay nops, for what it forks must not inherit jumps; and text changes only while nobody runs it.
    fn wants_patch(&self) -> bool {
        let in_handler = |i: usize| !self.threads.is_gone(i) && self.threads.all[i].way.place == Place::Handler;
        !(0..self.threads.all.len()).any(in_handler)
    }

    /// While all are stopped: masks and text as their places ask for; whether all are parked.
    fn prepared(&mut self) -> Result<bool> {
        self.handlers = (!self.wants_patch()).then(Instant::now);
        let mut masked = false;
        for i in 0..self.threads.all.len() {
            masked |= self.fit_mask(i)?;
        }
        if masked {
            stall("masked", self.watch)?;
        }
        if self.all_parked() {
            return Ok(true);
        }
        match (self.wants_patch(), self.patched()) {
            (true, false) => {
                self.threads.undo.patched.store(true, Ordering::SeqCst);
                self.text.patch(&self.memory)?;
                stall("patched", self.watch)?;
            }
            (false, true) => self.unpatch()?,
            _ => {}
        }
        Ok(false)
    }

    fn unpatch(&mut self) -> Result<()> {
        self.text.unpatch(&self.memory)?;
        self.threads.undo.patched.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// A handler runs with its own mask; whether signals are blocked now that were not before.
    fn fit_mask(&mut self, i: usize) -> Result<bool> {
        let (own, slot) = (self.free || self.threads.all[i].way.place == Place::Handler, self.threads.all[i].slot);
        match (own, self.threads.undo.own_mask(slot)) {
            (false, None) => self.quiet(i).map(|()| true),
            (true, Some(_)) => self.unquiet(i).map(|()| false),
            _ => Ok(false),
        }
    }

    fn quiet(&mut self, i: usize) -> Result<()> {
        let (undo, slot) = (self.threads.undo, self.threads.all[i].slot);
        let stopped = self.threads.all[i].stopped()?;
        let own = stopped.sigmask()?;
        undo.masking(slot, own);
        Ok(stopped.set_sigmask(own | quiet_mask())?)
    }

    fn unquiet(&mut self, i: usize) -> Result<()> {
        let (undo, slot) = (self.threads.undo, self.threads.all[i].slot);
        if let Some(own) = undo.own_mask(slot) {
            self.threads.all[i].stopped()?.set_sigmask(own)?;
            undo.unmasked(slot);
        }
        Ok(())
    }

    /// Lets those run that are not parked, until all are, or until all must be stopped.
    fn run(&mut self) -> Result<()> {
        for i in 0..self.threads.all.len() {
            if !self.is_parked(i) {
                let result = self.resume(i);
                self.tolerate(i, result)?;
            }
        }
        stall("running", self.watch)?;
        loop {
            let mut news = false;
            let mut i = 0;
            // It may grow meanwhile.
            while i < self.threads.all.len() {
                if let Some(stop) = self.threads.poll(i, self.watch, Duration::ZERO)? {
                    news = true;
                    let known = self.threads.all.len();
                    let result = self.on_stop(i, stop);
                    self.tolerate(i, result)?;
                    if self.wants_patch() != self.patched() {
                        return self.regroup();
                    }
                    if self.free && self.threads.all[i].stopped.is_some() && self.is_parked(i) {
                        let result = self.set_free(i);
                        self.tolerate(i, result)?;
                    }
                    // It goes on, and so do those that it started.
                    self.go_on(i)?;
                    for newcomer in known..self.threads.all.len() {
                        self.go_on(newcomer)?;
                    }
                }
                i += 1;
            }
            self.threads.purge();
            if self.all_parked() {
                return Ok(());
            }
            self.look()?;
            if !news {
                self.watch.sleep(LOOK)?;
            }
        }
    }

    /// A stopped thread runs on if it is not parked.
    fn go_on(&mut self, i: usize) -> Result<()> {
        if self.threads.all[i].stopped.is_none() || self.is_parked(i) {
            return Ok(());
        }
        let masked = self.fit_mask(i);
        if matches!(masked, Ok(true)) {
            stall("masked", self.watch)?;
        }
        let result = masked.and_then(|_| self.resume(i));
        self.tolerate(i, result)?;
        stall("running", self.watch)
    }

    fn resume(&mut self, i: usize) -> Result<()> {
        let thread = &mut self.threads.all[i];
        let signal = std::mem::take(&mut thread.signal);
        thread.way.look = Some(Instant::now() + LOOK);
        let _ = thread.stopped.take().ok_or_else(super::freeze::lost)?.resume_to_syscall(signal)?;
        Ok(())
    }

    /// Stops all, for another phase.
    fn regroup(&mut self) -> Result<()> {
        let was_free = std::mem::take(&mut self.free);
        self.stop_all()?;
        for i in 0..self.threads.all.len() {
            // As at the first stop: what came in time is not to wait.
            if was_free && Status::read(self.threads.all[i].tid)?.deliverable() != 0 {
                let result = self.let_signals_in(i).and_then(|()| self.find(i));
                self.tolerate(i, result)?;
            }
        }
        self.threads.purge();
        Ok(())
    }

    /// Lets everybody run on as if there were no dump, until the handlers have returned that waited for it.
    fn set_all_free(&mut self) -> Result<()> {
        self.free = true;
        self.threads.log.info("a signal handler takes its time: all threads run until it returns");
        for i in 0..self.threads.all.len() {
            let thread = &mut self.threads.all[i];
            let result = if thread.stopped.is_some() {
                self.set_free(i)
            } else if thread.way.place == Place::Elsewhere {
                // It has no mask of its own; and it is in no call, because it would be parked there.
                thread.before = None;
                Running::new_unchecked(thread.tid).ask_to_stop().map_err(Error::from)
            } else {
                Ok(())
            };
            self.tolerate(i, result)?;
            self.go_on(i)?;
        }
        Ok(())
    }

    /// A parked thread makes its call after all.
    fn set_free(&mut self, i: usize) -> Result<()> {
        self.at_restart(i)?;
        self.threads.all[i].way.place = Place::Elsewhere;
        Ok(())
    }

    /// A thread in the stub is to make its call anew, with what is left of its time.
    fn at_restart(&mut self, i: usize) -> Result<RegisterFile> {
        let stopped = self.threads.all[i].stopped()?;
        let registers = place::at_restart(stopped, self.executable)?;
        stopped.set_registers(&registers)?;
        let flags = RemoteAddr(registers.sp().0.wrapping_add(record::FLAGS));
        let value = self.memory.read_u64(flags)? | record::FLAG_RESUMED;
        self.memory.write(flags, &value.to_le_bytes())?;
        Ok(registers)
    }

    /// Looks where a stopped thread is.
    fn find(&mut self, i: usize) -> Result<()> {
        let before = self.threads.all[i].before.take();
        let stopped = self.threads.all[i].stopped()?;
        let place = place::place_of(stopped, self.executable, &self.memory, before.as_ref())?;
        self.threads.all[i].way.place = place;
        Ok(())
    }

    /// Stops those that run; what they report on the way counts.
    fn stop_all(&mut self) -> Result<()> {
        for i in 0..self.threads.all.len() {
            if self.threads.all[i].stopped.is_none() && !self.threads.is_gone(i) {
                let thread = &mut self.threads.all[i];
                let result = BlockedCall::read(thread.tid).and_then(|before| {
                    thread.before = before;
                    Running::new_unchecked(thread.tid).ask_to_stop()
                });
                self.tolerate(i, result.map_err(Error::from))?;
            }
        }
        let mut i = 0;
        while i < self.threads.all.len() {
            if self.threads.all[i].stopped.is_none()
                && let Some(stop) = self.threads.next(i, self.watch, "it is in uninterruptible sleep")?
            {
                let result = self.on_stop(i, stop);
                self.tolerate(i, result)?;
            }
            i += 1;
        }
        self.threads.purge();
        Ok(())
    }

    /// Takes a thread's stop into account. It stays stopped; it is parked if its place is the stub.
    fn on_stop(&mut self, i: usize, stop: Stop) -> Result<()> {
        let tid = self.threads.all[i].tid;
        let masked = self.threads.undo.own_mask(self.threads.all[i].slot).is_some();
        match stop {
            Stop::Entry(number) => {
                let manifest = &self.executable.manifest;
                let mut registers = self.threads.all[i].stopped()?.registers()?;
                let insn = registers.pc().0.wrapping_sub(SYSCALL_LEN);
                self.threads.all[i].way.leaving = number == RT_SIGRETURN;
                let stub = insn == manifest.syscall_insn || insn == manifest.gate_insn;
                if stub && place::in_handler(&self.memory, self.executable, &registers)? {
                    self.threads.all[i].way.place = Place::Handler;
                } else if stub {
                    // Out of the handler by a jump, maybe.
                    self.threads.all[i].way.place = Place::Elsewhere;
                    if self.free && !self.wants_patch() {
                        return Ok(());
                    }
                    if !masked {
                        self.quiet(i)?;
                    }
                    host::cancel_syscall(tid, &mut registers)?;
                    registers.set_pc(RemoteAddr(manifest.syscall_restart));
                    self.threads.all[i].stopped()?.set_registers(&registers)?;
                    stall("cancelled", self.watch)?;
                    let stop = self.threads.all[i].stopped()?.step_to_interrupt()?;
                    self.threads.log.debug(&format!("thread {tid}: call cancelled, then {stop:?}"));
                    self.threads.all[i].way.place = Place::Stub;
                }
            }
            // Back where the handler came in, or in the handler that it came into.
            Stop::Exit(_) if std::mem::take(&mut self.threads.all[i].way.leaving) => {
                if masked {
                    // The mask is the one from before the handler now.
                    self.quiet(i)?;
                }
                let registers = self.threads.all[i].stopped()?.registers()?;
                let within = place::in_handler(&self.memory, self.executable, &registers)?;
                self.threads.all[i].way.place = if within { Place::Handler } else { Place::Elsewhere };
            }
            Stop::Exit(_) => {}
            Stop::Interrupted | Stop::Group(_) => {
                self.threads.group_stopped |= matches!(stop, Stop::Group(_));
                self.find(i)?;
            }
            // Only those that its own instructions raise are blocked nowhere.
            Stop::Signal(number) => {
                self.threads.group_stopped &= number != libc::SIGCONT;
                self.threads.all[i].signal = number;
                if masked && errand::SYNCHRONOUS.contains(&number) {
                    // Its handler returns to the thread's own mask, not to ours.
                    self.unquiet(i)?;
                    self.threads.all[i].way.place = Place::Handler;
                }
            }
            Stop::Event(event) => {
                if let Some(child) = self.threads.event(i, event)? {
                    self.new_process(child, event)?;
                }
            }
        }
        Ok(())
    }

    /// Asks those to stop that have run for long; too long is an error that says where one of them is.
    fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.watch.deadline().is_some_and(|deadline| deadline <= now) {
            return Err(self.late());
        }
        self.threads.check_leader()?;
        let alone = self.threads.all.len() == 1;
        if !self.free && !alone && self.handlers.is_some_and(|since| now - since > PATIENCE) {
            return self.set_all_free();
        }
        for i in 0..self.threads.all.len() {
            let thread = &mut self.threads.all[i];
            if thread.stopped.is_some() || thread.way.look.is_none_or(|look| look > now) {
                continue;
            }
            (thread.way.look, thread.before) = (Some(now + LOOK), None);
            let may_block = self.free || thread.way.place == Place::Handler;
            // A look would interrupt a call that a handler is blocked in; its end shows by itself.
            let result = (|| {
                if !may_block || BlockedCall::read(thread.tid)?.is_none() {
                    Running::new_unchecked(thread.tid).ask_to_stop()?;
                }
                Ok(())
            })();
            self.tolerate(i, result)?;
        }
        Ok(())
    }

    /// The error of a thread that did not get there in time; one in a handler, if there is one, holds up the others.
    fn late(&mut self) -> Error {
        let away = |place: Place| {
            let away = |i: &usize| !self.threads.is_gone(*i) && self.threads.all[*i].way.place == place;
            (0..self.threads.all.len()).find(away)
        };
        let Some(i) = away(Place::Handler).or_else(|| away(Place::Elsewhere)) else { return super::freeze::lost() };
        let named = (|| {
            let mut grace = Watch::new(None, None)?;
            grace.relax(REPAIR_LIMIT);
            let tid = self.threads.all[i].tid;
            if self.threads.all[i].stopped.is_none() {
                Running::new_unchecked(tid).ask_to_stop()?;
                if let Some(Stop::Signal(signal)) = self.threads.next(i, &grace, "it is in uninterruptible sleep")? {
                    self.threads.all[i].signal = signal;
                }
            }
            let pc = self.threads.all[i].stopped()?.registers()?.pc();
            let handler = if self.threads.all[i].way.place == Place::Handler { "in a signal handler, " } else { "" };
            Ok(Error::NotParked {
                pid: self.threads.pid,
                tid,
                timeout: self.begun.elapsed(),
                place: format!("is {handler}at {} ({pc})", self.executable.name(pc)),
                remedy: "try a longer --timeout, or --no-park to dump it as it is",
            })
        })();
        named.unwrap_or_else(|error| error)
    }

    /// Delivers what can be delivered to a thread that was just stopped: each comes in where the thread is, in the order
    /// of the kernel, and the thread stops again before its first instruction.
    fn let_signals_in(&mut self, i: usize) -> Result<()> {
        // With SA_NODEFER a handler's own signal may come in again and again: as deep as that, they can wait.
        const MAX_NESTED: usize = 64;
        let tid = self.threads.all[i].tid;
        for _ in 0..MAX_NESTED {
            if Status::read(tid)?.deliverable() == 0 {
                return Ok(());
            }
            let thread = self.threads.all[i].stopped.take().ok_or_else(super::freeze::lost)?;
            let on_its_way = std::mem::take(&mut self.threads.all[i].signal);
            let (stopped, stop) = thread.resume(on_its_way)?.wait(self.watch, "a signal is to be delivered")?;
            self.threads.log.debug(&format!("let in: {stop:?}"));
            match stop {
                Stop::Signal(signal) => {
                    self.threads.group_stopped &= signal != libc::SIGCONT;
                    let running = stopped.resume_to_stop(signal)?;
                    let (stopped, stop) = running.wait(self.watch, "a signal was delivered")?;
                    self.threads.group_stopped |= matches!(stop, Stop::Group(_));
                    self.threads.all[i].stopped = Some(stopped);
                }
                // Somebody else took it (a signalfd, say), or it was no signal that stops a traced thread.
                _ => self.threads.all[i].stopped = Some(stopped),
            }
        }
        Ok(())
    }

    /// A process that a signal handler started.
    fn new_process(&mut self, child: i32, event: i32) -> Result<()> {
        if self.patched() && event != libc::PTRACE_EVENT_CLONE {
            let mut grace = Watch::new(None, None)?;
            grace.relax(REPAIR_LIMIT);
            let (stopped, _) = Running::new_unchecked(child).wait(&grace, "it was just started")?;
            self.text.unpatch(&stopped.memory()?)?;
            stopped.detach()?;
        } else {
            threads::release_process(child)?;
        }
        self.threads.log.warn(&format!("a signal handler started process {child}"));
        Ok(())
    }

    /// All are parked: nops again, registers at the restart label, masks their own.
    fn finish(mut self) -> Result<Vec<RegisterFile>> {
        stall("parked", self.watch)?;
        if self.patched() {
            self.unpatch()?;
        }
        stall("unpatched", self.watch)?;
        let mut parked = Vec::new();
        for i in 0..self.threads.all.len() {
            parked.push(self.at_restart(i)?);
            self.unquiet(i)?;
        }
        self.drop_copies(parked.first().copied())?;
        let (pid, count) = (self.threads.pid, self.threads.all.len());
        self.threads.log.info(&format!("process {pid} is parked after {:?}: {count} threads", self.begun.elapsed()));
        Ok(parked)
    }

    /// The pages that patching copied are given back by the process itself.
    fn drop_copies(&mut self, registers: Option<RegisterFile>) -> Result<()> {
        let mappings = maps::read(self.threads.pid)?;
        let leader = self.threads.all.first_mut().ok_or_else(super::freeze::lost)?;
        let (stopped, registers) = leader.stopped.take().zip(registers).ok_or_else(super::freeze::lost)?;
        match Errand::begin(stopped, registers, &mappings, gadget(self.executable)) {
            Ok(mut errand) => {
                let result = self.text.drop_copies(&mut errand);
                leader.stopped = Some(errand.finish()?);
                result
            }
            Err((stopped, error)) => {
                leader.stopped = Some(stopped);
                Err(error.into())
            }
        }
    }
}

/// Lets a parked thread that is about to go on make its call before signals come in that waited meanwhile; see
/// [`Stopped::enter_call`].
///
/// # Errors
/// It dies.
pub fn enter_call(stopped: &mut Stopped, calls: [RemoteAddr; 2], undo: &Undo, slot: Slot) -> Result<()> {
    undo.masking(slot, stopped.sigmask()?);
    stopped.enter_call(calls)?;
    undo.unmasked(slot);
    Ok(())
}
