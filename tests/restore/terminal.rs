//! Jobs of a shell: restored with `-j`, they belong to the session and the terminal of the command.
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;

/// A terminal with a session of its own, whose leader is this command.
struct Terminal {
    master: File,
    leader: Child,
}

impl Terminal {
    fn new(command: &mut Command) -> Self {
        let pty = openpty(None, None).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: system calls only; nothing is allocated after the fork.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0);
                nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, 4 /* CLOEXEC */);
                Ok(())
            });
        }
        let leader = command.spawn().unwrap();
        nonblocking(&pty.master);
        Self { master: File::from(pty.master), leader }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// What the terminal shows until this text, or the end.
    fn shows(&mut self, wanted: &str) -> String {
        let start = Instant::now();
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(wanted) && start.elapsed() < Duration::from_secs(20) {
            let mut part = [0; 512];
            match self.master.read(&mut part) {
                Ok(n) => shown.extend_from_slice(&part[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                // Nobody has it open any more.
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }
}

fn nonblocking(fd: &OwnedFd) {
    // SAFETY: takes numbers only.
    unsafe { nix::libc::fcntl(fd.as_raw_fd(), nix::libc::F_SETFL, nix::libc::O_NONBLOCK) };
}

/// The child of a process that runs this program.
fn job(parent: u32, name: &str) -> i32 {
    let start = Instant::now();
    loop {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
                return pid.parse().unwrap();
            }
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the shell did not start {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn restore(images: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph"));
    command.arg("restore").arg("-D").arg(images);
    command
}

#[test]
fn a_shells_job_goes_on_at_another_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    let mut shell = Terminal::new(Command::new("sh").args(["-c", "stty -echo; echo ready; cat; true"]));
    assert!(shell.shows("ready").contains("ready"));
    let pid = job(shell.leader.id(), "cat");
    shell.type_in("before\n");
    assert_eq!(shell.shows("before\r\n").trim_start(), "before\r\n");
    let dump = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph"));
        command.args(["dump", "-t", &pid.to_string(), "-D"]).arg(&images).args(options).output().unwrap()
    };
    let refused = dump(&[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("-j"), "{refused:?}");
    let dumped = dump(&["-j"]);
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    shell.leader.wait().unwrap();

    let said =
        |command: &mut Command| String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stderr).unwrap();
    let refused = said(&mut restore(&images));
    assert!(refused.contains("restore with -j (--shell-job)"), "{refused}");
    let refused = said(restore(&images).arg("-j"));
    assert!(refused.contains("none of standard input, output and error of this command is one"), "{refused}");

    let pidfile = dir.path().join("pid");
    let mut other = Terminal::new(restore(&images).arg("-j").arg("--pidfile").arg(&pidfile));
    super::wait_for(&pidfile, &pid.to_string());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let leader = other.leader.id().to_string();
    assert_eq!((after_name[2], after_name[3]), (leader.as_str(), leader.as_str()), "group and session: {stat}");
    // Once: by cat, not by the terminal, which has the modes that the old one had.
    other.type_in("after\n");
    assert_eq!(other.shows("after\r\n"), "after\r\n");
    other.type_in("quietly\n");
    assert_eq!(other.shows("quietly\r\n"), "quietly\r\n");
    other.type_in("\x04");
    assert_eq!(other.leader.wait().unwrap().code(), Some(0));
}
