//! Files without a path: pipes, eventfd, epoll, signalfd, timerfd.
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::unistd::pipe as new_pipe;

use super::files::{Descriptor, read_to_end};
use super::{Error, Options, Result};
use crate::image::{Entry, proto};

fn is_writer(descriptor: &Descriptor) -> bool {
    descriptor.flags & 3 == libc::O_WRONLY as u32
}

/// Refuses a pipe in packet mode.
///
/// # Errors
/// The refusal.
pub fn check_pipe(descriptor: &Descriptor, _options: &Options) -> Result<()> {
    if descriptor.flags & libc::O_DIRECT as u32 != 0 {
        return Err(descriptor.refuse("a pipe in packet mode", "this version does not carry it", "run it without"));
    }
    Ok(())
}

/// A pipe of which the process has one end only leads to somebody who stays here: it must be declared.
///
/// # Errors
/// The refusal.
pub fn survey_pipes(descriptors: &[Descriptor], options: &Options) -> Result<()> {
    let pipes = || descriptors.iter().filter(|d| d.name.to_string_lossy().starts_with("pipe:"));
    for pipe in pipes() {
        let inode = pipe.stat.ino();
        let both = pipes().any(|other| other.stat.ino() == inode && is_writer(other) != is_writer(pipe));
        let declared = [format!("pipe[{inode}]"), format!("pipe:[{inode}]")];
        if !both && !options.external.iter().any(|name| declared.contains(name)) {
            let end = if is_writer(pipe) { "its reader" } else { "its writer" };
            return Err(pipe.refuse(
                "a pipe to another process",
                if is_writer(pipe) { "its reader stays here" } else { "its writer stays here" },
                format!(
                    "declare it with --external 'pipe[{inode}]' and give {end} anew when restoring \
                     (--inherit-fd 'fd[N]:pipe:[{inode}]'), or redirect it to a file"
                ),
            ));
        }
    }
    Ok(())
}

/// A pipe's end and, at the first reader, what is in it.
///
/// # Errors
/// It cannot be looked into.
pub fn pipe(
    descriptor: &Descriptor,
    id: u32,
    fown: proto::FownEntry,
) -> Result<(proto::PipeEntry, Option<Entry<proto::PipeDataEntry>>)> {
    let pipe_id = descriptor.stat.ino() as u32;
    let entry = proto::PipeEntry { id, pipe_id, flags: descriptor.flags, fown };
    if is_writer(descriptor) {
        return Ok((entry, None));
    }
    let what = || format!("looking into the pipe at descriptor {}", descriptor.number);
    let fd = descriptor.duplicate()?;
    let (copy, sink) = new_pipe().map_err(|errno| Error::nix(what(), errno))?;
    // SAFETY: plain system calls on descriptors that we hold; tee copies without taking.
    let (size, bytes) = unsafe {
        let size = libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ);
        if size < 0 || libc::fcntl(sink.as_raw_fd(), libc::F_SETPIPE_SZ, size) < 0 {
            return Err(Error::last_os(what()));
        }
        let bytes = libc::tee(fd.as_raw_fd(), sink.as_raw_fd(), size as usize, libc::SPLICE_F_NONBLOCK);
        let empty = bytes < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        if bytes < 0 && !empty {
            return Err(Error::last_os(what()));
        }
        (size as u32, bytes.max(0))
    };
    drop(sink);
    let contents = if bytes == 0 {
        Vec::new()
    } else {
        read_to_end(copy).map_err(|source| Error::System { what: what(), source })?
    };
    let data = proto::PipeDataEntry { pipe_id, bytes: contents.len() as u32, size: Some(size) };
    Ok((entry, Some(Entry::with_payload(data, contents))))
}

fn number(descriptor: &Descriptor, key: &'static str, radix: u32) -> Result<u64> {
    descriptor.field(key).and_then(|text| u64::from_str_radix(text, radix).ok()).ok_or_else(|| {
        Error::Tracee(crate::tracee::Error::Parse {
            path: crate::tracee::proc::path(descriptor.pid, &format!("fdinfo/{}", descriptor.number)),
            what: key,
            text: descriptor.info.chars().take(200).collect(),
        })
    })
}

/// eventfd: its counter.
///
/// # Errors
/// The kernel's text is not understood.
pub fn eventfd(descriptor: &Descriptor, id: u32, fown: proto::FownEntry) -> Result<proto::EventfdFileEntry> {
    let counter = number(descriptor, "eventfd-count", 16)?;
    Ok(proto::EventfdFileEntry { id, flags: descriptor.flags, fown, counter })
}

/// signalfd: its mask.
///
/// # Errors
/// The kernel's text is not understood.
pub fn signalfd(descriptor: &Descriptor, id: u32, fown: proto::FownEntry) -> Result<proto::SignalfdEntry> {
    let sigmask = number(descriptor, "sigmask", 16)?;
    Ok(proto::SignalfdEntry { id, flags: descriptor.flags, fown, sigmask })
}

/// timerfd: clock, setting, expirations that were not read. The time left is that of the moment when the process's
/// clocks were `asked`, where they go on: so it does not ring early.
///
/// # Errors
/// The kernel's text is not understood.
pub fn timerfd(
    descriptor: &Descriptor,
    id: u32,
    fown: proto::FownEntry,
    asked: Option<Instant>,
) -> Result<proto::TimerfdEntry> {
    let pair = |key: &'static str| -> Option<(u64, u64)> {
        let (a, b) = descriptor.field(key)?.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
    };
    let unparsed = |key| descriptor.refuse("a timerfd", key, "report this kernel's version");
    let mut value = pair("it_value").ok_or_else(|| unparsed("its it_value is not understood"))?;
    if value != (0, 0) {
        let since = asked.map_or(Duration::ZERO, |asked| descriptor.read_at.saturating_duration_since(asked));
        let left = Duration::from_secs(value.0).saturating_add(Duration::from_nanos(value.1)).saturating_add(since);
        value = (left.as_secs(), left.subsec_nanos().into());
    }
    let interval = pair("it_interval").ok_or_else(|| unparsed("its it_interval is not understood"))?;
    Ok(proto::TimerfdEntry {
        id,
        flags: descriptor.flags,
        fown,
        clockid: number(descriptor, "clockid", 10)? as u32,
        ticks: number(descriptor, "ticks", 10)?,
        settime_flags: number(descriptor, "settime flags", 8)? as u32,
        vsec: value.0,
        vnsec: value.1,
        isec: interval.0,
        insec: interval.1,
    })
}

/// epoll: what it watches, each of which must still be the descriptor it was.
///
/// # Errors
/// It watches a file whose descriptor is closed or reused; the kernel's text is not understood.
pub fn epoll(
    descriptor: &Descriptor,
    id: u32,
    fown: proto::FownEntry,
    all: &[Descriptor],
) -> Result<proto::EventpollFileEntry> {
    let mut tfd = Vec::new();
    for line in descriptor.info.lines().filter(|line| line.starts_with("tfd:")) {
        let target = watched(line).ok_or_else(|| {
            descriptor.refuse("an epoll instance", "its fdinfo is not understood", "report this kernel's version")
        })?;
        let same =
            |d: &&Descriptor| d.number as u32 == target.tfd && target.inode.is_none_or(|inode| inode == d.stat.ino());
        if all.iter().find(same).is_none() {
            return Err(descriptor.refuse(
                &format!("an epoll instance that watches descriptor {}, which was closed or reused", target.tfd),
                "the file it watches cannot be reached",
                "let it remove descriptors (EPOLL_CTL_DEL) before closing them",
            ));
        }
        tfd.push(proto::EventpollTfdEntry { id, ..target });
    }
    Ok(proto::EventpollFileEntry { id, flags: descriptor.flags, fown, tfd })
}

/// `tfd: 5 events: 19 data: 5 pos:0 ino:61 sdev:a` (Linux's `fs/eventpoll.c`).
fn watched(line: &str) -> Option<proto::EventpollTfdEntry> {
    let after = |key: &str| {
        let rest = line.get(line.find(key)? + key.len()..)?.trim_start();
        rest.split_ascii_whitespace().next()
    };
    let hex = |key| u64::from_str_radix(after(key)?, 16).ok();
    Some(proto::EventpollTfdEntry {
        id: 0,
        tfd: after("tfd:")?.parse().ok()?,
        events: hex("events:")? as u32,
        data: hex("data:")?,
        dev: hex("sdev:").map(|dev| dev as u32),
        inode: hex("ino:"),
        pos: after("pos:").and_then(|pos| pos.parse::<i64>().ok()).map(i64::cast_unsigned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_epoll_watches() {
        let line = "tfd:        5 events:       19 data:     ff00000005  pos:0 ino:61 sdev:a";
        let entry = watched(line).unwrap();
        assert_eq!((entry.tfd, entry.events, entry.data), (5, 0x19, 0xff_0000_0005));
        assert_eq!((entry.inode, entry.dev, entry.pos), (Some(0x61), Some(10), Some(0)));
        assert!(watched("tfd: x events: 1 data: 1").is_none());
    }
}
