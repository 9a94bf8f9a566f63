//! All threads of a process under ptrace: seized, stopped and let go together.
//!
//! A thread that starts meanwhile is attached by the event of its parent, and one that ends is forgotten; only the
//! death of the leader, which every process ID names, is an error.
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::guard::{MAX_THREADS, REPAIR_LIMIT, Slot, Undo};
use super::park::Way;
use super::polls::Text;
use super::{Error, Log, Result};
use crate::portable::Executable;
use crate::tracee::proc::{self, BlockedCall, Stat, Status};
use crate::tracee::process::Waited;
use crate::tracee::{self, Running, Stop, Stopped, Watch, sys};

/// A thread that we have seized.
#[derive(Debug)]
pub struct Thread {
    /// Its ID.
    pub tid: i32,
    /// While it is stopped.
    pub stopped: Option<Stopped>,
    /// The call that it was blocked in before it was made to stop.
    pub before: Option<BlockedCall>,
    /// What it is to receive when it runs on, 0 for nothing.
    pub signal: i32,
    /// Where its mask is kept while it has another one.
    pub slot: Slot,
    /// How far it is from its equivalence point.
    pub way: Way,
    /// An event attached it: it stops by itself before its first instruction.
    newborn: bool,
    gone: bool,
}

impl Thread {
    /// The stopped thread.
    ///
    /// # Errors
    /// It runs.
    pub fn stopped(&mut self) -> Result<&mut Stopped> {
        self.stopped.as_mut().ok_or_else(super::freeze::lost)
    }
}

/// The threads of a process.
#[derive(Debug)]
pub struct Threads<'a> {
    /// The process.
    pub pid: i32,
    /// The leader first.
    pub all: Vec<Thread>,
    /// Job control has stopped it (SIGSTOP, which nothing blocks).
    pub group_stopped: bool,
    /// Shared with whoever repairs if we die.
    pub undo: &'a Undo,
    /// Where to say what happens.
    pub log: &'a Log,
}

impl<'a> Threads<'a> {
    /// Attaches to every thread, without stopping any.
    ///
    /// # Errors
    /// The process is gone, traced by somebody else, not ours to trace, or has too many threads.
    pub fn seize(pid: i32, undo: &'a Undo, log: &'a Log) -> Result<Self> {
        let mut threads = Self { pid, all: Vec::new(), group_stopped: false, undo, log };
        // Those that start while we look are attached by events as soon as their parents are seized.
        let mut known = BTreeSet::new();
        loop {
            let fresh: Vec<i32> = proc::threads(pid)?.into_iter().filter(|tid| known.insert(*tid)).collect();
            if fresh.is_empty() {
                return Ok(threads);
            }
            for tid in fresh {
                threads.attach(tid)?;
            }
        }
    }

    fn attach(&mut self, tid: i32) -> Result<()> {
        let newborn = match Running::seize(tid) {
            Ok(_) => false,
            Err(error) if error.is_death() && tid != self.pid => return Ok(()),
            Err(error) => {
                let tracer = Status::read(tid).map_or(0, |status| status.tracer);
                if tracer != std::process::id().cast_signed() {
                    return if tid != self.pid && ended(tid) { Ok(()) } else { Err(error.into()) };
                }
                true
            }
        };
        self.push(tid, newborn).map(drop)
    }

    fn push(&mut self, tid: i32, newborn: bool) -> Result<usize> {
        let slot = self.undo.admit(tid).ok_or_else(|| too_many(self.pid))?;
        let way = Way::default();
        self.all.push(Thread { tid, stopped: None, before: None, signal: 0, slot, way, newborn, gone: false });
        Ok(self.all.len() - 1)
    }

    /// The leader, stopped: what asks for the process asks it.
    ///
    /// # Errors
    /// It runs.
    pub fn leader(&mut self) -> Result<&mut Stopped> {
        self.all.first_mut().ok_or_else(super::freeze::lost)?.stopped()
    }

    /// Stops every thread that runs, wherever it is.
    ///
    /// # Errors
    /// The process dies, or a thread does not stop before the deadline.
    pub fn stop(&mut self, watch: &Watch) -> Result<()> {
        for thread in self.all.iter_mut().filter(|thread| thread.stopped.is_none() && !thread.newborn) {
            // What it is blocked in shows only before: a stop makes aarch64 forget.
            let asked = BlockedCall::read(thread.tid).and_then(|before| {
                thread.before = before;
                Running::new_unchecked(thread.tid).ask_to_stop()
            });
            match asked {
                Err(_) if thread.tid != self.pid && ended(thread.tid) => {}
                other => other?,
            }
        }
        let mut i = 0;
        while i < self.all.len() {
            if self.all[i].stopped.is_none() {
                self.stop_one(i, watch)?;
            }
            i += 1;
        }
        self.purge();
        Ok(())
    }

    /// Waits for a thread that was asked to stop. A signal that is just being delivered is let through first.
    fn stop_one(&mut self, i: usize, watch: &Watch) -> Result<()> {
        while let Some(stop) = self.next(i, watch, "it is in uninterruptible sleep")? {
            let signal = match stop {
                Stop::Interrupted => return Ok(()),
                Stop::Group(_) => {
                    self.group_stopped = true;
                    return Ok(());
                }
                Stop::Signal(signal) => signal,
                Stop::Entry(_) | Stop::Exit(_) => 0,
                Stop::Event(event) => {
                    if let Some(child) = self.event(i, event)? {
                        release_process(child)?;
                    }
                    0
                }
            };
            let thread = &mut self.all[i];
            if let Some(stopped) = thread.stopped.take() {
                // The request to stop was used up by this one.
                match stopped.resume_to_stop(signal) {
                    Err(error) if !(error.is_death() && thread.tid != self.pid) => return Err(error.into()),
                    // Its death shows on waiting.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A thread's next stop, in which it is from now on; `None` if it ended.
    ///
    /// # Errors
    /// The leader ended; the deadline is over; the command is gone.
    pub fn next(&mut self, i: usize, watch: &Watch, waiting_for: &'static str) -> Result<Option<Stop>> {
        const SLICE: Duration = Duration::from_millis(100);
        loop {
            if let Some(stop) = self.poll(i, watch, SLICE)? {
                return Ok(Some(stop));
            }
            let tid = self.all[i].tid;
            if self.all[i].gone {
                return Ok(None);
            }
            if watch.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Error::Tracee(tracee::Error::Timeout { pid: tid, waiting_for }));
            }
            self.check_leader()?;
        }
    }

    /// A running thread's stop, if there is one within `limit`.
    ///
    /// # Errors
    /// The leader ended; the command is gone.
    pub fn poll(&mut self, i: usize, watch: &Watch, limit: Duration) -> Result<Option<Stop>> {
        let thread = &mut self.all[i];
        if thread.stopped.is_some() || thread.gone {
            return Ok(None);
        }
        match Running::new_unchecked(thread.tid).wait_for(watch, limit) {
            Ok(Waited::Running(_)) => Ok(None),
            Ok(Waited::Stopped(stopped, stop)) => {
                (thread.stopped, thread.newborn) = (Some(stopped), false);
                Ok(Some(stop))
            }
            Err(error) if error.is_death() && thread.tid != self.pid => {
                if matches!(error, tracee::Error::Gone { .. }) {
                    // Nobody collected its death: it has the leader's ID now.
                    return Err(self.executed());
                }
                self.gone(i);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A thread that ended, to be forgotten by [`Threads::purge`].
    pub fn gone(&mut self, i: usize) {
        self.all[i].gone = true;
        self.all[i].stopped = None;
    }

    /// Whether a thread ended.
    #[must_use]
    pub fn is_gone(&self, i: usize) -> bool {
        self.all[i].gone
    }

    /// Forgets threads that ended.
    pub fn purge(&mut self) {
        let undo = self.undo;
        self.all.retain(|thread| {
            if thread.gone {
                undo.forget(thread.slot);
            }
            !thread.gone
        });
    }

    /// A leader that called pthread_exit is a zombie that reports nothing as long as other threads live.
    ///
    /// # Errors
    /// It is one.
    pub fn check_leader(&self) -> Result<()> {
        if self.all.len() > 1 && Stat::read(self.pid).is_ok_and(|stat| stat.state == 'Z') {
            return Err(leader_ended(self.pid));
        }
        Ok(())
    }

    fn executed(&self) -> Error {
        // There is nothing of the old text.
        self.undo.patched.store(false, Ordering::SeqCst);
        Error::Tracee(tracee::Error::Unexpected {
            pid: self.pid,
            got: "it executed another program".into(),
            expected: "an equivalence point",
        })
    }

    /// What a stopped thread has started: a new thread joins the others; the ID of a new process is returned.
    ///
    /// # Errors
    /// It executed another program; there are too many threads.
    pub fn event(&mut self, parent: usize, event: i32) -> Result<Option<i32>> {
        if event == libc::PTRACE_EVENT_EXEC {
            return Err(self.executed());
        }
        let child = sys::event_message(self.all[parent].tid)? as i32;
        if event != libc::PTRACE_EVENT_CLONE || !proc::path(self.pid, &format!("task/{child}")).exists() {
            return Ok(Some(child));
        }
        let at = match self.all.iter().position(|thread| thread.tid == child) {
            Some(at) => at,
            None => self.push(child, true)?,
        };
        // It has its parent's mask, which may not be the parent's own.
        let slot = self.all[at].slot;
        if let (Some(own), None) = (self.undo.own_mask(self.all[parent].slot), self.undo.own_mask(slot)) {
            self.undo.masking(slot, own);
        }
        if self.all[at].stopped.is_none() {
            let mut grace = Watch::new(None, None)?;
            grace.relax(REPAIR_LIMIT);
            self.next(at, &grace, "it was just started")?;
        }
        self.log.debug(&format!("thread {child} started"));
        Ok(None)
    }

    /// Lets every thread go, the leader last.
    ///
    /// # Errors
    /// The process is gone.
    pub fn detach(self) -> Result<()> {
        for thread in self.all.into_iter().rev() {
            let Some(stopped) = thread.stopped else { continue };
            match stopped.detach_with(thread.signal) {
                Err(error) if error.is_death() && thread.tid != self.pid => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// After a failure: stops what runs, puts everything back, lets the process go.
    pub fn abandon(self) {
        let (pid, log) = (self.pid, self.log);
        if let Err(error) = self.put_back() {
            log.error(&format!("letting process {pid} go on: {error}"));
        }
    }

    fn put_back(mut self) -> Result<()> {
        let mut watch = Watch::new(None, None)?;
        watch.relax(REPAIR_LIMIT);
        // Text is only changed while nobody runs it.
        self.stop(&watch)?;
        let (pid, undo) = (self.pid, self.undo);
        if undo.patched.load(Ordering::SeqCst) {
            let bytes = proc::read(pid, "exe")?;
            let executable = Executable::parse(bytes).map_err(|source| Error::Portable { pid, source })?;
            Text::new(pid, &executable)?.unpatch(&self.leader()?.memory()?)?;
            undo.patched.store(false, Ordering::SeqCst);
        }
        for thread in &mut self.all {
            if let Some(own) = undo.own_mask(thread.slot) {
                let slot = thread.slot;
                thread.stopped()?.set_sigmask(own)?;
                undo.unmasked(slot);
            }
        }
        self.detach()
    }
}

/// Puts back what a worker that died had changed. The kernel has let its tracees go.
///
/// # Errors
/// The process cannot be stopped.
pub fn repair(pid: i32, undo: &Undo, log: &Log) -> Result<()> {
    Threads::seize(pid, undo, log)?.put_back()
}

/// Lets a process go on that an event attached.
///
/// # Errors
/// It does not stop as it should.
pub fn release_process(child: i32) -> Result<()> {
    let mut grace = Watch::new(None, None)?;
    grace.relax(REPAIR_LIMIT);
    match Running::new_unchecked(child).wait(&grace, "it was just started").and_then(|(stopped, _)| stopped.detach()) {
        Err(error) if !error.is_death() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The refusal of more threads than [`MAX_THREADS`].
#[must_use]
pub fn too_many(pid: i32) -> Error {
    Error::Unsupported {
        pid,
        what: format!("more than {MAX_THREADS} threads"),
        reason: "no more can be kept in mind",
        remedy: "let some of them end".into(),
    }
}

/// The refusal of a process whose first thread is a zombie.
#[must_use]
pub fn leader_ended(pid: i32) -> Error {
    Error::Unsupported {
        pid,
        what: "a first thread that has ended while others go on".into(),
        reason: "that cannot be made anew",
        remedy: "let its first thread wait for the others (pthread_join)".into(),
    }
}

fn ended(tid: i32) -> bool {
    Stat::read(tid).map_or(true, |stat| matches!(stat.state, 'Z' | 'X'))
}
