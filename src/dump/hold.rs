//! `isamorph park` and `unpark`: a portable process held in its stub's gate, with no tracer, for any CRIU to dump.
//!
//! The gate is an untimed futex wait on the record's flags word, inside the stub and before its call.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isamorph_arch::{RegisterFile, RemoteAddr, syscall_record as record};

use super::guard::Undo;
use super::{Error, Log, Options, Report, Result, freeze, survey};
use crate::portable::Executable;
use crate::tracee::host::{self, SYSCALL_LEN};
use crate::tracee::proc::BlockedCall;
use crate::tracee::{Running, Watch};

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
    let closed = record::FLAG_RESUMED | record::FLAG_GATE;
    let result = frozen.stopped().and_then(|stopped| Ok(stopped.memory()?.write(flags, &closed.to_le_bytes())?));
    freeze::release(frozen, undo, log);
    result?;
    undo.complete.store(true, Ordering::SeqCst);
    // It only has to walk a few instructions to the gate.
    let deadline = Instant::now() + Duration::from_secs(5);
    while BlockedCall::read(pid)?.is_none_or(|call| call.pc.0 != executable.manifest.gate_insn + SYSCALL_LEN) {
        if Instant::now() > deadline {
            return Err(Error::NotHeld { pid, reason: "it did not come to the gate".into() });
        }
        watch.check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Report { parked: true, freezing, frozen: started.elapsed(), pages: 0 })
}

/// Opens the gate of a process that [`park`] holds.
///
/// # Errors
/// It is not held.
pub fn unpark(pid: i32, timeout: Duration, log: &Log) -> Result<()> {
    let executable = executable(pid, log)?;
    let manifest = &executable.manifest;
    let watch = Watch::new(None, Instant::now().checked_add(timeout))?;
    let running = Running::seize(pid)?;
    let before = BlockedCall::read(pid)?;
    let (mut stopped, _) = running.interrupt(&watch)?;
    let mut registers = stopped.registers()?;
    let at = host::interrupted_at(&registers).0;
    let held = (at == manifest.gate_insn || registers.pc().0 == manifest.gate_insn)
        && before.is_some_and(|call| call.pc.0 == manifest.gate_insn + SYSCALL_LEN);
    if !held {
        let reason = format!("its thread is at {}", executable.name(registers.pc()));
        stopped.detach()?;
        return Err(Error::NotHeld { pid, reason });
    }
    let memory = stopped.memory()?;
    let flags = RemoteAddr(registers.sp().0.wrapping_add(record::FLAGS));
    memory.write(flags, &(memory.read_u64(flags)? & !record::FLAG_GATE).to_le_bytes())?;
    if let RegisterFile::X86_64(regs) = &mut registers {
        (regs.orig_rax, regs.rax) = (u64::MAX, 0);
    }
    registers.set_pc(RemoteAddr(manifest.syscall_restart));
    stopped.set_registers(&registers)?;
    Ok(stopped.detach()?)
}
