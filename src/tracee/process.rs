//! One traced thread: stopped and running as moved values.
use std::time::Duration;

use isamorph_arch::{RegisterFile, RemoteAddr};

use super::errand::quiet_mask;
use super::host::SYSCALL_LEN;
use super::proc::Status;
use super::{Error, FpState, Memory, Result, Watch, host, sys};

/// Why a thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// We interrupted it.
    Interrupted,
    /// Job control stopped its process with this signal.
    Group(i32),
    /// It is about to make this system call.
    Entry(u64),
    /// It made a system call, with this result.
    Exit(i64),
    /// It is about to receive this signal.
    Signal(i32),
    /// `PTRACE_EVENT_*`: fork, vfork, clone, exec.
    Event(i32),
}

/// A traced thread that runs.
#[derive(Debug)]
#[must_use = "a traced thread that is forgotten stays traced"]
pub struct Running {
    pid: i32,
}

/// A traced thread in a ptrace stop.
#[derive(Debug)]
#[must_use = "a stopped thread that is forgotten stays stopped as long as this program lives"]
pub struct Stopped {
    pid: i32,
}

/// The outcome of waiting a while.
#[derive(Debug)]
pub enum Waited {
    /// It stopped.
    Stopped(Stopped, Stop),
    /// It still runs.
    Running(Running),
}

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

impl Running {
    /// Attaches to a thread without stopping it.
    ///
    /// # Errors
    /// If it is gone, traced by somebody else, or not ours to trace.
    pub fn seize(pid: i32) -> Result<Self> {
        sys::simple("SEIZE", sys::PTRACE_SEIZE, pid, OPTIONS as usize)?;
        Ok(Self { pid })
    }

    /// A thread that this tracer has seized and let run, whose value was lost in a failed wait.
    pub fn new_unchecked(pid: i32) -> Self {
        Self { pid }
    }

    /// Its thread ID.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Stops it wherever it is. A signal that is just being delivered is let through first.
    ///
    /// # Errors
    /// If it dies, or does not stop before the deadline.
    pub fn interrupt(self, watch: &Watch) -> Result<(Stopped, Stop)> {
        sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, self.pid, 0)?;
        let mut running = self;
        loop {
            let (stopped, stop) = running.wait(watch, "it is in uninterruptible sleep")?;
            match stop {
                Stop::Interrupted | Stop::Group(_) => return Ok((stopped, stop)),
                // Any stop uses up the request for one (`ptrace_stop`).
                Stop::Signal(signal) => running = stopped.resume_to_stop(signal)?,
                Stop::Entry(_) | Stop::Exit(_) | Stop::Event(_) => running = stopped.resume_to_stop(0)?,
            }
        }
    }

    /// Asks it to stop; the next wait reports [`Stop::Interrupted`], if nothing else comes first, which uses the request up.
    ///
    /// # Errors
    /// If it is gone.
    pub fn ask_to_stop(&self) -> Result<()> {
        sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, self.pid, 0).map(drop)
    }

    /// Waits for its next stop.
    ///
    /// # Errors
    /// If it dies, the command is gone, or the deadline is over.
    pub fn wait(self, watch: &Watch, waiting_for: &'static str) -> Result<(Stopped, Stop)> {
        let pid = self.pid;
        let mut running = self;
        loop {
            match running.wait_for(watch, Duration::from_secs(3600))? {
                Waited::Stopped(stopped, stop) => return Ok((stopped, stop)),
                Waited::Running(still) => running = still,
            }
            if watch.deadline().is_some_and(|deadline| deadline <= std::time::Instant::now()) {
                return Err(Error::Timeout { pid, waiting_for });
            }
        }
    }

    /// Waits for its next stop for at most `limit`, or until the watch's deadline.
    ///
    /// # Errors
    /// If it dies, or the command is gone.
    pub fn wait_for(self, watch: &Watch, limit: Duration) -> Result<Waited> {
        let until = std::time::Instant::now() + limit;
        loop {
            if let Some(stop) = collect(self.pid, libc::WNOHANG)? {
                return Ok(Waited::Stopped(Stopped { pid: self.pid }, stop));
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || !watch.sleep(left)? {
                return Ok(Waited::Running(self));
            }
        }
    }
}

impl Stopped {
    /// A thread that is known to be in a ptrace stop of this tracer: one that an event attached.
    pub fn new_unchecked(pid: i32) -> Self {
        Self { pid }
    }

    /// Its thread ID.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its memory.
    ///
    /// # Errors
    /// If it is not ours to read.
    pub fn memory(&self) -> Result<Memory> {
        Memory::open(self.pid)
    }

    /// Its general registers.
    ///
    /// # Errors
    /// Of ptrace; a process in 32-bit mode.
    pub fn registers(&self) -> Result<RegisterFile> {
        host::get_registers(self.pid)
    }

    /// Sets its general registers.
    ///
    /// # Errors
    /// Of ptrace.
    pub fn set_registers(&mut self, registers: &RegisterFile) -> Result<()> {
        host::set_registers(self.pid, registers)
    }

    /// Its floating-point registers.
    ///
    /// # Errors
    /// Of ptrace.
    pub fn fp(&self) -> Result<FpState> {
        host::get_fp(self.pid)
    }

    /// Its blocked signals.
    ///
    /// # Errors
    /// Of ptrace.
    pub fn sigmask(&self) -> Result<u64> {
        sys::get_sigmask(self.pid)
    }

    /// Sets its blocked signals.
    ///
    /// # Errors
    /// Of ptrace.
    pub fn set_sigmask(&mut self, mask: u64) -> Result<()> {
        sys::set_sigmask(self.pid, mask)
    }

    /// Lets it run, with `signal` delivered (0: none).
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume(self, signal: i32) -> Result<Running> {
        sys::simple("CONT", sys::PTRACE_CONT, self.pid, signal as usize)?;
        Ok(Running { pid: self.pid })
    }

    /// Lets it receive `signal` and stops it again, with [`Stop::Interrupted`] or [`Stop::Group`], before its next
    /// instruction: the first of the handler, if there is one.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume_to_stop(self, signal: i32) -> Result<Running> {
        sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, self.pid, 0)?;
        self.resume(signal)
    }

    /// Lets it run until it enters or leaves a system call, with `signal` delivered (0: none).
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume_to_syscall(self, signal: i32) -> Result<Running> {
        sys::simple("SYSCALL", sys::PTRACE_SYSCALL, self.pid, signal as usize)?;
        Ok(Running { pid: self.pid })
    }

    /// Lets it go for good.
    ///
    /// # Errors
    /// If it is gone.
    pub fn detach(self) -> Result<()> {
        self.detach_with(0)
    }

    /// Lets it go for good, with `signal` delivered (0: none).
    ///
    /// # Errors
    /// If it is gone.
    pub fn detach_with(self, signal: i32) -> Result<()> {
        sys::simple("DETACH", sys::PTRACE_DETACH, self.pid, signal as usize).map(drop)
    }

    /// Lets it run to the entry or exit of a system call that cannot block, and waits there.
    ///
    /// # Errors
    /// If it dies.
    pub fn step_syscall(&mut self) -> Result<Stop> {
        sys::simple("SYSCALL", sys::PTRACE_SYSCALL, self.pid, 0)?;
        self.collect_blocking()
    }

    /// From a system-call stop to one that we ask for, before any instruction of the thread runs.
    ///
    /// # Errors
    /// If it dies.
    pub fn step_to_interrupt(&mut self) -> Result<Stop> {
        sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, self.pid, 0)?;
        sys::simple("CONT", sys::PTRACE_CONT, self.pid, 0)?;
        self.collect_blocking()
    }

    /// Lets a thread at its stub's restart label get to the call, at one of `calls`, before signals come in that wait for
    /// it: they interrupt the call, as they would have if nobody had stopped it. (A pause(2) that is made after its
    /// signal's handler would never return.) Without such signals nothing happens.
    ///
    /// # Errors
    /// If it dies.
    pub fn enter_call(&mut self, calls: [RemoteAddr; 2]) -> Result<()> {
        // The stub calls little more than clock_gettime on its way.
        const MAX_STOPS: usize = 16;
        if Status::read(self.pid)?.deliverable() == 0 {
            return Ok(());
        }
        let mask = self.sigmask()?;
        self.set_sigmask(mask | quiet_mask())?;
        for _ in 0..MAX_STOPS {
            match self.step_syscall()? {
                Stop::Entry(_) if calls.contains(&RemoteAddr(self.registers()?.pc().0.wrapping_sub(SYSCALL_LEN))) => {
                    break;
                }
                Stop::Entry(_) | Stop::Exit(_) => {}
                // SIGSTOP, a fault: not ours to hold.
                _ => break,
            }
        }
        self.set_sigmask(mask)
    }

    fn collect_blocking(&mut self) -> Result<Stop> {
        loop {
            if let Some(stop) = collect(self.pid, 0)? {
                return Ok(stop);
            }
        }
    }
}

/// One `waitpid`: the thread's next stop, `None` if there is no news.
fn collect(pid: i32, flags: i32) -> Result<Option<Stop>> {
    let mut status = 0;
    // SAFETY: `status` is where the kernel writes four bytes.
    let answer = unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) };
    match answer {
        0 => return Ok(None),
        -1 => {
            let error = std::io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINTR) => Ok(None),
                Some(libc::ECHILD) => Err(Error::Gone { pid }),
                _ => Err(Error::System { what: format!("waiting for process {pid}"), source: error }),
            };
        }
        _ => {}
    }
    if libc::WIFEXITED(status) {
        return Err(Error::Died { pid, how: format!("exit status {}", libc::WEXITSTATUS(status)) });
    }
    if libc::WIFSIGNALED(status) {
        return Err(Error::Died { pid, how: format!("signal {}", libc::WTERMSIG(status)) });
    }
    let signal = libc::WSTOPSIG(status);
    Ok(Some(match status >> 16 {
        0 if signal == sys::SYSCALL_STOP => match sys::syscall_info(pid)? {
            sys::SyscallStop::Entry(number) => Stop::Entry(number),
            sys::SyscallStop::Exit(value) => Stop::Exit(value),
            sys::SyscallStop::None => {
                return Err(Error::Unexpected {
                    pid,
                    got: "a system-call stop outside a system call".into(),
                    expected: "an entry or an exit",
                });
            }
        },
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Interrupted,
        libc::PTRACE_EVENT_STOP => Stop::Group(signal),
        event => Stop::Event(event),
    }))
}
