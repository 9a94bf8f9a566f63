//! The event loop: ports, the commands behind them, and the duties of pid 1.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::session::Session;

/// Serves the host until it asks to switch the machine off.
pub fn serve(ports: Vec<File>) -> io::Result<()> {
    let signals = watch_signals()?;
    let mut sessions = ports.into_iter().map(Session::new).collect::<io::Result<Vec<_>>>()?;
    loop {
        let mut polls = vec![libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        for session in &sessions {
            session.interests(&mut polls);
        }
        let timeout_ms = if sessions.iter().any(Session::is_waiting_for_host) { 500 } else { -1 };
        // SAFETY: `polls` is an array of its length.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) };
        if polls[0].revents != 0 {
            swallow(&signals);
            // The host may have opened or left any port.
            for session in &mut sessions {
                session.host_changed();
            }
        }
        for session in &mut sessions {
            if session.advance() {
                power_off();
            }
        }
        reap(&mut sessions);
    }
}

fn watch_signals() -> io::Result<OwnedFd> {
    // SAFETY: an initialised set, and a descriptor that nobody else owns.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigaddset(&mut set, libc::SIGIO);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn swallow(signals: &OwnedFd) {
    let mut buffer = [0_u8; 16 * size_of::<libc::signalfd_siginfo>()];
    // SAFETY: the buffer is writable for its length.
    while unsafe { libc::read(signals.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}

/// Collects every dead child: commands, and what they left behind (a restored process, for one, becomes init's child).
fn reap(sessions: &mut [Session]) {
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        sessions.iter_mut().any(|session| session.reaped(pid, status));
    }
}

fn shared_dirs() -> Vec<CString> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, fstype) = (fields.next()?, fields.next()?);
        // The kernel writes blanks in octal.
        let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        (fstype == "virtiofs").then(|| CString::new(path).ok())?
    });
    paths.collect()
}

/// Writes back what commands changed through shared mappings, so that the host sees a command's whole effect at its end.
pub fn sync_shared() {
    for path in shared_dirs() {
        // SAFETY: a NUL-terminated path; the descriptor is closed by its owner.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
            if fd >= 0 {
                let _owner = OwnedFd::from_raw_fd(fd);
                libc::syncfs(fd);
            }
        }
    }
}

fn power_off() {
    sync_shared();
    for path in shared_dirs() {
        // SAFETY: a NUL-terminated path.
        unsafe { libc::umount2(path.as_ptr(), 0) };
    }
    // SAFETY: nothing on this machine is needed any more.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
}
