//! What host and agent say to each other over one virtio-serial port.
//!
//! A port carries one session at a time. The host opens it with a hello that carries a fresh nonce, the agent answers with
//! the same 16 bytes; whatever came before the answer belongs to an earlier session and is skipped. Then frames follow:
//!
//! ```text
//!  0      1              5             5+len
//!  +------+--------------+-------------+
//!  | kind | len u32 (LE) | payload     |
//!  +------+--------------+-------------+
//! ```

use std::io;

/// First half of a hello; the nonce is the other half.
pub const MAGIC: [u8; 8] = *b"\x00ISAMPRT";
/// Bytes of a hello.
pub const HELLO_LEN: usize = 16;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 5;
/// No frame is longer; a longer one means that the two sides lost step.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host to agent: a [`Request`].
    Request = b'Q',
    /// Host to agent: bytes of standard input; an empty payload ends it.
    Input = b'I',
    /// Agent to host: bytes of standard output.
    Output = b'O',
    /// Agent to host: bytes of standard error.
    ErrorOutput = b'E',
    /// Agent to host: how the command ended, a [`Ending`]; the last frame of a session.
    Ending = b'X',
}

impl Kind {
    /// The kind with this tag.
    pub fn from_tag(tag: u8) -> Option<Kind> {
        [Kind::Request, Kind::Input, Kind::Output, Kind::ErrorOutput, Kind::Ending]
            .into_iter()
            .find(|kind| *kind as u8 == tag)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// Appends a frame to `out`.
pub fn put_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    out.push(kind as u8);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Takes one whole frame off the front of `buffer`; `None` if it has not arrived yet.
///
/// # Errors
/// `InvalidData` for an unknown kind or a length above [`MAX_PAYLOAD`].
pub fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let kind = Kind::from_tag(header[0]).ok_or_else(|| invalid(format!("frame of unknown kind {:#04x}", header[0])))?;
    let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if len > MAX_PAYLOAD {
        return Err(invalid(format!("frame of {len} bytes (at most {MAX_PAYLOAD})")));
    }
    if buffer.len() < HEADER_LEN + len {
        return Ok(None);
    }
    let payload = buffer[HEADER_LEN..HEADER_LEN + len].to_vec();
    buffer.drain(..HEADER_LEN + len);
    Ok(Some(Frame { kind, payload }))
}

/// Drops everything up to and including the first hello in `buffer`, and returns its nonce; `None` while there is no
/// whole hello (then only what may be the start of one is kept).
pub fn take_hello(buffer: &mut Vec<u8>) -> Option<[u8; 8]> {
    let start = buffer.windows(MAGIC.len()).position(|window| window == MAGIC);
    match start {
        Some(start) => {
            buffer.drain(..start);
            let nonce = buffer.get(MAGIC.len()..HELLO_LEN)?.try_into().ok()?;
            buffer.drain(..HELLO_LEN);
            Some(nonce)
        }
        None => {
            let keep = buffer.len().min(MAGIC.len() - 1);
            buffer.drain(..buffer.len() - keep);
            None
        }
    }
}

/// What the agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a command.
    Run(Command),
    /// Write everything back, unmount the shared directories and switch off.
    PowerOff,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; the program is searched in PATH of `env`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Whether input frames follow; otherwise standard input is `/dev/null`.
    pub input: bool,
}

impl Request {
    /// As the payload of a [`Kind::Request`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Request::Run(command) => {
                out.push(b'r');
                put_list(&mut out, &command.argv);
                put_list(&mut out, &command.env);
                put_bytes(&mut out, &command.cwd);
                out.push(command.input as u8);
            }
            Request::PowerOff => out.push(b'o'),
        }
        out
    }

    /// The inverse of [`Request::encode`].
    ///
    /// # Errors
    /// `InvalidData` if `payload` is not a request.
    pub fn decode(payload: &[u8]) -> io::Result<Request> {
        let mut reader = Reader(payload);
        let request = match reader.byte()? {
            b'r' => Request::Run(Command {
                argv: reader.list()?,
                env: reader.list()?,
                cwd: reader.bytes()?,
                input: reader.byte()? != 0,
            }),
            b'o' => Request::PowerOff,
            tag => return Err(invalid(format!("unknown request {tag:#04x}"))),
        };
        match reader.0 {
            [] => Ok(request),
            rest => Err(invalid(format!("{} bytes after a request", rest.len()))),
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It could not be started, or the request failed; says why.
    Failed(String),
}

impl Ending {
    /// As the payload of a [`Kind::Ending`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, rest) = match self {
            Ending::Exited(status) => (b'e', status.to_le_bytes().to_vec()),
            Ending::Killed(signal) => (b's', signal.to_le_bytes().to_vec()),
            Ending::Failed(reason) => (b'f', reason.as_bytes().to_vec()),
        };
        let mut out = vec![tag];
        out.extend_from_slice(&rest);
        out
    }

    /// The inverse of [`Ending::encode`].
    ///
    /// # Errors
    /// `InvalidData` if `payload` is not an ending.
    pub fn decode(payload: &[u8]) -> io::Result<Ending> {
        let mut reader = Reader(payload);
        Ok(match reader.byte()? {
            b'e' => Ending::Exited(reader.u32()? as i32),
            b's' => Ending::Killed(reader.u32()? as i32),
            b'f' => Ending::Failed(String::from_utf8_lossy(reader.0).into_owned()),
            tag => return Err(invalid(format!("unknown ending {tag:#04x}"))),
        })
    }

    /// The exit status that a shell would report.
    pub fn status(&self) -> i32 {
        match self {
            Ending::Exited(status) => *status,
            Ending::Killed(signal) => 128 + signal,
            Ending::Failed(_) => 127,
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_list(out: &mut Vec<u8>, list: &[Vec<u8>]) {
    out.extend_from_slice(&(list.len() as u32).to_le_bytes());
    for bytes in list {
        put_bytes(out, bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> io::Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| invalid("a message ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> io::Result<u32> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(|| invalid("a message ends early".into()))?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(|| invalid("a message ends early".into()))?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn list(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let len = self.u32()?;
        (0..len).map(|_| self.bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        let run = Request::Run(Command {
            argv: vec![b"printf".to_vec(), b"\xff\0".to_vec(), Vec::new()],
            env: vec![b"A=b".to_vec()],
            cwd: b"/tmp".to_vec(),
            input: true,
        });
        for request in [run, Request::PowerOff] {
            let encoded = request.encode();
            assert_eq!(Request::decode(&encoded).unwrap(), request);
            assert!((0..encoded.len()).all(|len| Request::decode(&encoded[..len]).is_err()));
        }
    }

    #[test]
    fn endings_survive_the_wire() {
        for ending in [Ending::Exited(-1), Ending::Killed(9), Ending::Failed("no such file".into())] {
            assert_eq!(Ending::decode(&ending.encode()).unwrap(), ending);
        }
    }

    #[test]
    fn frames_arrive_in_pieces() {
        let mut sent = Vec::new();
        put_frame(&mut sent, Kind::Output, b"one");
        put_frame(&mut sent, Kind::ErrorOutput, b"");
        let (mut buffer, mut got) = (Vec::new(), Vec::new());
        for byte in sent {
            buffer.push(byte);
            while let Some(frame) = take_frame(&mut buffer).unwrap() {
                got.push((frame.kind, frame.payload));
            }
        }
        assert_eq!(got, [(Kind::Output, b"one".to_vec()), (Kind::ErrorOutput, Vec::new())]);
    }

    #[test]
    fn a_lost_step_is_noticed() {
        assert!(take_frame(&mut b"?\0\0\0\0".to_vec()).is_err());
        assert!(take_frame(&mut b"O\xff\xff\xff\xff".to_vec()).is_err());
    }

    #[test]
    fn a_hello_is_found_behind_an_earlier_sessions_bytes() {
        let mut buffer = b"O\x03\0\0\0abc\x00ISA".to_vec();
        assert_eq!(take_hello(&mut buffer), None);
        assert_eq!(buffer.len(), 7);
        buffer = b"junk".to_vec();
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(b"12345");
        assert_eq!(take_hello(&mut buffer), None);
        buffer.extend_from_slice(b"678O");
        assert_eq!(take_hello(&mut buffer), Some(*b"12345678"));
        assert_eq!(buffer, b"O");
    }
}
