//! One port to the host: a command at a time, its input and output, and its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use isamorph_node::wire::{self, Command, Ending, Frame, Kind, Request};

/// Output is not read from the command while this much waits for the host.
const BACKLOG: usize = 512 << 10;
const CHUNK: usize = 64 << 10;
/// A command outlives its host's connection by this much, and no longer.
const AWAY_PATIENCE: Duration = Duration::from_secs(2);

/// A port and what runs behind it.
#[derive(Debug)]
pub struct Session {
    port: File,
    /// Whether the host may have the other end open; a port without a host is not polled, for it would be ready all the time.
    connected: bool,
    /// Since when the host is away.
    ///
    /// That is no proof that a session is over: the kernel learns of a host that came or went through another queue than
    /// that of the data, so a new session's bytes may be here before the news that the old one's host went away.
    away_since: Option<Instant>,
    greeted: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: libc::pid_t,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    input: Vec<u8>,
    input_ended: bool,
}

impl Session {
    /// A session on an open, non-blocking port.
    pub fn new(port: File) -> io::Result<Session> {
        // A change of the host's side is announced by SIGIO.
        // SAFETY: plain fcntl on an open descriptor.
        unsafe {
            let flags = libc::fcntl(port.as_raw_fd(), libc::F_GETFL);
            if libc::fcntl(port.as_raw_fd(), libc::F_SETOWN, libc::getpid()) < 0
                || libc::fcntl(port.as_raw_fd(), libc::F_SETFL, flags | libc::O_ASYNC) < 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Session {
            port,
            connected: true,
            away_since: None,
            greeted: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            running: None,
        })
    }

    /// Appends what this session waits for.
    pub fn interests(&self, polls: &mut Vec<libc::pollfd>) {
        let mut want = |fd: RawFd, events| polls.push(libc::pollfd { fd, events, revents: 0 });
        if self.connected {
            let output = if self.outgoing.is_empty() { 0 } else { libc::POLLOUT };
            let input = if self.input_is_full() { 0 } else { libc::POLLIN };
            if input | output != 0 {
                want(self.port.as_raw_fd(), input | output);
            }
        }
        if let Some(running) = &self.running {
            if self.outgoing.len() < BACKLOG {
                for fd in
                    running.stdout.iter().map(AsRawFd::as_raw_fd).chain(running.stderr.iter().map(AsRawFd::as_raw_fd))
                {
                    want(fd, libc::POLLIN);
                }
            }
            if let (Some(stdin), false) = (&running.stdin, running.input.is_empty()) {
                want(stdin.as_raw_fd(), libc::POLLOUT);
            }
        }
    }

    /// Does whatever can be done without blocking. True if the machine is to be switched off.
    pub fn advance(&mut self) -> bool {
        let mut power_off = false;
        if self.connected && !self.input_is_full() {
            power_off = self.receive();
        }
        if self.away_since.is_some_and(|since| since.elapsed() > AWAY_PATIENCE) {
            self.abandon();
            self.incoming.clear();
            self.away_since = None;
        }
        if self.outgoing.len() < BACKLOG {
            self.collect_output(false);
        }
        self.feed_input();
        self.send();
        power_off
    }

    /// Whether the host has to be given up if it stays away; then [`Session::advance`] wants to be called again in time.
    pub fn is_waiting_for_host(&self) -> bool {
        self.away_since.is_some()
    }

    /// The host came or went.
    pub fn host_changed(&mut self) {
        self.connected = true;
    }

    fn input_is_full(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.input.len() > BACKLOG)
    }

    /// Ends the session if `pid` was its command. False if it was not.
    pub fn reaped(&mut self, pid: libc::pid_t, status: libc::c_int) -> bool {
        if self.running.as_ref().is_none_or(|running| running.pid != pid) {
            return false;
        }
        self.collect_output(true);
        self.running = None;
        // The session is over, whatever becomes of the host.
        self.greeted = false;
        self.away_since = None;
        crate::serve::sync_shared();
        let ending = if libc::WIFSIGNALED(status) {
            Ending::Killed(libc::WTERMSIG(status))
        } else {
            Ending::Exited(libc::WEXITSTATUS(status))
        };
        self.end(&ending);
        self.send();
        true
    }

    fn end(&mut self, ending: &Ending) {
        wire::put_frame(&mut self.outgoing, Kind::Ending, &ending.encode());
    }

    /// The host went away: what it started ends too.
    fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            // SAFETY: kill has no preconditions; the command leads a process group of its own.
            unsafe { libc::kill(-running.pid, libc::SIGKILL) };
        }
        self.greeted = false;
        self.outgoing.clear();
    }

    fn receive(&mut self) -> bool {
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.port.read(&mut chunk) {
                Ok(0) => {
                    self.connected = false;
                    if self.greeted && self.away_since.is_none() {
                        self.away_since = Some(Instant::now());
                    }
                    break;
                }
                Ok(len) => {
                    self.away_since = None;
                    self.incoming.extend_from_slice(&chunk[..len]);
                    if self.incoming.len() > BACKLOG {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.away_since = None;
                    break;
                }
            }
        }
        loop {
            if !self.greeted {
                let Some(nonce) = wire::take_hello(&mut self.incoming) else { return false };
                self.greeted = true;
                self.away_since = None;
                self.outgoing.clear();
                self.outgoing.extend_from_slice(&wire::MAGIC);
                self.outgoing.extend_from_slice(&nonce);
            }
            match wire::take_frame(&mut self.incoming) {
                Ok(Some(frame)) => {
                    if self.handle(frame) {
                        return true;
                    }
                }
                Ok(None) => return false,
                // The host was replaced by another one before this side saw it go: look for the new one's hello.
                Err(_) => self.abandon(),
            }
        }
    }

    fn handle(&mut self, frame: Frame) -> bool {
        match frame.kind {
            Kind::Request => match Request::decode(&frame.payload) {
                Ok(Request::PowerOff) => return true,
                Ok(Request::Run(_)) if self.running.is_some() => {
                    self.end(&Ending::Failed("a command is running on this port".into()));
                }
                Ok(Request::Run(command)) => match start(&command) {
                    Ok(running) => self.running = Some(running),
                    Err(error) => self.end(&Ending::Failed(error)),
                },
                Err(error) => self.end(&Ending::Failed(error.to_string())),
            },
            Kind::Input => {
                if let Some(running) = &mut self.running {
                    running.input.extend_from_slice(&frame.payload);
                    running.input_ended |= frame.payload.is_empty();
                }
            }
            Kind::Output | Kind::ErrorOutput | Kind::Ending => {}
        }
        false
    }

    /// Takes what the command wrote; all of it if it has ended.
    fn collect_output(&mut self, ended: bool) {
        let Some(running) = &mut self.running else { return };
        let backlog = if ended { usize::MAX } else { BACKLOG };
        drain(&mut running.stdout, Kind::Output, &mut self.outgoing, backlog);
        drain(&mut running.stderr, Kind::ErrorOutput, &mut self.outgoing, backlog);
    }

    fn feed_input(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Some(stdin) = &mut running.stdin {
            while !running.input.is_empty() {
                match stdin.write(&running.input) {
                    Ok(len) => drop(running.input.drain(..len)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => {
                        // The command closed its input; what is left is not for anybody.
                        running.input.clear();
                        running.stdin = None;
                        return;
                    }
                }
            }
            if running.input_ended {
                running.stdin = None;
            }
        }
    }

    fn send(&mut self) {
        if !self.connected {
            return;
        }
        let mut sent = 0;
        while sent < self.outgoing.len() {
            let piece = &self.outgoing[sent..self.outgoing.len().min(sent + CHUNK)];
            match self.port.write(piece) {
                Ok(0) => break,
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.outgoing.drain(..sent);
    }
}

fn drain(pipe: &mut Option<impl Read>, kind: Kind, out: &mut Vec<u8>, backlog: usize) {
    let mut chunk = [0; CHUNK];
    while let Some(reader) = pipe {
        if out.len() >= backlog {
            return;
        }
        match reader.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(len) => wire::put_frame(out, kind, &chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn start(command: &Command) -> Result<Running, String> {
    let argv: Vec<_> = command.argv.iter().map(|arg| std::ffi::OsString::from_vec(arg.clone())).collect();
    let Some((program, args)) = argv.split_first() else {
        return Err("no command".into());
    };
    let mut process = std::process::Command::new(program);
    process.args(args).env_clear();
    for variable in &command.env {
        if let Some(at) = variable.iter().position(|&byte| byte == b'=') {
            let (name, value) = (variable[..at].to_vec(), variable[at + 1..].to_vec());
            process.env(std::ffi::OsString::from_vec(name), std::ffi::OsString::from_vec(value));
        }
    }
    process.current_dir(std::ffi::OsString::from_vec(command.cwd.clone()));
    process.stdin(if command.input { Stdio::piped() } else { Stdio::null() });
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        process.pre_exec(|| {
            // A session of its own, as a login would have; and no signal blocked or ignored.
            libc::setsid();
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child = process.spawn().map_err(|error| {
        let cwd = String::from_utf8_lossy(&command.cwd);
        format!("{}: {error} (in {cwd})", program.to_string_lossy())
    })?;
    for fd in child
        .stdin
        .iter()
        .map(AsRawFd::as_raw_fd)
        .chain(child.stdout.iter().map(AsRawFd::as_raw_fd))
        .chain(child.stderr.iter().map(AsRawFd::as_raw_fd))
    {
        // SAFETY: plain fcntl on an open descriptor.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
    }
    Ok(Running {
        pid: child.id() as libc::pid_t,
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        input: Vec::new(),
        input_ended: false,
    })
}
