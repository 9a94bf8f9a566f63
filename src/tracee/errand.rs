//! System calls that a stopped thread makes for us, and returns from by itself if we die.
//!
//! Some of a process's state can only be asked for by the process itself (`sigaltstack`, `brk`,
//! timers). The thread is sent to three instructions, *one system call, then `rt_sigreturn`*, with `sp`
//! at a signal frame that holds its registers, floating-point state and signal mask:
//!
//! ```text
//!            site:  syscall              ◀── pc, number and arguments set by us; stopped again after it
//!                   mov  $15, %eax
//!                   syscall              ──▶ only if nobody stops it: everything as it was before
//!   sp ──▶  frame:  ucontext
//!           scratch: buffers of the calls
//!           red zone, then the thread's own stack
//! ```
//!
//! The instructions are the runtime's own in a portable executable. Elsewhere they are written into
//! zeros that fill up the last page of an executable mapping, the vDSO by preference, and wiped out
//! afterwards; no code that anything else runs is touched. The same goes for the stack below `sp`.
use std::io;

use isamorph_arch::{RegisterFile, RemoteAddr};

use super::host::{self, FRAME_MAX, GADGET, RED_ZONE};
use super::maps::{Backing, Mapping};
use super::{Error, Memory, Result, Stop, Stopped};

/// Bytes for buffers of the calls.
pub const SCRATCH_LEN: usize = 1024;
/// Signals that a thread raises by its own instructions; blocking them would kill it.
pub const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Every signal blocked but those that instructions raise.
#[must_use]
pub fn quiet_mask() -> u64 {
    SYNCHRONOUS.iter().fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)))
}

/// A thread on an errand.
#[derive(Debug)]
pub struct Errand {
    stopped: Stopped,
    memory: Memory,
    /// What it returns to.
    registers: RegisterFile,
    mask: u64,
    site: RemoteAddr,
    frame: RemoteAddr,
    scratch: RemoteAddr,
    stack_before: Vec<u8>,
    gadget_written: bool,
}

impl Errand {
    /// Sends a thread off from a stop that we asked for. It comes back to `registers`; `gadget` is
    /// where the executable itself has the instructions, if it does.
    ///
    /// # Errors
    /// If there is no room for the instructions or the frame; nothing has changed then.
    pub fn begin(
        stopped: Stopped,
        registers: RegisterFile,
        mappings: &[Mapping],
        gadget: Option<RemoteAddr>,
    ) -> std::result::Result<Self, (Stopped, Error)> {
        match prepare(&stopped, &registers, mappings, gadget) {
            Ok(plan) => plan.depart(stopped, registers),
            Err(error) => Err((stopped, error)),
        }
    }

    /// Where buffers of the calls may be: [`SCRATCH_LEN`] bytes.
    #[must_use]
    pub fn scratch(&self) -> RemoteAddr {
        self.scratch
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes one system call that cannot block; returns its result, negative errno included.
    ///
    /// # Errors
    /// If the thread dies or is led astray.
    pub fn call_raw(&mut self, number: i64, args: [u64; 6]) -> Result<i64> {
        let detour = host::detour(&self.registers, self.site, self.frame, number as u64, args);
        self.stopped.set_registers(&detour)?;
        let unexpected =
            |got: Stop, expected| Err(Error::Unexpected { pid: self.memory.pid(), got: format!("{got:?}"), expected });
        match self.stopped.step_syscall()? {
            Stop::Entry(_) => {}
            other => return unexpected(other, "the entry of a system call"),
        }
        match self.stopped.step_syscall()? {
            Stop::Exit(value) => Ok(value),
            other => unexpected(other, "the exit of a system call"),
        }
    }

    /// Makes one system call that cannot block; its failure is an error.
    ///
    /// # Errors
    /// As [`Errand::call_raw`]; the call's own.
    pub fn call(&mut self, call: &'static str, number: i64, args: [u64; 6]) -> Result<u64> {
        let value = self.call_raw(number, args)?;
        if (-4095..0).contains(&value) {
            let source = io::Error::from_raw_os_error(-(value as i32));
            return Err(Error::Errand { call, pid: self.memory.pid(), source });
        }
        Ok(value as u64)
    }

    /// Brings the thread back: registers, mask and memory as they were, in a stop that the kernel's
    /// own restart of system calls follows.
    ///
    /// # Errors
    /// If it dies.
    pub fn finish(mut self) -> Result<Stopped> {
        let stop = self.stopped.step_to_interrupt()?;
        if !matches!(stop, Stop::Interrupted | Stop::Group(_)) {
            return Err(Error::Unexpected {
                pid: self.memory.pid(),
                got: format!("{stop:?}"),
                expected: "a stop that was asked for",
            });
        }
        // The frame carries the mask as well, so the order is safe: mask, registers, and only then what they rested on.
        self.stopped.set_sigmask(self.mask)?;
        self.stopped.set_registers(&self.registers)?;
        self.memory.write(self.frame, &self.stack_before)?;
        if self.gadget_written {
            self.memory.write(self.site, &[0; GADGET.len()])?;
        }
        Ok(self.stopped)
    }
}

struct Plan {
    memory: Memory,
    mask: u64,
    site: RemoteAddr,
    write_gadget: bool,
    frame: RemoteAddr,
    frame_bytes: Vec<u8>,
    stack_before: Vec<u8>,
}

fn prepare(
    stopped: &Stopped,
    registers: &RegisterFile,
    mappings: &[Mapping],
    gadget: Option<RemoteAddr>,
) -> Result<Plan> {
    let memory = stopped.memory()?;
    let no_errand = |reason| Error::NoErrand { pid: stopped.pid(), reason };
    let own = match gadget {
        Some(at) if memory.read_vec(at, GADGET.len())? == GADGET => Some(at),
        _ => None,
    };
    let site = match own {
        Some(at) => at,
        None => find_padding(&memory, mappings)
            .ok_or_else(|| no_errand("no executable mapping of it ends in unused bytes"))?,
    };
    let len = FRAME_MAX.next_multiple_of(16) + SCRATCH_LEN;
    let below = registers.sp().0.checked_sub(RED_ZONE + len as u64).map(|at| at & !63);
    let candidates = below.into_iter().chain(
        // No room on the stack: anywhere it may write, since what was there is put back.
        mappings
            .iter()
            .filter(|m| m.write && m.read && !m.shared && m.len() >= 2 * len as u64)
            .map(|m| (m.end.0 - len as u64) & !63),
    );
    let mut found = None;
    for at in candidates {
        // Writing what is there also makes a growing stack grow.
        if let Ok(before) = memory.read_vec(RemoteAddr(at), len)
            && memory.write(RemoteAddr(at), &before).is_ok()
        {
            found = Some((RemoteAddr(at), before));
            break;
        }
    }
    let (frame, stack_before) = found.ok_or_else(|| no_errand("there is no room for a signal frame on its stack"))?;
    let mask = stopped.sigmask()?;
    let frame_bytes = host::signal_frame(frame, registers, &stopped.fp()?, mask);
    if frame_bytes.is_empty() || frame_bytes.len() > FRAME_MAX {
        return Err(no_errand("its registers do not fit a signal frame"));
    }
    Ok(Plan { memory, mask, site, write_gadget: own.is_none(), frame, frame_bytes, stack_before })
}

impl Plan {
    fn depart(self, mut stopped: Stopped, registers: RegisterFile) -> std::result::Result<Errand, (Stopped, Error)> {
        let steps = (|| {
            if self.write_gadget {
                self.memory.write(self.site, &GADGET)?;
            }
            self.memory.write(self.frame, &self.frame_bytes)?;
            // From here on the thread, left alone, would call getpid and return.
            stopped.set_registers(&host::detour(&registers, self.site, self.frame, libc::SYS_getpid as u64, [0; 6]))?;
            stopped.set_sigmask(quiet_mask())
        })();
        if let Err(error) = steps {
            return Err((stopped, error));
        }
        let scratch = RemoteAddr(self.frame.0 + FRAME_MAX.next_multiple_of(16) as u64);
        Ok(Errand {
            stopped,
            memory: self.memory,
            registers,
            mask: self.mask,
            site: self.site,
            frame: self.frame,
            scratch,
            stack_before: self.stack_before,
            gadget_written: self.write_gadget,
        })
    }
}

/// Zeros at the end of an executable private mapping, where no code can be.
fn find_padding(memory: &Memory, mappings: &[Mapping]) -> Option<RemoteAddr> {
    const ROOM: usize = 64;
    let executable = |m: &&Mapping| m.exec && !m.shared && m.len() >= 4096;
    let vdso = mappings.iter().filter(|m| m.backing == Backing::Vdso);
    let others = mappings.iter().filter(|m| matches!(m.backing, Backing::File { .. }));
    vdso.chain(others).filter(executable).find_map(|m| {
        let tail = memory.read_vec(RemoteAddr(m.end.0 - ROOM as u64), ROOM).ok()?;
        tail.iter().all(|byte| *byte == 0).then(|| RemoteAddr(m.end.0 - 32))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::proc::BlockedCall;
    use super::super::{Running, Watch, maps};
    use super::*;

    /// A process blocked in `clock_nanosleep` for `seconds`.
    fn sleeper(seconds: &str) -> Child {
        let child = Command::new("sleep").arg(seconds).stdout(Stdio::null()).spawn().expect("sleep runs");
        let pid = child.id() as i32;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !matches!(BlockedCall::read(pid), Ok(Some(call)) if call.number == libc::SYS_clock_nanosleep as u64) {
            assert!(Instant::now() < deadline, "sleep does not sleep");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn interrupt(pid: i32) -> Stopped {
        let watch = Watch::new(None, Some(Instant::now() + Duration::from_secs(10))).expect("watch");
        Running::seize(pid).expect("seize").interrupt(&watch).expect("interrupt").0
    }

    #[test]
    fn an_errand_changes_nothing_and_the_sleep_goes_on() {
        let started = Instant::now();
        let mut child = sleeper("2");
        std::thread::sleep(Duration::from_millis(1200).saturating_sub(started.elapsed()));
        let stopped = interrupt(child.id() as i32);
        let registers = stopped.registers().expect("registers");
        let mask = stopped.sigmask().expect("mask");
        let mappings = maps::read(stopped.pid()).expect("maps");
        let mut errand = Errand::begin(stopped, registers, &mappings, None).map_err(|(_, e)| e).expect("begin");
        assert_eq!(errand.call("getpid", libc::SYS_getpid, [0; 6]).expect("getpid"), u64::from(child.id()));
        assert!(errand.call("close", libc::SYS_close, [9999, 0, 0, 0, 0, 0]).is_err());
        let stopped = errand.finish().expect("finish");
        assert_eq!(stopped.registers().expect("registers"), registers);
        assert_eq!(stopped.sigmask().expect("mask"), mask);
        stopped.detach().expect("detach");
        assert!(child.wait().expect("wait").success());
        let total = started.elapsed();
        assert!((1900..2500).contains(&total.as_millis()), "slept {total:?} instead of 2 s");
    }

    #[test]
    fn a_thread_left_alone_on_an_errand_returns_by_itself() {
        let mut child = sleeper("1");
        let stopped = interrupt(child.id() as i32);
        let registers = stopped.registers().expect("registers");
        let back = host::fresh_call(&registers, BlockedCall::read(stopped.pid()).ok().flatten().as_ref());
        let mappings = maps::read(stopped.pid()).expect("maps");
        let mut errand = Errand::begin(stopped, back, &mappings, None).map_err(|(_, e)| e).expect("begin");
        errand.call("getpid", libc::SYS_getpid, [0; 6]).expect("getpid");
        // What the kernel does when a tracer dies.
        let Errand { stopped, .. } = errand;
        stopped.detach().expect("detach");
        assert!(child.wait().expect("wait").success());
    }
}
