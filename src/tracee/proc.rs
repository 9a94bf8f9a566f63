//! What `/proc/PID` says of a process, parsed (proc(5)).
use std::fs;
use std::path::PathBuf;

use isamorph_arch::RemoteAddr;

use super::{Error, Result};

/// Reads a file of `/proc/PID`.
///
/// # Errors
/// If the process is gone or hides it.
pub fn read(pid: i32, name: &str) -> Result<Vec<u8>> {
    let path = path(pid, name);
    fs::read(&path).map_err(|source| {
        if matches!(source.raw_os_error(), Some(libc::ESRCH)) {
            Error::Died { pid, how: format!("while its {name} was read") }
        } else {
            Error::Proc { path, source }
        }
    })
}

/// Reads a text file of `/proc/PID`.
///
/// # Errors
/// As [`read`]. What is not UTF-8 is replaced.
pub fn read_text(pid: i32, name: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(pid, name)?).into_owned())
}

/// The target of a link of `/proc/PID`.
///
/// # Errors
/// As [`read`].
pub fn link(pid: i32, name: &str) -> Result<PathBuf> {
    let path = path(pid, name);
    fs::read_link(&path).map_err(|source| Error::Proc { path, source })
}

/// The path of a file of `/proc/PID`.
#[must_use]
pub fn path(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// The threads of a process, the leader first, the others in the order of their creation.
///
/// # Errors
/// If the process is gone.
pub fn threads(pid: i32) -> Result<Vec<i32>> {
    let path = path(pid, "task");
    let system = |source| Error::Proc { path: path.clone(), source };
    let mut tids = Vec::new();
    for entry in fs::read_dir(&path).map_err(system)? {
        let entry = entry.map_err(system)?;
        tids.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    tids.sort_by_key(|tid| *tid != pid);
    Ok(tids)
}

fn parse_error(pid: i32, name: &str, what: &'static str, text: &str) -> Error {
    Error::Parse { path: path(pid, name), what, text: text.chars().take(200).collect() }
}

/// `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are proc(5)'s own")]
pub struct Stat {
    pub comm: String,
    pub state: char,
    pub ppid: i32,
    pub pgrp: i32,
    pub session: i32,
    pub tty_nr: i32,
    pub tpgid: i32,
    pub flags: u32,
    pub starttime: u64,
    pub startcode: u64,
    pub endcode: u64,
    pub startstack: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

impl Stat {
    /// Reads it.
    ///
    /// # Errors
    /// If the process is gone, or a field is missing.
    pub fn read(pid: i32) -> Result<Self> {
        let text = read_text(pid, "stat")?;
        Self::parse(&text).ok_or_else(|| parse_error(pid, "stat", "field", &text))
    }

    fn parse(text: &str) -> Option<Self> {
        // The command may contain spaces and parentheses.
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let comm = text.get(open + 1..close)?.to_owned();
        let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the state is the third field.
        let field = |n: usize| fields.get(n - 3).copied();
        let number = |n: usize| field(n)?.parse::<u64>().ok();
        let signed = |n: usize| field(n)?.parse::<i32>().ok();
        Some(Self {
            comm,
            state: field(3)?.chars().next()?,
            ppid: signed(4)?,
            pgrp: signed(5)?,
            session: signed(6)?,
            tty_nr: signed(7)?,
            tpgid: signed(8)?,
            flags: number(9)? as u32,
            starttime: number(22)?,
            startcode: number(26)?,
            endcode: number(27)?,
            startstack: number(28)?,
            start_data: number(45)?,
            end_data: number(46)?,
            start_brk: number(47)?,
            arg_start: number(48)?,
            arg_end: number(49)?,
            env_start: number(50)?,
            env_end: number(51)?,
        })
    }
}

/// `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved, file-system user IDs.
    pub uids: [u32; 4],
    /// Real, effective, saved, file-system group IDs.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File creation mask.
    pub umask: u32,
    /// Inheritable, permitted, effective, bounding, ambient capabilities.
    pub caps: [u64; 5],
    /// PIDs, outermost namespace first.
    pub ns_pids: Vec<i32>,
    /// Number of threads.
    pub threads: u32,
    /// Seccomp mode.
    pub seccomp: u32,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Who traces it, 0 for nobody.
    pub tracer: i32,
    /// Signals pending for the thread, for the process; blocked.
    pub pending: [u64; 2],
    /// Blocked signals.
    pub blocked: u64,
    /// Transparent huge pages may be used (`None`: the kernel does not say).
    pub thp: Option<bool>,
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// If the process is gone, or a field is not a number.
    pub fn read(pid: i32) -> Result<Self> {
        let text = read_text(pid, "status")?;
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            status.field(key, value.trim()).ok_or_else(|| parse_error(pid, "status", "number", line))?;
        }
        Ok(status)
    }

    fn field(&mut self, key: &str, value: &str) -> Option<()> {
        let hex = |value| u64::from_str_radix(value, 16).ok();
        match key {
            "Uid" => self.uids = four(value)?,
            "Gid" => self.gids = four(value)?,
            "Groups" => self.groups = list(value)?,
            "Umask" => self.umask = u32::from_str_radix(value, 8).ok()?,
            "CapInh" => self.caps[0] = hex(value)?,
            "CapPrm" => self.caps[1] = hex(value)?,
            "CapEff" => self.caps[2] = hex(value)?,
            "CapBnd" => self.caps[3] = hex(value)?,
            "CapAmb" => self.caps[4] = hex(value)?,
            "NSpid" => self.ns_pids = list(value)?,
            "Threads" => self.threads = value.parse().ok()?,
            "Seccomp" => self.seccomp = value.parse().ok()?,
            "NoNewPrivs" => self.no_new_privs = value != "0",
            "TracerPid" => self.tracer = value.parse().ok()?,
            "SigPnd" => self.pending[0] = hex(value)?,
            "ShdPnd" => self.pending[1] = hex(value)?,
            "SigBlk" => self.blocked = hex(value)?,
            "THP_enabled" => self.thp = Some(value != "0"),
            _ => {}
        }
        Some(())
    }

    /// Signals that would be delivered if the thread ran.
    #[must_use]
    pub fn deliverable(&self) -> u64 {
        (self.pending[0] | self.pending[1]) & !self.blocked
    }
}

fn list<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

fn four(text: &str) -> Option<[u32; 4]> {
    list(text)?.try_into().ok()
}

/// A system call that a thread is blocked in, as `/proc/PID/syscall` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedCall {
    /// Native number.
    pub number: u64,
    /// Native arguments.
    pub args: [u64; 6],
    /// Stack pointer.
    pub sp: RemoteAddr,
    /// Address after the system-call instruction.
    pub pc: RemoteAddr,
}

impl BlockedCall {
    /// The call that a thread is blocked in; `None` if it runs or sleeps elsewhere.
    ///
    /// # Errors
    /// If the thread is gone, or it is not ours to look at.
    pub fn read(pid: i32) -> Result<Option<Self>> {
        let text = read_text(pid, "syscall")?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.len() != 9 {
            return Ok(None);
        }
        let parse = || -> Option<Self> {
            let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
            let mut args = [0; 6];
            for (arg, word) in args.iter_mut().zip(&words[1..7]) {
                *arg = hex(word)?;
            }
            Some(Self {
                number: words[0].parse().ok()?,
                args,
                sp: RemoteAddr(hex(words[7])?),
                pc: RemoteAddr(hex(words[8])?),
            })
        };
        parse().map(Some).ok_or_else(|| parse_error(pid, "syscall", "number", &text))
    }
}

/// Resource limits from `/proc/PID/limits`, soft and hard, `u64::MAX` for none, in the order of `RLIMIT_*`.
///
/// # Errors
/// If the process is gone, or a limit is missing.
pub fn limits(pid: i32) -> Result<[(u64, u64); 16]> {
    const NAMES: [&str; 16] = [
        "Max cpu time",
        "Max file size",
        "Max data size",
        "Max stack size",
        "Max core file size",
        "Max resident set",
        "Max processes",
        "Max open files",
        "Max locked memory",
        "Max address space",
        "Max file locks",
        "Max pending signals",
        "Max msgqueue size",
        "Max nice priority",
        "Max realtime priority",
        "Max realtime timeout",
    ];
    let text = read_text(pid, "limits")?;
    let mut limits = [(0, 0); 16];
    for (limit, name) in limits.iter_mut().zip(NAMES) {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let parsed = line.and_then(|line| {
            let mut words = line.split_ascii_whitespace().map(|word| match word {
                "unlimited" => Some(u64::MAX),
                word => word.parse().ok(),
            });
            Some((words.next()??, words.next()??))
        });
        *limit = parsed.ok_or_else(|| parse_error(pid, "limits", "limit", name))?;
    }
    Ok(limits)
}

/// A POSIX timer as `/proc/PID/timers` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PosixTimer {
    /// Its number.
    pub id: u32,
    /// Signal sent.
    pub signal: u32,
    /// `sigev_value`.
    pub value: u64,
    /// `sigev_notify`.
    pub notify: u32,
    /// Thread notified, if any.
    pub thread: Option<i32>,
    /// Clock.
    pub clock: i32,
}

/// The POSIX timers of a process.
///
/// # Errors
/// If the process is gone, or the kernel's text is not understood.
pub fn posix_timers(pid: i32) -> Result<Vec<PosixTimer>> {
    let text = match read_text(pid, "timers") {
        Ok(text) => text,
        // Without CONFIG_POSIX_TIMERS or CONFIG_CHECKPOINT_RESTORE there is no such file.
        Err(Error::Proc { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    parse_timers(&text).ok_or_else(|| parse_error(pid, "timers", "timer", &text))
}

fn parse_timers(text: &str) -> Option<Vec<PosixTimer>> {
    let mut timers = Vec::new();
    for line in text.lines() {
        let (key, value) = line.split_once(':')?;
        let value = value.trim();
        match key {
            "ID" => timers.push(PosixTimer {
                id: value.parse().ok()?,
                signal: 0,
                value: 0,
                notify: 0,
                thread: None,
                clock: 0,
            }),
            "signal" => {
                let (signal, pointer) = value.split_once('/')?;
                let timer = timers.last_mut()?;
                timer.signal = signal.parse().ok()?;
                timer.value = u64::from_str_radix(pointer.trim_start_matches("0x"), 16).ok()?;
            }
            "notify" => {
                let (how, whom) = value.split_once('/')?;
                let timer = timers.last_mut()?;
                let (kind, id) = whom.split_once('.')?;
                timer.notify = match how {
                    "signal" => 0,
                    "none" => 1,
                    "thread" => 2,
                    _ => return None,
                };
                if kind == "tid" {
                    timer.notify |= 4;
                    timer.thread = Some(id.parse().ok()?);
                }
            }
            "ClockID" => timers.last_mut()?.clock = value.parse().ok()?,
            _ => {}
        }
    }
    Some(timers)
}

/// The auxiliary vector, as pairs of type and value, with its AT_NULL.
///
/// # Errors
/// If the process is gone or hides it.
pub fn auxv(pid: i32) -> Result<Vec<u64>> {
    Ok(read(pid, "auxv")?.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect())
}

/// Offsets of CLOCK_MONOTONIC and CLOCK_BOOTTIME in the process's time namespace, in nanoseconds.
///
/// # Errors
/// If the process is gone; a kernel without time namespaces has no offsets.
pub fn timens_offsets(pid: i32) -> Result<[i128; 2]> {
    let text = match read_text(pid, "timens_offsets") {
        Ok(text) => text,
        Err(Error::Proc { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok([0, 0]),
        Err(error) => return Err(error),
    };
    let mut offsets = [0; 2];
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [clock, seconds, nanoseconds] = words[..] else { continue };
        let parsed = seconds.parse::<i128>().ok().zip(nanoseconds.parse::<i128>().ok());
        let (s, ns) = parsed.ok_or_else(|| parse_error(pid, "timens_offsets", "offset", line))?;
        match clock {
            "monotonic" => offsets[0] = s * 1_000_000_000 + ns,
            "boottime" => offsets[1] = s * 1_000_000_000 + ns,
            _ => {}
        }
    }
    Ok(offsets)
}

/// A number that is a whole file of `/proc/PID`, such as `oom_score_adj`; `None` if there is no such file.
///
/// # Errors
/// If the process is gone, or the file holds something else.
pub fn number(pid: i32, name: &str, radix: u32) -> Result<Option<i64>> {
    let text = match read_text(pid, name) {
        Ok(text) => text,
        Err(Error::Proc { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    i64::from_str_radix(text.trim(), radix).map(Some).map_err(|_| parse_error(pid, "number", "number", &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_contain_parentheses() {
        let text = format!("7 (a) b) S 1 2 3 0 -1 4194304{}", " 9".repeat(43));
        let stat = Stat::parse(&text).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state, stat.session, stat.tpgid), ("a) b", 'S', 3, -1));
    }

    #[test]
    fn timers_with_and_without_a_thread() {
        let text = "ID: 0\nsignal: 34/0000000000000007\nnotify: signal/pid.9\nClockID: 1\n\
                    ID: 1\nsignal: 14/0\nnotify: none/tid.10\nClockID: -2\n";
        let timers = parse_timers(text).unwrap();
        assert_eq!((timers[0].signal, timers[0].value, timers[0].thread), (34, 7, None));
        assert_eq!((timers[1].notify, timers[1].thread, timers[1].clock), (5, Some(10), -2));
        assert_eq!(parse_timers("signal: 3/0\n"), None);
    }

    #[test]
    fn reads_this_process() {
        let pid = std::process::id() as i32;
        let status = Status::read(pid).unwrap();
        assert_eq!(status.ns_pids.first(), Some(&pid));
        assert_eq!(Stat::read(pid).unwrap().ppid, nix::unistd::getppid().as_raw());
        assert!(limits(pid).unwrap()[7].0 > 0);
        assert_eq!(auxv(pid).unwrap().len() % 2, 0);
    }
}
