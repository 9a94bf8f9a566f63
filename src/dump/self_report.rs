//! What only the process itself can say: system calls that it makes for us.
use std::time::Instant;

use super::freeze::{Frozen, FrozenThread, lost};
use super::{Error, Result};
use crate::image::proto;
use crate::tracee::{Errand, Mapping, Watch, maps, proc, sys};

const PR_GET_PDEATHSIG: u64 = 2;
const PR_GET_DUMPABLE: u64 = 3;
const PR_GET_SECUREBITS: u64 = 27;
const PR_GET_CHILD_SUBREAPER: u64 = 37;
const PR_GET_TID_ADDRESS: u64 = 40;
const PR_GET_THP_DISABLE: u64 = 42;

/// One signal's disposition: `struct sigaction` of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// Address of the handler, 0 (default) or 1 (ignore).
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Address of the restorer.
    pub restorer: u64,
    /// Signals blocked meanwhile.
    pub mask: u64,
}

/// An interval timer, in seconds and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Interval.
    pub interval: (u64, u64),
    /// Time left.
    pub value: (u64, u64),
}

/// The state of a POSIX timer.
#[derive(Clone, Copy, Debug)]
pub struct TimerState {
    /// What `/proc/PID/timers` says.
    pub timer: proc::PosixTimer,
    /// Interval and time left, in seconds and nanoseconds.
    pub setting: Interval,
    /// Overruns of the last expiry.
    pub overrun: u32,
}

/// Signals that wait, as `siginfo_t`, in the order of their arrival.
pub type Queue = Vec<[u8; 128]>;

/// What the process said.
#[derive(Clone, Debug, Default)]
pub struct SelfReport {
    /// Its program break.
    pub brk: u64,
    /// PR_GET_DUMPABLE.
    pub dumpable: i32,
    /// PR_GET_THP_DISABLE.
    pub thp_disabled: bool,
    /// PR_GET_CHILD_SUBREAPER.
    pub child_subreaper: bool,
    /// Dispositions of signals 1 to 64; those of SIGKILL and SIGSTOP are meaningless.
    pub actions: Vec<SigAction>,
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub interval_timers: [Interval; 3],
    /// POSIX timers.
    pub posix_timers: Vec<TimerState>,
    /// Signals that wait for the process as a whole.
    pub queued: Queue,
    /// What its threads said, in their order.
    pub threads: Vec<ThreadReport>,
    /// The process's clocks, right after the timers were asked: both go on from there.
    pub clocks: proto::TimensEntry,
    /// When that was.
    pub asked: Option<Instant>,
}

/// What a thread said of itself.
#[derive(Clone, Debug, Default)]
pub struct ThreadReport {
    /// PR_GET_PDEATHSIG.
    pub pdeath_signal: u32,
    /// PR_GET_SECUREBITS.
    pub secure_bits: u32,
    /// PR_GET_TID_ADDRESS.
    pub tid_address: u64,
    /// `ss_sp`, `ss_size`, `ss_flags` of the alternate signal stack.
    pub alternate_stack: (u64, u64, u32),
    /// Signals that wait for it alone.
    pub queued: Queue,
}

/// Asks a stopped process: its leader for all, then each other thread for itself. One at a time, because they share the
/// instructions of an errand.
///
/// # Errors
/// If it cannot make system calls for us, or one fails that cannot fail.
pub fn ask(frozen: &mut Frozen, watch: &Watch) -> Result<SelfReport> {
    let pid = frozen.leader()?.tid;
    let (mappings, timers) = (maps::read(pid)?, proc::posix_timers(pid)?);
    let (gadget, tids) = (frozen.gadget, frozen.threads.iter().map(|thread| thread.tid).collect::<Vec<_>>());
    let [leader, others @ ..] = &mut frozen.threads[..] else { return Err(lost()) };
    let errands = Errands { mappings, gadget };
    let mut report = errands.run(leader, |errand| questions(errand, &tids, &timers, watch))?;
    for (thread, own) in others.iter_mut().zip(report.threads.iter_mut().skip(1)) {
        watch.check()?;
        errands.run(thread, |errand| of_thread(errand, own))?;
    }
    Ok(report)
}

/// What errands of a process's threads have in common.
struct Errands {
    mappings: Vec<Mapping>,
    gadget: Option<isamorph_arch::RemoteAddr>,
}

impl Errands {
    fn run<T>(&self, thread: &mut FrozenThread, questions: impl FnOnce(&mut Errand) -> Result<T>) -> Result<T> {
        let stopped = thread.stopped.take().ok_or_else(lost)?;
        let mut errand = match Errand::begin(stopped, thread.registers, &self.mappings, self.gadget) {
            Ok(errand) => errand,
            Err((stopped, error)) => {
                thread.stopped = Some(stopped);
                return Err(error.into());
            }
        };
        let answer = questions(&mut errand);
        thread.stopped = Some(errand.finish()?);
        answer
    }
}

fn questions(errand: &mut Errand, tids: &[i32], timers: &[proc::PosixTimer], watch: &Watch) -> Result<SelfReport> {
    super::stall::stall("errand", watch)?;
    let scratch = errand.scratch();
    let at = scratch.0;
    let mut report = SelfReport { threads: vec![ThreadReport::default(); tids.len()], ..SelfReport::default() };
    // First: up to here the process loses time, from here on its clocks stand still.
    moment(errand, tids, timers, watch, &mut report)?;
    report = SelfReport {
        brk: errand.call("brk", libc::SYS_brk, [0; 6])?,
        dumpable: errand.call("prctl(PR_GET_DUMPABLE)", libc::SYS_prctl, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0])? as i32,
        thp_disabled: errand.call_raw(libc::SYS_prctl, [PR_GET_THP_DISABLE, 0, 0, 0, 0, 0])? == 1,
        ..report
    };
    let subreaper = by_pointer(errand, "prctl(PR_GET_CHILD_SUBREAPER)", PR_GET_CHILD_SUBREAPER)?;
    report.child_subreaper = subreaper as u32 != 0;
    if let Some(own) = report.threads.first_mut() {
        of_thread(errand, own)?;
    }
    for signal in 1..=64u64 {
        if signal == libc::SIGKILL as u64 || signal == libc::SIGSTOP as u64 {
            report.actions.push(SigAction::default());
            continue;
        }
        watch.check()?;
        errand.memory().write(scratch, &[0; 32])?;
        errand.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, at, 8, 0, 0])?;
        // Both ISAs' struct has a restorer: aarch64 keeps the field for compatibility.
        let [handler, flags, restorer, mask] = words::<4>(errand)?;
        report.actions.push(SigAction { handler, flags, restorer, mask });
    }
    Ok(report)
}

/// What a thread knows of itself alone.
fn of_thread(errand: &mut Errand, own: &mut ThreadReport) -> Result<()> {
    own.secure_bits =
        errand.call("prctl(PR_GET_SECUREBITS)", libc::SYS_prctl, [PR_GET_SECUREBITS, 0, 0, 0, 0, 0])? as u32;
    own.pdeath_signal = by_pointer(errand, "prctl(PR_GET_PDEATHSIG)", PR_GET_PDEATHSIG)? as u32;
    own.tid_address = by_pointer(errand, "prctl(PR_GET_TID_ADDRESS)", PR_GET_TID_ADDRESS)?;
    errand.call("sigaltstack", libc::SYS_sigaltstack, [0, errand.scratch().0, 0, 0, 0, 0])?;
    let stack = words::<3>(errand)?;
    own.alternate_stack = (stack[0], stack[2], stack[1] as u32);
    Ok(())
}

/// The answer of a prctl(2) that writes it where it is told.
fn by_pointer(errand: &mut Errand, call: &'static str, option: u64) -> Result<u64> {
    let scratch = errand.scratch();
    errand.memory().write(scratch, &[0; 8])?;
    errand.call(call, libc::SYS_prctl, [option, scratch.0, 0, 0, 0, 0])?;
    Ok(errand.memory().read_u64(scratch)?)
}

/// Timers, queued signals and clocks of one moment. A timer is asked before the clocks, so that it can ring late by what
/// lies between, never early; and if a signal came meanwhile, all are asked again, so that no expiry counts twice or not
/// at all.
fn moment(
    errand: &mut Errand,
    tids: &[i32],
    timers: &[proc::PosixTimer],
    watch: &Watch,
    report: &mut SelfReport,
) -> Result<()> {
    // Who is sent signals faster than it can be asked is served like that.
    const MAX_ROUNDS: usize = 16;
    let at = errand.scratch().0;
    let pid = *tids.first().ok_or_else(lost)?;
    let queued = || -> Result<(Queue, Vec<Queue>)> {
        let own = tids.iter().map(|tid| Ok(sys::peek_siginfo(*tid, false)?)).collect::<Result<_>>()?;
        Ok((sys::peek_siginfo(pid, true)?, own))
    };
    let mut before = queued()?;
    for _ in 0..MAX_ROUNDS {
        watch.check()?;
        for (which, timer) in report.interval_timers.iter_mut().enumerate() {
            errand.call("getitimer", libc::SYS_getitimer, [which as u64, at, 0, 0, 0, 0])?;
            *timer = interval(errand)?;
            // Expired, and its SIGALRM is queued: the kernel starts the next period when that is taken (`__dequeue_signal`),
            // and a setting with value 0 would stop it for good.
            if timer.value == (0, 0) {
                timer.value = timer.interval;
            }
        }
        report.posix_timers.clear();
        for timer in timers {
            let id = u64::from(timer.id);
            errand.call("timer_gettime", libc::SYS_timer_gettime, [id, at, 0, 0, 0, 0])?;
            let setting = interval(errand)?;
            let overrun = errand.call_raw(libc::SYS_timer_getoverrun, [id, 0, 0, 0, 0, 0])?.max(0) as u32;
            report.posix_timers.push(TimerState { timer: *timer, setting, overrun });
        }
        report.clocks = super::task::clocks(pid)?;
        report.asked = Some(Instant::now());
        let after = queued()?;
        if std::mem::replace(&mut before, after.clone()) == after {
            break;
        }
    }
    let (shared, own) = before;
    report.queued = shared;
    for (thread, queue) in report.threads.iter_mut().zip(own) {
        thread.queued = queue;
    }
    Ok(())
}

fn words<const N: usize>(errand: &Errand) -> std::result::Result<[u64; N], Error> {
    let bytes = errand.memory().read_vec(errand.scratch(), 8 * N)?;
    Ok(std::array::from_fn(|i| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap_or_default())))
}

fn interval(errand: &Errand) -> std::result::Result<Interval, Error> {
    let [a, b, c, d] = words::<4>(errand)?;
    Ok(Interval { interval: (a, b), value: (c, d) })
}
