//! `isamorph park` and `unpark`: a portable process held in its stub's gate, with no tracer, for any CRIU to dump.
//!
//! The gate is an untimed futex wait on the flags word of each thread's record, inside the stub and before its call. All
//! signals wait outside: a handler would leave the equivalence point, for as long as it runs. A thread's own mask is in
//! its record.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isamorph_arch::{RegisterFile, RemoteAddr, syscall_record as record};

use super::guard::Undo;
use super::{Error, Log, Options, Report, Result, freeze, survey};
use crate::portable::Executable;
use crate::tracee::host::{self, SYSCALL_LEN};
use crate::tracee::proc::{self, BlockedCall};
use crate::tracee::{Memory, Running, Stopped, Watch};

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
    let tids: Vec<i32> = frozen.threads.iter().map(|thread| thread.tid).collect();
    let result = frozen.leader().and_then(|leader| close_gates(&leader.stopped()?.memory()?, &frozen));
    freeze::release(frozen, undo, log);
    result?;
    undo.complete.store(true, Ordering::SeqCst);
    // They only have to walk a few instructions to the gate; but handlers of signals that came meanwhile may be first.
    let deadline = Instant::now() + Duration::from_secs(5);
    for tid in tids {
        while !shut_out_signals(tid, &executable, watch)? {
            if Instant::now() > deadline {
                return Err(Error::NotHeld { pid, reason: format!("its thread {tid} did not come to the gate") });
            }
            watch.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(Report { parked: true, freezing, frozen: started.elapsed(), pages: 0 })
}

/// Closes the gate of every thread. What is parked already keeps its mask.
fn close_gates(memory: &Memory, frozen: &freeze::Frozen) -> Result<()> {
    for thread in &frozen.threads {
        let flags = RemoteAddr(thread.registers.sp().0.wrapping_add(record::FLAGS));
        let closed = memory.read_u64(flags)? | record::FLAG_RESUMED | record::FLAG_GATE;
        memory.write(flags, &closed.to_le_bytes())?;
    }
    Ok(())
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

    /// Opens it: the thread will go on from the restart label, with its own mask. `flags` are its record's.
    fn open(&mut self, flags: u64, executable: &Executable) -> Result<()> {
        let memory = self.stopped.memory()?;
        if flags & record::FLAG_MASK != 0 {
            let own = memory.read_u64(self.word(record::GATE_MASK))?;
            self.stopped.set_sigmask(own)?;
        }
        let opened = flags & !(record::FLAG_GATE | record::FLAG_MASK);
        memory.write(self.word(record::FLAGS), &opened.to_le_bytes())?;
        if let RegisterFile::X86_64(regs) = &mut self.registers {
            (regs.orig_rax, regs.rax) = (u64::MAX, 0);
        }
        self.registers.set_pc(RemoteAddr(executable.manifest.syscall_restart));
        Ok(self.stopped.set_registers(&self.registers)?)
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

/// Opens the gates of a process that [`park`] holds, all of them or none.
///
/// # Errors
/// It is not held: none of its threads stands at a closed gate. One that is elsewhere while others are held, as
/// after an `unpark` that was killed, goes on as it does, and is named in the log.
pub fn unpark(pid: i32, timeout: Duration, log: &Log) -> Result<()> {
    let executable = executable(pid, log)?;
    let watch = Watch::new(None, Instant::now().checked_add(timeout))?;
    let (mut gates, mut elsewhere) = (Vec::new(), Vec::new());
    for tid in proc::threads(pid)? {
        match AtGate::stop(tid, &executable, &watch)? {
            Ok(gate) => gates.push(gate),
            Err(place) => elsewhere.push(format!("thread {tid} is at {place}")),
        }
    }
    let mut closed = Vec::new();
    for gate in gates {
        let value = gate.stopped.memory()?.read_u64(gate.word(record::FLAGS))?;
        if value & record::FLAG_GATE == 0 {
            elsewhere.push(format!("the gate of thread {} is open", gate.stopped.pid()));
            gate.stopped.detach()?;
        } else {
            closed.push((gate, value));
        }
    }
    if closed.is_empty() {
        return Err(Error::NotHeld { pid, reason: elsewhere.join(", ") });
    }
    for place in elsewhere {
        log.warn(&place);
    }
    for (gate, value) in &mut closed {
        gate.open(*value, &executable)?;
    }
    for (gate, _) in closed.into_iter().rev() {
        gate.stopped.detach()?;
    }
    Ok(())
}
