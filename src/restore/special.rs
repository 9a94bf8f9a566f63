//! Files that are no files: pipes, eventfd, epoll, signalfd, timerfd.
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::files::{duplicate, epoll_event, fill_pipe, inherited};
use super::program::Program;
use super::tree::Tree;
use super::{Error, Options, Result};
use crate::image::proto::{EventfdFileEntry, EventpollFileEntry, FdType, PipeEntry, SignalfdEntry, TimerfdEntry};

/// A new descriptor, or the error of the call that should have made it.
fn made(fd: i32, what: &str) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::last(format!("making {what}")));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_flags(fd: &OwnedFd, flags: u32, what: &str) -> Result<()> {
    let flags = OFlag::from_bits_retain(flags as i32 & !libc::O_CLOEXEC);
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop).map_err(|e| Error::system(format!("setting the flags of {what}"), e))
}

/// Pipes that both ends of are in the process; the others are inherited.
#[derive(Debug, Default)]
pub struct Pipes(BTreeMap<u32, (OwnedFd, OwnedFd)>);

impl Pipes {
    /// One end of a pipe.
    ///
    /// # Errors
    /// Its other end is outside of the process and was not passed.
    pub fn open(&mut self, tree: &Tree, options: &Options, pipe: &PipeEntry, number: u32) -> Result<OwnedFd> {
        let id = pipe.pipe_id;
        if let Some(fd) = inherited(options, &format!("pipe:[{id}]")) {
            return inherit(fd, pipe);
        }
        if !self.0.contains_key(&id) {
            let ends = tree.files.values().filter_map(|f| f.pipe.as_ref()).filter(|p| p.pipe_id == id);
            let (mut reads, mut writes) = (false, false);
            for end in ends {
                match end.flags as i32 & libc::O_ACCMODE {
                    libc::O_RDONLY => reads = true,
                    libc::O_WRONLY => writes = true,
                    _ => (reads, writes) = (true, true),
                }
            }
            if !(reads && writes) {
                return Err(tree.unsupported(
                    format!("descriptor {number} is a pipe whose other end is outside of the process"),
                    format!("pass a new one with --inherit-fd fd[N]:pipe:[{id}]"),
                ));
            }
            let pair = self.make(tree, id)?;
            self.0.insert(id, pair);
        }
        let (read, write) = &self.0[&id];
        let end = match pipe.flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => read,
            _ => write,
        };
        // A description of its own: flags of two ends with the same direction may differ.
        let path = format!("/proc/self/fd/{}", end.as_raw_fd());
        let flags = pipe.flags as i32 & (libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_DIRECT) | libc::O_CLOEXEC;
        nix::fcntl::open(path.as_str(), OFlag::from_bits_retain(flags), nix::sys::stat::Mode::empty())
            .map_err(|e| Error::system(format!("opening pipe {id} again"), e))
    }

    fn make(&self, tree: &Tree, id: u32) -> Result<(OwnedFd, OwnedFd)> {
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::system(format!("making pipe {id}"), e))?;
        if let Some((size, bytes)) = tree.pipes.get(&id) {
            if let Some(size) = size.filter(|s| *s > 0) {
                fcntl(&write, FcntlArg::F_SETPIPE_SZ(size as i32))
                    .map_err(|e| Error::system(format!("giving pipe {id} room for {size} bytes"), e))?;
            }
            fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| Error::system("pipe", e))?;
            fill_pipe(&write, bytes).map_err(|e| Error::system(format!("filling pipe {id}"), e))?;
        }
        Ok((read, write))
    }
}

/// An end of somebody else's pipe, opened anew so that it has flags of its own.
fn inherit(fd: RawFd, pipe: &PipeEntry) -> Result<OwnedFd> {
    let flags = pipe.flags as i32 & (libc::O_ACCMODE | libc::O_NONBLOCK) | libc::O_CLOEXEC;
    let path = format!("/proc/self/fd/{fd}");
    let is_pipe = std::fs::metadata(&path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_fifo(&m.file_type()));
    if is_pipe
        && let Ok(opened) =
            nix::fcntl::open(path.as_str(), OFlag::from_bits_retain(flags), nix::sys::stat::Mode::empty())
    {
        return Ok(opened);
    }
    duplicate(fd)
}

/// An eventfd with its counter.
///
/// # Errors
/// The kernel refuses.
pub fn eventfd(e: &EventfdFileEntry) -> Result<OwnedFd> {
    const SEMAPHORE: u32 = libc::EFD_SEMAPHORE as u32;
    // SAFETY: takes numbers only.
    let fd = made(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | (e.flags & SEMAPHORE) as i32) }, "an eventfd")?;
    if e.counter > 0 {
        nix::unistd::write(&fd, &e.counter.to_le_bytes()).map_err(|e| Error::system("setting an eventfd", e))?;
    }
    set_flags(&fd, e.flags & !SEMAPHORE, "an eventfd")?;
    Ok(fd)
}

/// An epoll instance; what it watches is added later, in the process.
///
/// # Errors
/// The kernel refuses.
pub fn epoll() -> Result<OwnedFd> {
    // SAFETY: takes numbers only.
    made(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "an epoll instance")
}

/// Adds the calls that make an epoll instance watch what it watched.
///
/// # Errors
/// It watched a descriptor that is closed.
pub fn watch(tree: &Tree, program: &mut Program, fd: u32, epoll: &EventpollFileEntry) -> Result<()> {
    for item in &epoll.tfd {
        let target = tree.fds.iter().find(|f| f.fd == item.tfd);
        if target.is_none() {
            return Err(tree.unsupported(
                format!("epoll instance {fd} watches descriptor {}, which is closed", item.tfd),
                "a duplicate of it is open elsewhere; this cannot be restored yet",
            ));
        }
        if target.is_some_and(|f| f.r#type() == FdType::Reg) {
            return Err(tree.inconsistent(format!("epoll instance {fd} watches the regular file {}", item.tfd)));
        }
        let event = program.data(&epoll_event(item.events, item.data));
        program.call(
            format!("making epoll instance {fd} watch {}", item.tfd),
            libc::SYS_epoll_ctl,
            [fd.into(), libc::EPOLL_CTL_ADD.into(), item.tfd.into(), event],
        );
    }
    Ok(())
}

/// A signalfd.
///
/// # Errors
/// The kernel refuses.
pub fn signalfd(s: &SignalfdEntry) -> Result<OwnedFd> {
    let mask = s.sigmask;
    // SAFETY: the kernel reads the 8 bytes of `mask`.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, libc::SFD_CLOEXEC) };
    let fd = made(fd as i32, "a signalfd")?;
    set_flags(&fd, s.flags, "a signalfd")?;
    Ok(fd)
}

/// A timerfd with the time that was left, and the expirations that nobody had read.
///
/// # Errors
/// The kernel refuses.
pub fn timerfd(tree: &Tree, t: &TimerfdEntry) -> Result<OwnedFd> {
    /// `_IOW('T', 0, __u64)`
    const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;
    let number =
        |what: &str, v: u64| i64::try_from(v).map_err(|_| tree.inconsistent(format!("{what} of a timerfd is {v}")));
    // SAFETY: takes numbers only.
    let fd = made(unsafe { libc::timerfd_create(t.clockid as i32, libc::TFD_CLOEXEC) }, "a timerfd")?;
    let spec = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: number("interval", t.isec)?, tv_nsec: number("interval", t.insec)? },
        it_value: libc::timespec { tv_sec: number("value", t.vsec)?, tv_nsec: number("value", t.vnsec)? },
    };
    // The remaining time is relative, whatever it was set with.
    let keep = t.settime_flags as i32 & !libc::TFD_TIMER_ABSTIME;
    // SAFETY: the kernel reads `spec`.
    if unsafe { libc::timerfd_settime(fd.as_raw_fd(), keep, &raw const spec, std::ptr::null_mut()) } < 0 {
        return Err(Error::last("setting a timerfd"));
    }
    if t.ticks > 0 {
        let ticks = t.ticks;
        // SAFETY: the kernel reads the 8 bytes of `ticks`.
        if unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks) } < 0 {
            return Err(Error::last("setting the expirations of a timerfd"));
        }
    }
    set_flags(&fd, t.flags, "a timerfd")?;
    Ok(fd)
}
