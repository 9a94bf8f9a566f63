//! Waiting for a tracee without outliving the command that asked, or the time it allowed.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Error, Result};

/// What ends a wait: a child's event, the deadline, or the death of whoever holds the other end of `front`.
#[derive(Debug)]
pub struct Watch {
    children: SignalFd,
    front: Option<OwnedFd>,
    deadline: Option<Instant>,
}

impl Watch {
    /// Blocks SIGCHLD in this thread and waits by descriptor from now on. `front` becomes readable or
    /// hangs up when the command is gone.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new(front: Option<OwnedFd>, deadline: Option<Instant>) -> Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let system = |errno: nix::Error| Error::System { what: "watching for children".into(), source: errno.into() };
        mask.thread_block().map_err(system)?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(system)?;
        Ok(Self { children, front, deadline })
    }

    /// Fails if the command is gone. To be called between any two steps that take long.
    ///
    /// # Errors
    /// [`Error::Abandoned`].
    pub fn check(&self) -> Result<()> {
        let Some(front) = &self.front else { return Ok(()) };
        let mut fds = [PollFd::new(front.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(n) if n > 0 => Err(Error::Abandoned),
            _ => Ok(()),
        }
    }

    /// Until when to wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// No deadline and no command any more: what cleaning up waits with, for at most `limit`.
    pub fn relax(&mut self, limit: Duration) {
        self.front = None;
        self.deadline = Some(Instant::now() + limit);
    }

    /// Sleeps until a child may have news, `limit` at most. `Ok(false)`: the deadline is over.
    ///
    /// # Errors
    /// [`Error::Abandoned`], or a failure to wait.
    pub fn sleep(&self, limit: Duration) -> Result<bool> {
        // In a program with several threads another one may swallow the signal: never rely on it alone.
        let limit = limit.min(Duration::from_millis(10));
        let left = match self.deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                left.min(limit)
            }
            None => limit,
        };
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(self.children_fd(), PollFlags::POLLIN)];
        if let Some(front) = &self.front {
            fds.push(PollFd::new(front.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left.as_millis().max(1) as i32).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => {
                return Err(Error::System { what: "waiting for a child".into(), source: errno.into() });
            }
        }
        if let Some(front) = fds.get(1)
            && front.any().unwrap_or(true)
        {
            return Err(Error::Abandoned);
        }
        let _ = self.children.read_signal();
        Ok(true)
    }

    fn children_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.children.as_raw_fd()) }
    }
}
