//! `isamorph park` and `unpark`: a portable process held in its stub's gate, with no tracer, for any CRIU to dump.
//!
//! The gate is an untimed futex wait on the record's flags word, inside the stub and before its call. All signals wait
//! outside: a handler would leave the equivalence point, for as long as it runs. The thread's own mask is in the record.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isamorph_arch::{RegisterFile, RemoteAddr, syscall_record as record};

use super::guard::Undo;
use super::{Error, Log, Options, Report, Result, freeze, survey};
use crate::portable::Executable;
use crate::tracee::host::{self, SYSCALL_LEN};
use crate::tracee::proc::BlockedCall;
use crate::tracee::{Running, Stopped, Watch};

fn executable(pid: i32, log: &Log) -> Result<Executable> {
    survey::portable_executable(pid, log)?.ok_or_else(|| Error::Unsupported {
        pid,
        what: "an ordinary executable".into(),
        reason: "it has no equivalence points",
        remedy: "compile it with isamorph-cc".into(),
    })
}

/// Parks a process and closes the gate.
///
/// # Errors
/// It is not portable, or did not get there in time; it goes on then.
pub fn park(options: &Options, watch: &mut Watch, undo: &Undo, log: &Log) -> Result<Report> {
    let started = Instant::now();
    let pid = options.pid;
    let executable = executable(pid, log)?;
    let survey = survey::survey(options, log)?;
    let frozen = freeze::freeze(&survey, watch, undo, log)?;
    let freezing = started.elapsed();
    let flags = RemoteAddr(frozen.registers.sp().0.wrapping_add(record::FLAGS));
    let result = frozen.stopped().and_then(|stopped| {
        let memory = stopped.memory()?;
        // What is parked already keeps its mask.
        let closed = memory.read_u64(flags)? | record::FLAG_RESUMED | record::FLAG_GATE;
        Ok(memory.write(flags, &closed.to_le_bytes())?)
    });
    freeze::release(frozen, undo, log);
    result?;
    undo.complete.store(true, Ordering::SeqCst);
    // It only has to walk a few instructions to the gate; but handlers of signals that came meanwhile may be first.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !shut_out_signals(pid, &executable, watch)? {
        if Instant::now() > deadline {
            return Err(Error::NotHeld { pid, reason: "it did not come to the gate".into() });
        }
        watch.check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Report { parked: true, freezing, frozen: started.elapsed(), pages: 0 })
}

/// A thread that stands in the gate, stopped.
struct AtGate {
    stopped: Stopped,
    registers: RegisterFile,
}

impl AtGate {
    /// Stops a thread. The error is where it is instead; it goes on then.
    fn stop(pid: i32, executable: &Executable, watch: &Watch) -> Result<std::result::Result<Self, String>> {
        let gate = executable.manifest.gate_insn;
        let running = Running::seize(pid)?;
        // What it is blocked in shows only before: a stop makes aarch64 forget.
        let before = BlockedCall::read(pid)?;
        let (stopped, _) = running.interrupt(watch)?;
        let registers = stopped.registers()?;
        let at = host::interrupted_at(&registers).0;
        let held =
            (at == gate || registers.pc().0 == gate) && before.is_some_and(|call| call.pc.0 == gate + SYSCALL_LEN);
        if held {
            return Ok(Ok(Self { stopped, registers }));
        }
        let place = executable.name(registers.pc());
        stopped.detach()?;
        Ok(Err(place))
    }

    /// A word of its record.
    fn word(&self, offset: u64) -> RemoteAddr {
        RemoteAddr(self.registers.sp().0.wrapping_add(offset))
    }
}

/// Blocks all signals of a thread in the gate; whether it is there. What is told first and done second is
/// harmless should this program die in between: the mask is written down, and the gate is closed.
fn shut_out_signals(pid: i32, executable: &Executable, watch: &Watch) -> Result<bool> {
    let at_gate = BlockedCall::read(pid)?.is_some_and(|call| call.pc.0 == executable.manifest.gate_insn + SYSCALL_LEN);
    if !at_gate {
        return Ok(false);
    }
    let Ok(mut gate) = AtGate::stop(pid, executable, watch)? else { return Ok(false) };
    let (memory, flags) = (gate.stopped.memory()?, gate.word(record::FLAGS));
    let value = memory.read_u64(flags)?;
    if value & record::FLAG_MASK == 0 {
        memory.write(gate.word(record::GATE_MASK), &gate.stopped.sigmask()?.to_le_bytes())?;
        memory.write(flags, &(value | record::FLAG_MASK).to_le_bytes())?;
    }
    gate.stopped.set_sigmask(u64::MAX)?;
    gate.stopped.detach()?;
    Ok(true)
}

/// Opens the gate of a process that [`park`] holds.
///
/// # Errors
/// It is not held.
pub fn unpark(pid: i32, timeout: Duration, log: &Log) -> Result<()> {
    let executable = executable(pid, log)?;
    let watch = Watch::new(None, Instant::now().checked_add(timeout))?;
    let mut gate = match AtGate::stop(pid, &executable, &watch)? {
        Ok(gate) => gate,
        Err(place) => return Err(Error::NotHeld { pid, reason: format!("its thread is at {place}") }),
    };
    let (memory, flags) = (gate.stopped.memory()?, gate.word(record::FLAGS));
    let value = memory.read_u64(flags)?;
    if value & record::FLAG_GATE == 0 {
        gate.stopped.detach()?;
        return Err(Error::NotHeld { pid, reason: "its gate is open".into() });
    }
    if value & record::FLAG_MASK != 0 {
        gate.stopped.set_sigmask(memory.read_u64(gate.word(record::GATE_MASK))?)?;
    }
    memory.write(flags, &(value & !(record::FLAG_GATE | record::FLAG_MASK)).to_le_bytes())?;
    if let RegisterFile::X86_64(regs) = &mut gate.registers {
        (regs.orig_rax, regs.rax) = (u64::MAX, 0);
    }
    gate.registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
    gate.stopped.set_registers(&gate.registers)?;
    Ok(gate.stopped.detach()?)
}
