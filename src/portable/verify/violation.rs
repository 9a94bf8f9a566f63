//! What a pair is refused for: where, and which invariant it breaks.
use super::insn::NotModelled;
use crate::portable::Error;
use isamorph_arch::Isa;
use std::fmt;

/// One reason to refuse a pair.
#[derive(Debug)]
pub struct Violation {
    /// Whose executable; `None` if it concerns both.
    pub isa: Option<Isa>,
    /// In which function.
    pub function: Option<String>,
    /// At which site: the stack-map ID and the return address.
    pub site: Option<(u64, u64)>,
    /// What.
    pub kind: Kind,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// An executable or a table cannot be read.
    #[error(transparent)]
    Input(#[from] Error),
    /// The two PT_LOAD tables differ.
    #[error("PT_LOAD segment {index} differs: {x86_64} on x86_64, {aarch64} on aarch64")]
    Segment {
        /// Which.
        index: usize,
        /// On x86_64.
        x86_64: String,
        /// On aarch64.
        aarch64: String,
    },
    /// The TLS segments differ or break the thread-pointer formula.
    #[error("PT_TLS: {0}")]
    Tls(String),
    /// A range or address of the manifests differs.
    #[error("manifest: {what} is {x86_64} on x86_64 and {aarch64} on aarch64")]
    Manifest {
        /// Which field.
        what: &'static str,
        /// On x86_64.
        x86_64: String,
        /// On aarch64.
        aarch64: String,
    },
    /// Initial contents of writable data differ.
    #[error("the initial data at {addr:#x} ({name}) differs between the executables")]
    Data {
        /// First byte that differs.
        addr: u64,
        /// The object it is in.
        name: String,
    },
    /// A symbol has two addresses.
    #[error("symbol {name} is at {x86_64:#x?} on x86_64 and at {aarch64:#x?} on aarch64")]
    Symbol {
        /// Its name.
        name: String,
        /// On x86_64.
        x86_64: Vec<u64>,
        /// On aarch64.
        aarch64: Vec<u64>,
    },
    /// The IDs of two executables do not name each other.
    #[error("the executables are not of one link: own_id and peer_id do not match")]
    Ids,
    /// A function exists on one ISA only.
    #[error("a function starts at {addr:#x} ({name}) on {isa} but not on {}", isa.peer())]
    FunctionMissing {
        /// Its address.
        addr: u64,
        /// Its name.
        name: String,
        /// Where it exists.
        isa: Isa,
    },
    /// An ID exists on one ISA only.
    #[error("stack-map ID {id:#x} is on {isa} but not on {}", isa.peer())]
    IdMissing {
        /// The ID.
        id: u64,
        /// Where it exists.
        isa: Isa,
    },
    /// An ID is used twice.
    #[error("stack-map ID {id:#x} has {count} records")]
    IdTwice {
        /// The ID.
        id: u64,
        /// Records.
        count: usize,
    },
    /// A site is in two different functions.
    #[error("the site is in the function at {x86_64:#x} on x86_64 and at {aarch64:#x} on aarch64")]
    OtherFunction {
        /// On x86_64.
        x86_64: u64,
        /// On aarch64.
        aarch64: u64,
    },
    /// Slots have two lengths.
    #[error("slots have {x86_64} bytes on x86_64 and {aarch64} on aarch64")]
    SlotsLen {
        /// On x86_64.
        x86_64: u32,
        /// On aarch64.
        aarch64: u32,
    },
    /// A slot byte is read after a site without having been written on every path to it.
    #[error(
        "slot byte {offset} is read after the site on {read_on} but not written on every path to it on {unwritten_on}"
    )]
    SlotNotWritten {
        /// Offset in the slots.
        offset: u32,
        /// Where it is read.
        read_on: Isa,
        /// Where it may be unwritten.
        unwritten_on: Isa,
    },
    /// An instruction that the verifier does not understand.
    #[error("{:#x}: {}: {}", .0.addr, .0.text, .0.why)]
    NotModelled(NotModelled),
    /// The block map does not describe the code.
    #[error("the basic-block map does not fit the code at {addr:#x}: {why}")]
    BlockMap {
        /// Where.
        addr: u64,
        /// How.
        why: &'static str,
    },
    /// Control leaves the function other than by call and return.
    #[error("{addr:#x}: {text}: control leaves the function to {target:#x}; tail jumps are not allowed")]
    TailJump {
        /// The jump.
        addr: u64,
        /// Its text.
        text: String,
        /// Where to.
        target: u64,
    },
    /// A system call outside the stubs.
    #[error("{addr:#x}: {text}: a system call outside the system-call stub")]
    SystemCall {
        /// The instruction.
        addr: u64,
        /// Its text.
        text: String,
    },
    /// Bytes of the text that no function covers and that are not padding.
    #[error("the text at {addr:#x} belongs to no function, leaf or stub and is not padding")]
    Uncovered {
        /// Where.
        addr: u64,
    },
    /// A call that is no site.
    #[error("{addr:#x}: {text}: the call is no site, and its target {target} is no leaf")]
    CallWithoutSite {
        /// The call.
        addr: u64,
        /// Its text.
        text: String,
        /// What it calls.
        target: String,
    },
    /// A call to something that is no function.
    #[error("{addr:#x}: {text}: calls into the middle of something")]
    CallTarget {
        /// The call.
        addr: u64,
        /// Its text.
        text: String,
    },
    /// A record that belongs to no call.
    #[error("stack-map record {id:#x} at {addr:#x} belongs to no call")]
    RecordWithoutCall {
        /// The ID.
        id: u64,
        /// Its address.
        addr: u64,
    },
    /// Two records of one call.
    #[error("the call at {addr:#x} has two stack-map records, {first:#x} and {second:#x}")]
    TwoRecords {
        /// The call.
        addr: u64,
        /// One ID.
        first: u64,
        /// Another.
        second: u64,
    },
    /// The site's block cannot be reached.
    #[error("the site is in a block that no path reaches")]
    Unreachable,
    /// A leaf polls, calls the system or calls out.
    #[error("{addr:#x}: {text}: {why} in a leaf")]
    Leaf {
        /// The instruction.
        addr: u64,
        /// Its text.
        text: String,
        /// What it does.
        why: &'static str,
    },
    /// A poll that is no nop in a function, or whose cold block is not a block of it.
    #[error("poll at {addr:#x}: {why}")]
    Poll {
        /// The poll.
        addr: u64,
        /// Why.
        why: &'static str,
    },
    /// The stack pointer is not a fixed distance from the CFA.
    #[error("{addr:#x}: {text}: the stack pointer is no longer at a known distance from the CFA")]
    StackPointer {
        /// The instruction.
        addr: u64,
        /// Its text.
        text: String,
    },
    /// A function returns without what it has to restore.
    #[error("{addr:#x}: returns with {what} not restored ({value})")]
    NotRestored {
        /// The return.
        addr: u64,
        /// Which register.
        what: String,
        /// What it holds.
        value: String,
    },
    /// A frame address gets where the analysis cannot follow it.
    #[error("{addr:#x}: {text}: {why}")]
    FrameEscape {
        /// The instruction.
        addr: u64,
        /// Its text.
        text: String,
        /// How.
        why: &'static str,
    },
    /// A live location holds something that is no residue.
    #[error("{place} is live and holds {value}; defined by {definition}; used by {used}")]
    Live {
        /// Register name or CFA offset.
        place: String,
        /// What it holds.
        value: String,
        /// The defining instruction.
        definition: String,
        /// The first instruction that may use it.
        used: String,
    },
    /// A function uses what no caller passes.
    #[error("{register}, which carries no argument, is live at the function's entry; used at {used:#x}")]
    NoArgument {
        /// Its name.
        register: String,
        /// The first instruction that may use it.
        used: u64,
    },
    /// The slots of a site are not where the other sites of the function have them.
    #[error("the slots are at {found}, elsewhere in the function at {expected}")]
    SlotsMoved {
        /// Here.
        found: String,
        /// Before.
        expected: String,
    },
    /// The slots of a site are where something else is.
    #[error("the slots at {slots} overlap {what}, which a call or the epilogue uses")]
    SlotsClobbered {
        /// Where they are said to be.
        slots: String,
        /// What else is there.
        what: String,
    },
    /// A call of setjmp whose site declares no jump cells.
    #[error("{addr:#x}: {text}: calls setjmp, and its site declares no jump cells: a move would lose the jump")]
    NoJumpCells {
        /// The call.
        addr: u64,
        /// Its text.
        text: String,
    },
    /// Two sites of one function declare other numbers of jump cells.
    #[error("site {id:#x} declares {other} jump cells, another site of the function {first}")]
    JumpCellsDiffer {
        /// Cells of the first site.
        first: u32,
        /// Cells of the other.
        other: u32,
        /// The other's ID.
        id: u64,
    },
    /// A site of a function that calls setjmp saves other registers than the call does.
    #[error("other registers are saved here than at the function's call of setjmp, behind which control may come back")]
    JumpSaved,
    /// A site differs between the ISAs in its jump cells, or in whether it is a call of setjmp.
    #[error("the site has jump cells and returns twice: {x86_64:?} on x86_64, {aarch64:?} on aarch64")]
    JumpSite {
        /// On x86_64.
        x86_64: (u32, bool),
        /// On aarch64.
        aarch64: (u32, bool),
    },
    /// Call-frame information says something else than the code does.
    #[error("call-frame information: {0}")]
    Cfi(String),
    /// A limit of the site table is exceeded.
    #[error("the site does not fit the site table: {0}")]
    Format(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(isa) = self.isa {
            write!(f, "{isa}: ")?;
        }
        if let Some(function) = &self.function {
            write!(f, "{function}: ")?;
        }
        if let Some((id, ret)) = self.site {
            write!(f, "site {id:#x} (returns to {ret:#x}): ")?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for Violation {}
