//! The native stack of a parked thread, from the record of its system-call stub to its outermost frame.
//!
//! Every frame is found by its site: the return address names it, the site says how far its CFA is. Nothing is
//! guessed; an address without a site ends the translation.
//!
//! ```text
//!   high   outermost CFA    ── return address: one of root_ret
//!          frame n-1           at its site
//!            ...
//!          frame 0             called __isam_syscall
//!          CFA of the stub  ── return address of frame 0's site
//!   low    record           ── the thread's sp
//! ```
use crate::portable::{Site, SiteTable};
use isamorph_arch::{Isa, RemoteAddr, ReturnAddr, aarch64, syscall_record as record};

/// Stored memory that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("memory at {at} is not in the images: {why}")]
pub struct MemoryError {
    /// The first address that could not be read.
    pub at: RemoteAddr,
    /// Why.
    pub why: String,
}

/// The memory of a stored process.
pub trait Memory {
    /// Fills `into` with the bytes at `at`.
    ///
    /// # Errors
    /// If one of them is not stored.
    fn read(&mut self, at: RemoteAddr, into: &mut [u8]) -> Result<(), MemoryError>;

    /// The little-endian word at `at`.
    ///
    /// # Errors
    /// If it is not stored.
    fn word(&mut self, at: RemoteAddr) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// What unwinding and laying out needs of one executable of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its sites.
    pub sites: &'a SiteTable,
    /// Return addresses of outermost frames; 0 where there is none.
    pub root_ret: [u64; 3],
    /// The signal restorer.
    pub restore_rt: u64,
}

impl Member<'_> {
    /// Its instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.sites.isa()
    }
}

/// A suspended frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Stack-map ID of the site it is suspended at.
    pub site: u64,
    /// Return address of that site.
    pub ret: ReturnAddr,
    /// Its CFA.
    pub cfa: RemoteAddr,
}

/// The native stack of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeStack {
    /// Address of the stub's record: the thread's `sp`.
    pub record: RemoteAddr,
    /// Frames, innermost (the caller of the stub) first.
    pub frames: Vec<Frame>,
    /// Which of `root_ret` the outermost frame returns to.
    pub root: usize,
}

impl NativeStack {
    /// The outermost CFA: what both instruction sets have in common.
    #[must_use]
    pub fn top(&self) -> RemoteAddr {
        self.frames.last().map_or(RemoteAddr(self.record.0 + record::FRAME_LEN), |frame| frame.cfa)
    }
}

/// A stack that cannot be followed to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnwindError {
    /// A return address that belongs to no site.
    #[error("frame {index} (sp {sp}) returns to {ret}, which is no call site of the executable")]
    NoSite {
        /// Number of the frame, the stub's caller being 0.
        index: usize,
        /// Where its frame starts.
        sp: RemoteAddr,
        /// The return address.
        ret: ReturnAddr,
    },
    /// A signal handler is running.
    #[error("a signal handler's frame is at {sp}: the thread was not let out of its handler before the dump")]
    SignalFrame {
        /// The `sp` at which the signal frame starts.
        sp: RemoteAddr,
    },
    /// A CFA that no frame can have.
    #[error("frame {index} at {name} would have the CFA {cfa:#x}, which is not aligned to 16 bytes or wraps around")]
    Cfa {
        /// Number of the frame.
        index: usize,
        /// The site's return address.
        name: ReturnAddr,
        /// The CFA.
        cfa: u64,
    },
    /// The stack is not in the images.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Follows the stack from the stub's record to a root.
///
/// # Errors
/// A return address without a site, a signal frame, memory that is not stored.
pub fn unwind(
    memory: &mut impl Memory,
    member: &Member<'_>,
    record_at: RemoteAddr,
) -> Result<NativeStack, UnwindError> {
    let mut frames = Vec::new();
    let mut ret = memory.word(at(record_at, record::RETURN as i64, 0)?)?;
    let mut sp = at(record_at, record::FRAME_LEN as i64, 0)?;
    loop {
        if !sp.0.is_multiple_of(16) {
            return Err(UnwindError::Cfa { index: frames.len(), name: ReturnAddr(ret), cfa: sp.0 });
        }
        if let Some(root) = member.root_ret.iter().position(|root| ret != 0 && *root == ret) {
            return Ok(NativeStack { record: record_at, frames, root });
        }
        if ret == member.restore_rt {
            return Err(UnwindError::SignalFrame { sp });
        }
        let index = frames.len();
        let Some(site) = member.sites.by_return(ReturnAddr(ret)) else {
            return Err(UnwindError::NoSite { index, sp, ret: ReturnAddr(ret) });
        };
        let cfa = at(sp, i64::from(site.cfa_minus_sp), index)?;
        // A frame holds at least its return address; so the walk ends with the stack's memory.
        if cfa <= sp {
            return Err(UnwindError::Cfa { index, name: site.ret, cfa: cfa.0 });
        }
        frames.push(Frame { site: site.id, ret: site.ret, cfa });
        ret = memory.word(return_cell(&site, cfa, member.isa(), index)?)?;
        sp = cfa;
    }
}

/// Where a frame keeps its return address.
fn return_cell(site: &Site<'_>, cfa: RemoteAddr, isa: Isa, index: usize) -> Result<RemoteAddr, UnwindError> {
    match return_offset(site, isa) {
        Some(offset) => at(cfa, i64::from(offset), index),
        None => Err(UnwindError::NoSite { index, sp: cfa, ret: site.ret }),
    }
}

/// The CFA-relative place of a frame's return address; `None` if its table entry lacks it (aarch64 without `x30`).
pub(super) fn return_offset(site: &Site<'_>, isa: Isa) -> Option<i32> {
    match isa {
        Isa::X86_64 => Some(-8),
        Isa::Aarch64 => site.saved.iter().find(|saved| saved.reg == aarch64::dwarf::RA).map(|saved| saved.cfa_off),
    }
}

fn at(base: RemoteAddr, distance: i64, index: usize) -> Result<RemoteAddr, UnwindError> {
    base.checked_offset(distance).ok_or(UnwindError::Cfa { index, name: ReturnAddr(0), cfa: base.0 })
}
