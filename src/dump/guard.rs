//! The command and its tracing worker: when either one dies, the other undoes what was done.
//!
//! The worker is a process of its own session, so that nothing that kills the command (a terminal,
//! a shell, an impatient user) kills the tracer with it. It notices the command's death through a pipe
//! and leaves the process as it found it. Should the worker be the one that dies, the kernel lets its
//! tracee go, and the command repairs what [`Undo`] says is left: polls to be unpatched, signal
//! masks of threads to be set back. Either way half-written images are removed.
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe, setsid};

use super::{Error, Log, Options, Report, Result, threads};
use crate::tracee::Watch;

/// How long repairs may wait for the process.
pub const REPAIR_LIMIT: Duration = Duration::from_millis(1500);

/// How many threads a process may have: the places of [`Undo`]. Only those in use take memory.
pub const MAX_THREADS: usize = 1 << 16;

/// What the worker has changed in the process and not yet put back. Lives in memory that both share, and that
/// starts as zeros: nothing is changed.
#[derive(Debug)]
pub struct Undo {
    /// Polls are patched.
    pub patched: AtomicBool,
    /// The dump is complete: images stay, whatever happens.
    pub complete: AtomicBool,
    /// How many of `threads` were ever in use.
    used: AtomicUsize,
    threads: [ThreadUndo; MAX_THREADS],
}

/// One thread's part; free if `tid` is 0.
#[derive(Debug)]
struct ThreadUndo {
    tid: AtomicI32,
    /// The signal mask is not the thread's own.
    masked: AtomicBool,
    /// The thread's own signal mask.
    mask: AtomicU64,
}

/// A thread's place in an [`Undo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

impl Undo {
    /// The place of a thread, a new one if it has none; `None` if all are taken.
    #[must_use]
    pub fn admit(&self, tid: i32) -> Option<Slot> {
        let used = self.used.load(Ordering::SeqCst);
        let of = |wanted: i32| self.threads[..used].iter().position(|t| t.tid.load(Ordering::SeqCst) == wanted);
        if let Some(at) = of(tid) {
            return Some(Slot(at));
        }
        let at = if used < MAX_THREADS { used } else { of(0)? };
        self.threads[at].masked.store(false, Ordering::SeqCst);
        self.threads[at].tid.store(tid, Ordering::SeqCst);
        self.used.store(used.max(at + 1), Ordering::SeqCst);
        Some(Slot(at))
    }

    /// A thread is gone: its ID may come to belong to another one.
    pub fn forget(&self, slot: Slot) {
        self.threads[slot.0].masked.store(false, Ordering::SeqCst);
        self.threads[slot.0].tid.store(0, Ordering::SeqCst);
    }

    /// The own signal mask of a thread that has another one now.
    #[must_use]
    pub fn own_mask(&self, slot: Slot) -> Option<u64> {
        let thread = &self.threads[slot.0];
        thread.masked.load(Ordering::SeqCst).then(|| thread.mask.load(Ordering::SeqCst))
    }

    /// To be said before a thread gets another signal mask than `own`.
    pub fn masking(&self, slot: Slot, own: u64) {
        self.threads[slot.0].mask.store(own, Ordering::SeqCst);
        self.threads[slot.0].masked.store(true, Ordering::SeqCst);
    }

    /// The thread has its own mask again.
    pub fn unmasked(&self, slot: Slot) {
        self.threads[slot.0].masked.store(false, Ordering::SeqCst);
    }

    /// Whether anything is to be put back.
    #[must_use]
    pub fn anything(&self) -> bool {
        let used = self.used.load(Ordering::SeqCst);
        self.patched.load(Ordering::SeqCst)
            || self.threads[..used].iter().any(|thread| thread.masked.load(Ordering::SeqCst))
    }
}

/// One [`Undo`] that parent and child of a fork share.
#[derive(Debug)]
struct Shared(*mut Undo);

impl Shared {
    fn new() -> Result<Self> {
        // SAFETY: a fresh anonymous mapping; zeros are a valid Undo.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Undo>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(Error::last_os("sharing memory with the worker"));
        }
        Ok(Self(at.cast()))
    }

    fn get(&self) -> &Undo {
        // SAFETY: the mapping lives as long as the process; Undo consists of atomics.
        unsafe { &*self.0 }
    }
}

/// Runs `work` in a worker of its own session, guarded by this process.
///
/// # Errors
/// The worker's, as text; its death.
pub fn run(options: &Options, log: &Log, work: impl FnOnce(&mut Watch, &Undo) -> Result<Report>) -> Result<Report> {
    let shared = Shared::new()?;
    let existed = options.images.exists();
    let before = listing(&options.images);
    if before.contains("inventory.img") {
        return Err(Error::NotEmpty { dir: options.images.display().to_string() });
    }
    let nix = |what: &'static str| move |errno| Error::nix(what, errno);
    // The worker sees the end of `alive` when this process is gone; `answer` is what it has to say.
    let (alive_read, alive_write) = pipe().map_err(nix("making a pipe"))?;
    let (answer_read, answer_write) = pipe().map_err(nix("making a pipe"))?;
    // Deaths are for us and the worker to collect, even if whoever started this program ignores those of its children.
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(nix("starting the worker"))? {
        ForkResult::Child => {
            drop((alive_write, answer_read));
            let code = worker(options, log, shared.get(), alive_read, answer_write, work, (existed, &before));
            // Not `exit`: what the command registered is not the worker's to run.
            // SAFETY: ends this process.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop((alive_read, answer_write));
            let mut answer = String::new();
            let _ = fs::File::from(answer_read).read_to_string(&mut answer);
            let status = loop {
                match waitpid(child, None) {
                    Err(nix::Error::EINTR) => {}
                    other => break other,
                }
            };
            drop(alive_write);
            match status {
                Ok(WaitStatus::Exited(_, 0)) => Ok(Report::decode(&answer)),
                Ok(WaitStatus::Exited(_, _)) => Err(Error::Worker(answer)),
                other => {
                    let how = match other {
                        Ok(WaitStatus::Signaled(_, signal, _)) => signal.to_string(),
                        other => format!("{other:?}"),
                    };
                    repair(options, shared.get(), log);
                    if !shared.get().complete.load(Ordering::SeqCst) {
                        remove_new(&options.images, existed, &before);
                    }
                    Err(Error::WorkerDied { pid: options.pid, how })
                }
            }
        }
    }
}

fn worker(
    options: &Options,
    log: &Log,
    undo: &Undo,
    alive: OwnedFd,
    answer: OwnedFd,
    work: impl FnOnce(&mut Watch, &Undo) -> Result<Report>,
    (existed, before): (bool, &BTreeSet<String>),
) -> i32 {
    // A session of its own: no terminal's or shell's signal reaches the tracer.
    let _ = setsid();
    rename(options.pid);
    let deadline = Instant::now().checked_add(options.timeout);
    let result = Watch::new(Some(alive), deadline).map_err(Error::from).and_then(|mut watch| work(&mut watch, undo));
    let (text, code) = match result {
        Ok(report) => (report.encode(), 0),
        Err(error) => {
            log.error(&error.to_string());
            if !undo.complete.load(Ordering::SeqCst) {
                remove_new(&options.images, existed, before);
            }
            (error.to_string(), 1)
        }
    };
    let _ = fs::File::from(answer).write_all(text.as_bytes());
    code
}

/// Names this process `isam-worker PID`: who kills all processes by the command's name leaves the one that
/// puts things back.
fn rename(pid: i32) {
    let _ = fs::write("/proc/self/comm", "isam-worker");
    let Ok(text) = fs::read_to_string("/proc/self/stat") else { return };
    // arg_start and arg_end: fields 48 and 49 of proc(5), counted behind the command.
    let fields: Vec<u64> =
        text.rsplit(')').next().unwrap_or("").split_whitespace().map(|w| w.parse().unwrap_or(0)).collect();
    let (Some(&start), Some(&end)) = (fields.get(45), fields.get(46)) else { return };
    let mut line = format!("isam-worker\0{pid}").into_bytes();
    line.resize(end.saturating_sub(start).min(4096) as usize, 0);
    if let Ok(memory) = fs::OpenOptions::new().write(true).open("/proc/self/mem") {
        let _ = memory.write_at(&line, start);
    }
}

/// Puts back what a dead worker had changed.
fn repair(options: &Options, undo: &Undo, log: &Log) {
    if !undo.anything() {
        return;
    }
    log.warn(&format!("the worker died; repairing process {}", options.pid));
    if let Err(error) = threads::repair(options.pid, undo, log) {
        log.error(&format!("repairing process {}: {error}", options.pid));
    }
}

fn listing(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes what was not in `dir` before, and `dir` itself if it was not there.
fn remove_new(dir: &Path, existed: bool, before: &BTreeSet<String>) {
    for name in listing(dir).difference(before) {
        let path = dir.join(name);
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        let _ = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    if !existed {
        let _ = fs::remove_dir(dir);
    }
}

impl Report {
    fn encode(&self) -> String {
        format!("{} {} {} {}", u8::from(self.parked), self.pages, self.freezing.as_micros(), self.frozen.as_micros())
    }

    fn decode(text: &str) -> Self {
        let mut words = text.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
        let mut next = || words.next().unwrap_or(0);
        Self {
            parked: next() != 0,
            pages: next(),
            freezing: Duration::from_micros(next()),
            frozen: Duration::from_micros(next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_place_and_its_mask_until_it_is_forgotten() {
        let shared = Shared::new().unwrap();
        let undo = shared.get();
        let (first, second) = (undo.admit(5).unwrap(), undo.admit(6).unwrap());
        assert_ne!(first, second);
        assert!(!undo.anything());
        undo.masking(second, 0x800);
        assert_eq!((undo.admit(6), undo.own_mask(first), undo.own_mask(second)), (Some(second), None, Some(0x800)));
        assert!(undo.anything());
        undo.forget(second);
        assert!(!undo.anything());
        // Whoever gets the ID next has changed nothing yet.
        let again = undo.admit(6).unwrap();
        assert_eq!(undo.own_mask(again), None);
    }
}
