//! The host's side of a session: hands a command to a node's agent and relays its output.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::place::Lock;
use crate::wire::{self, Command, Ending, Kind, Request};

/// Sessions that a node can have at a time.
pub const PORTS: usize = 8;
/// A hello that is not answered within this time is repeated.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// A session with a node's agent; holds one of its ports.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    incoming: Vec<u8>,
    nonce: [u8; 8],
    _port: Lock,
}

/// Where a command's output goes.
pub trait Sink {
    /// Bytes of standard output, in order.
    fn output(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Bytes of standard error, in order.
    fn error_output(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Passes output through to this process's own.
#[derive(Clone, Copy, Debug)]
pub struct PassThrough;

impl Sink for PassThrough {
    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    fn error_output(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(bytes)
    }
}

/// Keeps output.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Standard output so far.
    pub stdout: Vec<u8>,
    /// Standard error so far.
    pub stderr: Vec<u8>,
}

impl Sink for Capture {
    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.extend_from_slice(bytes);
        Ok(())
    }

    fn error_output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stderr.extend_from_slice(bytes);
        Ok(())
    }
}

impl Session {
    /// Opens a session on a free port of the node in `dir`, waiting for a port until `deadline`.
    ///
    /// # Errors
    /// `TimedOut` if no port becomes free or the agent does not answer by then.
    pub fn open(dir: &Path, deadline: Instant) -> io::Result<Session> {
        let (index, port) = 'free: loop {
            for index in 0..PORTS {
                if let Some(lock) = Lock::try_take(&dir.join(format!("port{index}.lock")))? {
                    break 'free (index, lock);
                }
            }
            if Instant::now() >= deadline {
                return Err(timed_out("all ports of the node are in use"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let stream = UnixStream::connect(dir.join(format!("port{index}")))?;
        stream.set_nonblocking(true)?;
        let mut session = Session { stream, incoming: Vec::new(), nonce: [0; 8], _port: port };
        fs::File::open("/dev/urandom")?.read_exact(&mut session.nonce)?;
        let mut hello = wire::MAGIC.to_vec();
        hello.extend_from_slice(&session.nonce);
        let mut padding = 0;
        while !session.greet(&hello, padding, deadline)? {
            // An earlier host may have died in the middle of a frame, and the agent take the hello for the rest of it. Zeros
            // fill that frame, and are none themselves.
            padding = (padding * 2).clamp(16 << 10, wire::MAX_PAYLOAD);
        }
        Ok(session)
    }

    /// Sends a hello; false if there is no answer within some time.
    fn greet(&mut self, hello: &[u8], padding: usize, deadline: Instant) -> io::Result<bool> {
        let patience = deadline.min(Instant::now() + HELLO_PATIENCE);
        self.send(&[&vec![0; padding], hello].concat(), Some(deadline))?;
        loop {
            if wire::take_hello(&mut self.incoming) == Some(self.nonce) {
                return Ok(true);
            }
            match self.receive(Some(patience), false) {
                Err(error) if error.kind() == ErrorKind::TimedOut && Instant::now() < deadline => return Ok(false),
                result => result?,
            };
        }
    }

    /// Drops answers to repeated hellos, then takes a frame.
    fn take_frame(&mut self) -> io::Result<Option<wire::Frame>> {
        while self.incoming.first() == Some(&wire::MAGIC[0]) {
            if self.incoming.len() < wire::HELLO_LEN {
                return Ok(None);
            }
            self.incoming.drain(..wire::HELLO_LEN);
        }
        wire::take_frame(&mut self.incoming)
    }

    /// Runs a command, with this process's standard input if it asks for input, until it ends or `deadline` passes.
    ///
    /// # Errors
    /// `TimedOut` after the deadline; the agent then kills the command's process group.
    pub fn run(mut self, command: Command, sink: &mut dyn Sink, deadline: Option<Instant>) -> io::Result<Ending> {
        let mut forward_input = command.input;
        self.request(&Request::Run(command), deadline)?;
        loop {
            while let Some(frame) = self.take_frame()? {
                match frame.kind {
                    Kind::Output => sink.output(&frame.payload)?,
                    Kind::ErrorOutput => sink.error_output(&frame.payload)?,
                    Kind::Ending => return Ending::decode(&frame.payload),
                    Kind::Request | Kind::Input => {}
                }
            }
            if self.receive(deadline, forward_input)? {
                let mut chunk = [0; 16 << 10];
                let len = io::stdin().lock().read(&mut chunk).unwrap_or(0);
                forward_input = len > 0;
                let mut frame = Vec::new();
                wire::put_frame(&mut frame, Kind::Input, &chunk[..len]);
                self.send(&frame, deadline)?;
            }
        }
    }

    /// Asks the node to write everything back and switch itself off.
    ///
    /// # Errors
    /// Those of sending.
    pub fn power_off(mut self, deadline: Instant) -> io::Result<()> {
        self.request(&Request::PowerOff, Some(deadline))?;
        // The node closes its end by dying.
        while self.receive(Some(deadline), false).is_ok() {}
        Ok(())
    }

    fn request(&mut self, request: &Request, deadline: Option<Instant>) -> io::Result<()> {
        let payload = request.encode();
        if payload.len() > wire::MAX_PAYLOAD {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("command of {} bytes", payload.len())));
        }
        let mut frame = Vec::new();
        wire::put_frame(&mut frame, Kind::Request, &payload);
        self.send(&frame, deadline)
    }

    fn send(&mut self, mut bytes: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Taking in what the agent says meanwhile keeps both sides from waiting for each other.
                    self.wait(libc::POLLOUT | libc::POLLIN, deadline, false)?;
                    self.take_in()?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for bytes of the agent and takes them in; true if (also) standard input is ready and was asked for.
    fn receive(&mut self, deadline: Option<Instant>, input: bool) -> io::Result<bool> {
        let input_ready = self.wait(libc::POLLIN, deadline, input)?;
        self.take_in()?;
        Ok(input_ready)
    }

    fn take_in(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the node died")),
            Ok(len) => {
                self.incoming.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn wait(&self, events: libc::c_short, deadline: Option<Instant>, input: bool) -> io::Result<bool> {
        let left = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(timed_out("the time is over"));
                }
                left.as_millis().min(i32::MAX as u128 - 1) as i32 + 1
            }
            None => -1,
        };
        let mut polls = [
            libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 },
            // A negative descriptor is ignored.
            libc::pollfd { fd: if input { 0 } else { -1 }, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: `polls` is an array of its length.
        if unsafe { libc::poll(polls.as_mut_ptr(), 2, left) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(polls[1].revents != 0)
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}
