//! The restorer program: a list of system calls that a process makes to become another one.
//!
//! Everything is planned before there is a process. The new process jumps into a few instructions
//! of position-independent code (`x86_64.rs`, `aarch64.rs`) that make one call after the other and
//! compare each result with what was expected; there is no other code in it, and no stack. All of
//! it lies in one *area*, in a hole of both address spaces, the old one and the new one:
//!
//! ```text
//!   base                code
//!   base + 4096         headers, one per thread: first call, end of calls, status descriptor, failure (2 words), done
//!                       calls, 72 bytes each: number, 6 arguments, mode, expected result
//!                       data: structures that arguments point to
//!   base + park offset  room, initially not mapped, to which mappings can be moved meanwhile
//! ```
//!
//! A process of several threads has a list of calls for each; one call of the first list starts another.
use std::borrow::Cow;
use std::fmt;

/// Length of a page.
pub const PAGE: u64 = 4096;
const HEADER_LEN: usize = 64;
const CALL_LEN: usize = 72;

/// An argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number, or an address that is known already.
    Value(u64),
    /// The address of data, by its offset: see [`Program::data`].
    Data(u64),
    /// The address where the area begins.
    AreaStart,
    /// The address where the area ends.
    AreaEnd,
    /// The distance from the end of the area to this address.
    FromAreaEnd(u64),
    /// The address of an offset in the room for parked mappings.
    Park(u64),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Value(value.into())
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        // Sign extended, as a C caller does.
        Self::Value(i64::from(value).cast_unsigned())
    }
}

/// What a call must return for the program to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything but an error.
    Success,
    /// This.
    Exactly(u64),
    /// A thread ID for the caller, and 0 for a new thread, which goes on with the calls of this thread.
    Thread(usize),
}

/// What a call is for, for the message when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    text: Cow<'static, str>,
    addr: Option<u64>,
}

impl Purpose {
    /// A purpose that concerns an address.
    #[must_use]
    pub const fn at(text: &'static str, addr: u64) -> Self {
        Self { text: Cow::Borrowed(text), addr: Some(addr) }
    }
}

impl From<&'static str> for Purpose {
    fn from(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), addr: None }
    }
}

impl From<String> for Purpose {
    fn from(text: String) -> Self {
        Self { text: Cow::Owned(text), addr: None }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "{} at {addr:#x}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

#[derive(Clone, Debug)]
struct Call {
    number: u64,
    args: [Arg; 6],
    expect: Expect,
    purpose: Purpose,
}

/// A list of system calls in the making.
#[derive(Clone, Debug)]
pub struct Program {
    /// Per thread; the first one's is the process's leader.
    threads: Vec<Vec<Call>>,
    /// Whose calls are being added.
    current: usize,
    data: Vec<u8>,
    /// Words in the data that are addresses of other data: where, and of which offset.
    pointers: Vec<(usize, u64)>,
    park: u64,
}

impl Default for Program {
    fn default() -> Self {
        Self { threads: vec![Vec::new()], current: 0, data: Vec::new(), pointers: Vec::new(), park: 0 }
    }
}

impl Program {
    /// Adds a thread; what `plan` appends is for it to do.
    ///
    /// # Errors
    /// Those of `plan`.
    pub fn thread<E>(&mut self, plan: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<usize, E> {
        let index = self.threads.len();
        self.threads.push(Vec::new());
        let before = std::mem::replace(&mut self.current, index);
        let result = plan(self);
        self.current = before;
        result.map(|()| index)
    }

    /// Appends a system call that must not fail.
    pub fn call<const N: usize>(&mut self, purpose: impl Into<Purpose>, number: libc::c_long, args: [Arg; N]) {
        self.call_expecting(purpose, number, args, Expect::Success);
    }

    /// Appends a system call.
    pub fn call_expecting<const N: usize>(
        &mut self,
        purpose: impl Into<Purpose>,
        number: libc::c_long,
        args: [Arg; N],
        expect: Expect,
    ) {
        const { assert!(N <= 6, "system calls have six arguments at most") };
        let mut six = [Arg::Value(0); 6];
        six[..N].copy_from_slice(&args);
        // Numbers of system calls are not negative; c_long has 64 bits on both.
        let call = Call { number: number as u64, args: six, expect, purpose: purpose.into() };
        self.threads[self.current].push(call);
    }

    /// Adds data that an argument can point to; 16-byte aligned, writable, gone after the restore.
    pub fn data(&mut self, bytes: &[u8]) -> Arg {
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        Arg::Data(offset)
    }

    /// Adds 64-bit words as data.
    pub fn words(&mut self, words: &[u64]) -> Arg {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.data(&bytes)
    }

    /// Adds a structure of 64-bit words, in which a pointer to other data follows `before`.
    pub fn structure(&mut self, before: &[u64], pointer: u64, after: u64) -> Arg {
        let words = [before, &[0, after]].concat();
        let arg = self.words(&words);
        if let Arg::Data(offset) = arg {
            self.pointers.push((offset as usize + 8 * before.len(), pointer));
        }
        arg
    }

    /// Makes sure that so many bytes can be parked.
    pub fn reserve_park(&mut self, len: u64) {
        self.park = self.park.max(len.next_multiple_of(PAGE));
    }

    /// Number of calls.
    #[must_use]
    pub fn len(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }

    /// Length of the whole area with the room for parked mappings, in bytes.
    #[must_use]
    pub fn area_len(&self) -> u64 {
        self.park_offset() + self.park
    }

    /// Length of the part of the area that is mapped at first, in bytes.
    #[must_use]
    pub fn park_offset(&self) -> u64 {
        let writable = self.headers_len() + self.len() * CALL_LEN + self.data.len() + 16;
        PAGE + (writable as u64).next_multiple_of(PAGE)
    }

    /// What the call number `index` is for.
    #[must_use]
    pub fn purpose(&self, index: usize) -> String {
        self.threads.iter().flatten().nth(index).map_or_else(|| format!("step {index}"), |c| c.purpose.to_string())
    }

    /// The index of the call at an address, given where the area is.
    #[must_use]
    pub fn index_of(&self, base: u64, addr: u64) -> usize {
        (addr.wrapping_sub(base + PAGE + self.headers_len() as u64) / CALL_LEN as u64) as usize
    }

    /// The address of the word that says that a thread has made all its calls.
    #[must_use]
    pub const fn done_flag(base: u64, thread: usize) -> u64 {
        Self::header(base, thread) + 40
    }

    /// The address of a thread's header.
    #[must_use]
    pub const fn header(base: u64, thread: usize) -> u64 {
        base + PAGE + (thread * HEADER_LEN) as u64
    }

    fn headers_len(&self) -> usize {
        self.threads.len() * HEADER_LEN
    }

    /// The writable part of the area, for an area at `base`.
    #[must_use]
    pub fn encode(&self, base: u64, status_fd: i32) -> Vec<u8> {
        let mut at = base + PAGE + self.headers_len() as u64;
        let data = (at + (self.len() * CALL_LEN) as u64).next_multiple_of(16);
        let area_end = base + self.area_len();
        let mut bytes = Vec::with_capacity(self.park_offset() as usize);
        let mut put = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
        for calls in &self.threads {
            let end = at + (calls.len() * CALL_LEN) as u64;
            [at, end, status_fd as u64, 0, 0, 0, 0, 0].into_iter().for_each(&mut put);
            at = end;
        }
        for call in self.threads.iter().flatten() {
            put(call.number);
            for arg in call.args {
                put(match arg {
                    Arg::Value(value) => value,
                    Arg::Data(offset) => data + offset,
                    Arg::AreaStart => base,
                    Arg::AreaEnd => area_end,
                    Arg::FromAreaEnd(limit) => limit.saturating_sub(area_end),
                    Arg::Park(offset) => base + self.park_offset() + offset,
                });
            }
            let (mode, value) = match call.expect {
                Expect::Success => (0, 0),
                Expect::Exactly(value) => (1, value),
                Expect::Thread(thread) => (2, Self::header(base, thread)),
            };
            put(mode);
            put(value);
        }
        bytes.resize((data - Self::header(base, 0)) as usize, 0);
        let data_at = bytes.len();
        bytes.extend_from_slice(&self.data);
        for (at, offset) in &self.pointers {
            bytes[data_at + at..data_at + at + 8].copy_from_slice(&(data + offset).to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_point_to_data() {
        let mut p = Program::default();
        let Arg::Data(vector) = p.words(&[11, 22]) else { panic!("data has an offset") };
        p.structure(&[1, 2], vector, 9);
        let bytes = p.encode(0x10_0000, 0);
        let words: Vec<u64> = bytes[64..].chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [11, 22, 1, 2, 0x10_1040, 9]);
    }

    #[test]
    fn threads_have_calls_and_headers_of_their_own() {
        let mut p = Program::default();
        p.call("first", 1, []);
        let thread = p.thread(|p| {
            p.call("of the thread", 2, []);
            Ok::<_, ()>(())
        });
        p.call_expecting("starting it", 3, [], Expect::Thread(thread.unwrap()));
        let bytes = p.encode(0x10_0000, 5);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let calls = 0x10_1000 + 2 * 64;
        assert_eq!((word(0), word(8)), (calls, calls + 2 * 72));
        assert_eq!((word(64), word(72), word(80)), (calls + 2 * 72, calls + 3 * 72, 5));
        assert_eq!([128, 128 + 72, 128 + 144].map(word), [1, 3, 2]);
        assert_eq!((word(128 + 72 + 56), word(128 + 72 + 64)), (2, Program::header(0x10_0000, 1)));
        assert_eq!(p.purpose(p.index_of(0x10_0000, calls + 2 * 72)), "of the thread");
    }

    #[test]
    fn addresses_are_resolved_against_the_base() {
        let mut p = Program::default();
        let first = p.data(b"abc");
        let second = p.words(&[7]);
        p.reserve_park(5000);
        p.call(
            "nothing",
            39,
            [Arg::AreaStart, Arg::AreaEnd, Arg::FromAreaEnd(0x40_0000), first, second, Arg::Park(16)],
        );
        assert_eq!((p.park_offset(), p.area_len()), (0x2000, 0x4000));
        let bytes = p.encode(0x10_0000, 5);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let data = 0x10_1000 + 64 + 72 + 8;
        assert_eq!((word(0), word(8), word(16)), (0x10_1040, 0x10_1088, 5));
        assert_eq!(word(64), 39);
        assert_eq!(
            [72, 80, 88, 96, 104, 112].map(word),
            [0x10_0000, 0x10_4000, 0x40_0000 - 0x10_4000, data, data + 16, 0x10_2010]
        );
        assert_eq!(word((data + 16 - 0x10_1000) as usize), 7);
        assert_eq!(p.index_of(0x10_0000, 0x10_1040), 0);
        assert_eq!(p.purpose(0), "nothing");
    }
}
