//! Making the process: the area, the clone, the wait, the last steps under ptrace, the release.
//!
//! ```text
//!   parent                          child
//!   maps the area, writes program
//!   clone3(set_tid = [pid]) ──────▶ interpreter: reads one byte from the go pipe
//!   PTRACE_SEIZE, EXITKILL
//!   writes the byte ──────────────▶ ... all calls; the last one closes every helper descriptor
//!   end of file on the status pipe  waits in ppoll
//!   interrupts it, lets it unmap the area, sets registers and signal mask
//!   PTRACE_DETACH ────────────────▶ the restored process
//! ```
//!
//! The registers are set by ptrace, not by a signal frame: so the area can be unmapped, and nothing
//! of the restorer is left in the process. If this program dies before the release, so does the child.
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use isamorph_arch::RemoteAddr;

use super::host::{self, CloneArgs};
use super::program::{Arg, Expect, PAGE, Program};
use super::tree::{Thread, Tree};
use super::{Error, Result, TASK_STOPPED, files::Helpers};
use crate::portable::Executable;
use crate::tracee::proc::{self, Status};
use crate::tracee::{Memory, sys};

unsafe extern "C" {
    static __isamorph_restorer_start: u8;
    static __isamorph_restorer_syscall: u8;
    static __isamorph_restorer_end: u8;
}

/// The interpreter, position-independent.
fn code() -> &'static [u8] {
    // SAFETY: the symbols bound the read-only section that global_asm! makes in this program.
    unsafe {
        let start = &raw const __isamorph_restorer_start;
        let len = (&raw const __isamorph_restorer_end).offset_from(start);
        std::slice::from_raw_parts(start, len as usize)
    }
}

/// Offset of the lone system-call instruction in the interpreter.
#[must_use]
pub fn call_offset() -> u64 {
    // SAFETY: both symbols are in the same object.
    unsafe { (&raw const __isamorph_restorer_syscall).offset_from(&raw const __isamorph_restorer_start) as u64 }
}

/// The pipes between parent and child.
#[derive(Debug)]
pub struct Pipes {
    go: File,
    status: File,
    go_read: RawFd,
    go_write: RawFd,
    status_write: RawFd,
    ready_read: RawFd,
    ready_write: RawFd,
    child_ends: Vec<OwnedFd>,
}

impl Pipes {
    /// Makes them, the ends of the child above the base.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn new(helpers: &Helpers) -> Result<Self> {
        let high = |fd: OwnedFd| -> Result<OwnedFd> {
            // SAFETY: fcntl takes numbers; the new descriptor is ours.
            let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, helpers.base()) };
            if number < 0 {
                return Err(Error::last("making a pipe to the new process"));
            }
            // SAFETY: fcntl has just made this descriptor.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        };
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Error::system("making a pipe", e));
        let (go_read, go_write) = pipe()?;
        let (status_read, status_write) = pipe()?;
        let (ready_read, ready_write) = pipe()?;
        let (go_read, go_write, status_write) = (high(go_read)?, high(go_write)?, high(status_write)?);
        let (ready_read, ready_write) = (high(ready_read)?, high(ready_write)?);
        Ok(Self {
            ready_read: ready_read.as_raw_fd(),
            ready_write: ready_write.as_raw_fd(),
            go_read: go_read.as_raw_fd(),
            go_write: go_write.as_raw_fd(),
            status_write: status_write.as_raw_fd(),
            go: File::from(go_write),
            status: File::from(status_read),
            child_ends: vec![go_read, status_write, ready_read, ready_write],
        })
    }

    /// The first calls: wait for the parent, and end if it is gone.
    pub fn plan_start(&self, program: &mut Program) {
        let byte = program.data(&[0]);
        program.call("closing the parent's end of a pipe", libc::SYS_close, [self.go_write.into()]);
        let args = [self.go_read.into(), byte, 1.into()];
        program.call_expecting("waiting for the parent", libc::SYS_read, args, Expect::Exactly(1));
    }

    /// The last call of a thread that is not the leader: tells it that all went well.
    pub fn plan_ready(&self, program: &mut Program) {
        let byte = program.data(&[0]);
        let args = [self.ready_write.into(), byte, 1.into()];
        program.call_expecting("telling the leader", libc::SYS_write, args, Expect::Exactly(1));
    }

    /// Waits for one more thread to be ready.
    pub fn plan_await(&self, program: &mut Program, tid: u32) {
        let byte = program.data(&[0]);
        let args = [self.ready_read.into(), byte, 1.into()];
        program.call_expecting(format!("waiting for thread {tid}"), libc::SYS_read, args, Expect::Exactly(1));
    }

    /// The last call: closes every helper descriptor, which tells the parent that all is done.
    pub fn plan_end(&self, program: &mut Program, helpers: &Helpers) {
        let args = [helpers.base().into(), Arg::Value(u32::MAX.into()), 0.into()];
        program.call("closing the restorer's last descriptors", libc::SYS_close_range, args);
    }
}

/// The area in this program, from where the child gets it.
#[derive(Debug)]
struct Area {
    base: u64,
    mapped: u64,
}

impl Area {
    fn make(base: u64, program: &Program, status_fd: RawFd) -> Result<Self> {
        let mapped = program.park_offset();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping that replaces nothing.
        let at = unsafe { libc::mmap(base as *mut libc::c_void, mapped as usize, rw, flags, -1, 0) };
        if at as u64 != base {
            return Err(Error::last(format!("mapping the restorer at {base:#x}")));
        }
        let area = Self { base, mapped };
        let calls = program.encode(base, status_fd);
        let code = code();
        // SAFETY: the mapping is ours, of `mapped` bytes, and both parts fit: the code in its first
        // page, the program in the rest (park_offset is computed from the same lengths).
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), base as *mut u8, code.len().min(PAGE as usize));
            let room = (mapped - PAGE) as usize;
            std::ptr::copy_nonoverlapping(calls.as_ptr(), (base + PAGE) as *mut u8, calls.len().min(room));
            if libc::mprotect(base as *mut libc::c_void, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC) < 0 {
                return Err(Error::last("making the restorer executable"));
            }
        }
        Ok(area)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.mapped as usize) };
    }
}

/// A child that is not released yet: killed and reaped when dropped.
#[derive(Debug)]
struct Child {
    pid: i32,
    armed: bool,
    /// Its other threads that are traced; the leader cannot be reaped before them.
    others: Vec<i32>,
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.armed {
            // SAFETY: takes numbers only; the process is our child and not reaped yet.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                for tid in &self.others {
                    libc::waitpid(*tid, std::ptr::null_mut(), libc::__WALL);
                }
                libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
            }
        }
    }
}

/// Blocks every signal in this thread and its children, as long as it lives.
#[derive(Debug)]
struct Blocked(u64);

impl Blocked {
    fn new() -> Self {
        let (all, mut old) = (u64::MAX, 0u64);
        // SAFETY: the kernel reads and writes 8 bytes each.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut old, 8) };
        Self(old)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let old = self.0;
        // SAFETY: the kernel reads 8 bytes.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const old, 0, 8) };
    }
}

/// What is done from outside when all calls have been made.
#[derive(Debug)]
pub struct Finish<'a> {
    /// Where the process ID is written.
    pub pidfile: Option<&'a Path>,
    /// Memory that is written whatever its protection: addresses and bytes.
    pub patches: &'a [(u64, Vec<u8>)],
}

/// Makes the process and lets it go.
///
/// # Errors
/// Any step fails; nothing of the process is left then.
pub fn launch(tree: &Tree, program: &Program, base: u64, pipes: Pipes, finish: &Finish<'_>) -> Result<()> {
    let area = Area::make(base, program, pipes.status_write)?;
    let Pipes { go, status, child_ends, .. } = pipes;
    let blocked = Blocked::new();
    let mut child = clone_child(tree, &area)?;
    let pid = child.pid;
    drop(child_ends);
    let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
    sys::simple("SEIZE", sys::PTRACE_SEIZE, pid, options as usize)?;
    nix::unistd::write(&go, &[1]).map_err(|e| Error::system("starting the new process", e))?;
    drop(go);
    let failure = wait_for_calls(&child, status)?;
    if let (Some(call), Some(answer)) = (word(&failure, 0), word(&failure, 8)) {
        return Err(failed_step(tree, program, base, call, answer));
    }
    wait_until_done(pid, base, 0)?;
    for (index, thread) in tree.others.iter().enumerate() {
        let tid = thread.tid.cast_signed();
        sys::simple("SEIZE", sys::PTRACE_SEIZE, tid, options as usize)?;
        child.others.push(tid);
        wait_until_done(tid, base, index + 1)?;
    }
    leave(program, &child, base, finish)?;
    for thread in tree.threads() {
        become_thread(tree, thread)?;
    }
    if let Some(path) = finish.pidfile {
        std::fs::write(path, pid.to_string()).map_err(|e| Error::system(format!("writing {}", path.display()), e))?;
    }
    enter_calls(tree)?;
    if tree.task.task_state == TASK_STOPPED {
        // SAFETY: takes numbers only.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
    // The leader last: until then the death of this program is that of the process.
    while let Some(&tid) = child.others.last() {
        release(tid, finish)?;
        child.others.pop();
    }
    release(pid, finish)?;
    child.armed = false;
    drop(blocked);
    Ok(())
}

fn release(tid: i32, finish: &Finish<'_>) -> Result<()> {
    sys::simple("DETACH", sys::PTRACE_DETACH, tid, 0).map(drop).map_err(|error| {
        finish.pidfile.map(std::fs::remove_file);
        error.into()
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn clone_child(tree: &Tree, area: &Area) -> Result<Child> {
    let want = tree.pid();
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: std::ptr::from_ref(&want) as u64,
        set_tid_size: 1,
        ..Default::default()
    };
    // SAFETY: the area holds the interpreter at its start and the program behind it, and the child
    // has a copy of it.
    let result = unsafe { host::clone_into(&args, area.base, Program::header(area.base, 0)) };
    if result >= 0 {
        return Ok(Child { pid: result as i32, armed: true, others: Vec::new() });
    }
    let source = std::io::Error::from_raw_os_error(-result as i32);
    match source.raw_os_error() {
        Some(libc::EEXIST) => {
            let name = std::fs::read_to_string(format!("/proc/{want}/comm"));
            let by = name.map(|n| format!(" by {}", n.trim())).unwrap_or_default();
            Err(Error::PidInUse { pid: want, by })
        }
        Some(libc::EPERM) => Err(tree.unsupported(
            format!("its process ID {want}"),
            "choosing one needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; run as root",
        )),
        _ => Err(Error::system(format!("making process {want}"), source)),
    }
}

fn failed_step(tree: &Tree, program: &Program, base: u64, call: u64, answer: u64) -> Error {
    let code = answer.cast_signed();
    let answer = if (-4095..0).contains(&code) {
        std::io::Error::from_raw_os_error(-code as i32).to_string()
    } else {
        format!("unexpected result {code:#x}")
    };
    Error::Step { pid: tree.pid(), step: program.purpose(program.index_of(base, call)), answer }
}

/// Waits for the end of the program: what it wrote to the status pipe, nothing if all is well. A
/// child that crashes stops under our eyes without closing its end, so both are looked at.
fn wait_for_calls(child: &Child, mut status: File) -> Result<Vec<u8>> {
    let mut failure = Vec::new();
    loop {
        let mut poll = libc::pollfd { fd: status.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, 50) } > 0 {
            status.read_to_end(&mut failure).map_err(|e| Error::system("waiting for the new process", e))?;
            return Ok(failure);
        }
        if let Some(news) = poll_stop(child.pid)? {
            let signal = libc::WSTOPSIG(news);
            if [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS].contains(&signal)
            {
                return Err(Error::Died { pid: child.pid as u32, how: format!("signal {signal}") });
            }
            // Somebody's SIGSTOP, say: not now.
            sys::simple("CONT", sys::PTRACE_CONT, child.pid, 0)?;
        }
    }
}

/// One stop of a thread: the status of waitpid.
fn wait_stop(tid: i32) -> Result<i32> {
    loop {
        if let Some(status) = collect(tid, libc::__WALL)? {
            return Ok(status);
        }
    }
}

/// As [`wait_stop`], `None` if there is no news.
fn poll_stop(tid: i32) -> Result<Option<i32>> {
    collect(tid, libc::__WALL | libc::WNOHANG)
}

fn collect(tid: i32, flags: i32) -> Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the kernel writes `status`.
    let got = unsafe { libc::waitpid(tid, &raw mut status, flags) };
    if got != tid {
        let error = std::io::Error::last_os_error();
        return match got {
            0 => Ok(None),
            _ if error.kind() == std::io::ErrorKind::Interrupted => Ok(None),
            _ => Err(Error::system("waiting for the new process", error)),
        };
    }
    let died = |how: String| Error::Died { pid: tid as u32, how };
    if libc::WIFSIGNALED(status) {
        return Err(died(format!("signal {}", libc::WTERMSIG(status))));
    }
    if libc::WIFEXITED(status) {
        return Err(died(format!("exit status {}", libc::WEXITSTATUS(status))));
    }
    Ok(Some(status))
}

/// Stops a thread where we ask for it.
fn interrupt(tid: i32) -> Result<()> {
    sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, tid, 0)?;
    loop {
        let status = wait_stop(tid)?;
        if status >> 16 == libc::PTRACE_EVENT_STOP {
            return Ok(());
        }
        // Somebody's SIGSTOP, say: not now.
        sys::simple("CONT", sys::PTRACE_CONT, tid, 0)?;
    }
}

/// Returns with the thread stopped behind its last call.
fn wait_until_done(tid: i32, base: u64, index: usize) -> Result<()> {
    let memory = Memory::open(tid)?;
    loop {
        interrupt(tid)?;
        if memory.read_u64(RemoteAddr(Program::done_flag(base, index)))? == 1 {
            return Ok(());
        }
        sys::simple("CONT", sys::PTRACE_CONT, tid, 0)?;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Parked threads make their calls before the signals of the images come in: they arrived while a thread was in its call,
/// and interrupt it.
fn enter_calls(tree: &Tree) -> Result<()> {
    let mut awaited = Vec::new();
    for thread in tree.threads() {
        let tid = thread.tid.cast_signed();
        if Status::read(tid)?.deliverable() != 0 {
            awaited.push(tid);
        }
    }
    if awaited.is_empty() {
        return Ok(());
    }
    // An executable that is not portable has no equivalence points.
    let Ok(executable) = Executable::parse(proc::read(tree.pid().cast_signed(), "exe")?) else { return Ok(()) };
    let manifest = &executable.manifest;
    let calls = [manifest.syscall_insn, manifest.gate_insn].map(RemoteAddr);
    for tid in awaited {
        if crate::tracee::host::get_registers(tid)?.pc().0 == manifest.syscall_restart {
            crate::tracee::Stopped::new_unchecked(tid).enter_call(calls)?;
        }
    }
    Ok(())
}

/// From the stopped interpreter to an address space without it; every thread is stopped before and after.
fn leave(program: &Program, child: &Child, base: u64, finish: &Finish<'_>) -> Result<()> {
    let pid = child.pid;
    let memory = Memory::open(pid)?;
    for (addr, bytes) in finish.patches {
        memory.write(RemoteAddr(*addr), bytes)?;
    }
    // Let it unmap what it stands on. It must not return to user mode after that, so we follow it to
    // the end of the call, and from there to an interruption (aarch64 restores x7 after a system-call
    // stop, so registers cannot be set there).
    let mut registers = crate::tracee::host::get_registers(pid)?;
    host::prepare_call(&mut registers, base, libc::SYS_munmap, [base, program.area_len()]);
    crate::tracee::host::set_registers(pid, &registers)?;
    for _ in 0..2 {
        sys::simple("SYSCALL", sys::PTRACE_SYSCALL, pid, 0)?;
        let status = wait_stop(pid)?;
        if libc::WSTOPSIG(status) != sys::SYSCALL_STOP {
            return Err(Error::Died { pid: pid as u32, how: format!("stopped with status {status:#x} while leaving") });
        }
    }
    let left = host::call_result(&crate::tracee::host::get_registers(pid)?);
    if left != 0 {
        return Err(Error::system("unmapping the restorer", std::io::Error::from_raw_os_error(-left as i32)));
    }
    sys::simple("INTERRUPT", sys::PTRACE_INTERRUPT, pid, 0)?;
    sys::simple("CONT", sys::PTRACE_CONT, pid, 0)?;
    let status = wait_stop(pid)?;
    if status >> 16 != libc::PTRACE_EVENT_STOP {
        return Err(Error::Died { pid: pid as u32, how: format!("stopped with status {status:#x} after leaving") });
    }
    Ok(())
}

/// From a stopped thread to one of the images, still stopped.
fn become_thread(tree: &Tree, thread: &Thread) -> Result<()> {
    let tid = thread.tid.cast_signed();
    let memory = Memory::open(tid)?;
    let registers = host::registers(&thread.core).ok_or_else(|| tree.inconsistent("no registers in a core image"))?;
    host::set_fp(tid, &thread.core)?;
    crate::tracee::host::set_registers(tid, &registers)?;
    sys::set_sigmask(tid, thread.state.blk_sigset.unwrap_or(tree.task.blk_sigset))?;
    if let Some(r) = thread.state.rseq_entry.as_ref().filter(|r| r.rseq_abi_pointer != 0)
        && let Some(section) = r.rseq_cs_pointer.filter(|s| *s != 0)
    {
        // Registration clears it, and the interpreter ran since.
        memory.write(RemoteAddr(r.rseq_abi_pointer.wrapping_add(8)), &section.to_le_bytes())?;
    }
    Ok(())
}
