//! Before anything is stopped: what the process is, and what of it would be refused.
use std::fs;

use super::guard::MAX_THREADS;
use super::threads::{leader_ended, too_many};
use super::{Error, Log, Options, Result, files, mm};
use crate::portable::{self, Executable};
use crate::tracee::proc::{self, Stat, Status};

const SCHED_DEADLINE: i64 = 6;
// Of kcmp(2).
const KCMP_FILES: i32 = 2;
const KCMP_FS: i32 = 3;

/// What is known of a process before it is stopped.
#[derive(Debug)]
pub struct Survey {
    /// The process.
    pub pid: i32,
    /// `/proc/PID/stat`.
    pub stat: Stat,
    /// `/proc/PID/status`.
    pub status: Status,
    /// Its executable, if it is one of a pair and the process is to be parked.
    pub portable: Option<Executable>,
}

/// Looks at a running process and refuses what cannot be dumped, by name.
///
/// # Errors
/// The first thing that is not supported; a process that is gone.
pub fn survey(options: &Options, log: &Log) -> Result<Survey> {
    let pid = options.pid;
    if pid <= 1 || pid == std::process::id() as i32 || !proc::path(pid, "stat").exists() {
        return Err(Error::NoProcess { pid });
    }
    let (stat, status) = (Stat::read(pid)?, Status::read(pid)?);
    let refuse =
        |what: String, reason, remedy: &str| Err(Error::Unsupported { pid, what, reason, remedy: remedy.to_owned() });
    let tids = proc::threads(pid)?;
    if stat.state == 'Z' && tids.len() > 1 {
        return Err(leader_ended(pid));
    }
    if stat.state == 'Z' || stat.state == 'X' {
        return Err(Error::NoProcess { pid });
    }
    if tids.len() > MAX_THREADS {
        return Err(too_many(pid));
    }
    for tid in tids {
        match check_thread(pid, tid) {
            // It has ended meanwhile.
            Err(_) if tid != pid && !proc::path(pid, &format!("task/{tid}")).exists() => {}
            other => other?,
        }
    }
    if stat.session != pid && !options.shell_job {
        return refuse(
            format!("a session (leader {}) that stays here", stat.session),
            "a restored process must belong to one",
            "use --shell-job, or start it with setsid",
        );
    }
    for mapping in crate::tracee::maps::read(pid)? {
        mm::check(pid, &mapping)?;
    }
    files::survey(options, log)?;
    let portable = if options.park { portable_executable(pid, log)? } else { None };
    if portable.is_some() && matches!(stat.state, 'T' | 't') {
        return refuse(
            "been stopped (SIGSTOP)".into(),
            "a stopped process cannot come to an equivalence point",
            "continue it (kill -CONT), or use --no-park",
        );
    }
    Ok(Survey { pid, stat, status, portable })
}

/// What a thread has of its own that is refused.
fn check_thread(pid: i32, tid: i32) -> Result<()> {
    let of = if tid == pid { String::new() } else { format!(" (its thread {tid})") };
    let refuse = |what: String, reason, remedy: &str| {
        Err(Error::Unsupported { pid, what: format!("{what}{of}"), reason, remedy: remedy.to_owned() })
    };
    let status = Status::read(tid)?;
    if status.tracer != 0 {
        return refuse(
            format!("a tracer (process {})", status.tracer),
            "only one program can trace a process",
            "end the debugger first",
        );
    }
    if let Some(child) = proc::read_text(pid, &format!("task/{tid}/children"))?.split_whitespace().next() {
        return refuse(format!("a child (process {child})"), "this version dumps one process", "let its children end");
    }
    if status.seccomp != 0 {
        return refuse("a seccomp filter".into(), "this version does not carry filters", "start it without the filter");
    }
    // SAFETY: a plain system call.
    if unsafe { libc::syscall(libc::SYS_sched_getscheduler, tid) } == SCHED_DEADLINE {
        return refuse(
            "the scheduling policy SCHED_DEADLINE".into(),
            "the image format has no place for its times",
            "let it choose another policy",
        );
    }
    for (kind, what) in [(KCMP_FILES, "descriptors of its own"), (KCMP_FS, "a working directory of its own")] {
        // SAFETY: a plain system call. Kernels without it say ENOSYS: they cannot tell.
        if tid != pid && unsafe { libc::syscall(libc::SYS_kcmp, pid, tid, kind, 0, 0) } > 0 {
            return refuse(
                what.into(),
                "a restored process shares them among its threads",
                "let its threads not call unshare(2)",
            );
        }
    }
    namespaces(pid, tid, &of)
}

/// Namespaces that differ from ours hold resources that this version does not carry.
fn namespaces(pid: i32, tid: i32, of: &str) -> Result<()> {
    for name in ["pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "pid_for_children"] {
        let (own, children) = name.strip_suffix("_for_children").map_or((name, ""), |own| (own, " for its children"));
        let Ok(ours) = fs::read_link(format!("/proc/self/ns/{own}")) else { continue };
        // The link of a namespace for children leads nowhere until there is one.
        if fs::read_link(proc::path(tid, &format!("ns/{name}"))).ok() != Some(ours) {
            return Err(Error::Unsupported {
                pid,
                what: format!("a namespace of its own ({own}){children}{of}"),
                reason: "this version does not carry namespaces (but the time namespace)",
                remedy: format!("run isamorph inside: nsenter -t {pid} --all isamorph dump …"),
            });
        }
    }
    Ok(())
}

/// The executable of a process if it is portable.
///
/// # Errors
/// It declares itself portable and is damaged; it is gone.
pub fn portable_executable(pid: i32, log: &Log) -> Result<Option<Executable>> {
    let bytes = proc::read(pid, "exe")?;
    match Executable::parse(bytes) {
        Ok(executable) if Some(executable.isa) == isamorph_arch::Isa::host() => Ok(Some(executable)),
        Ok(_) | Err(portable::Error::NoManifest | portable::Error::NotPortable(_) | portable::Error::Elf(_)) => {
            log.info(&format!("process {pid} is an ordinary one: it is frozen wherever it is"));
            Ok(None)
        }
        Err(source) => Err(Error::Portable { pid, source }),
    }
}
