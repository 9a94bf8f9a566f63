//! The same frames as the other instruction set lays them out: addresses first, then bytes and registers.
//!
//! The outermost CFA is common; going inwards each callee's CFA is its caller's `sp` (architecture §4.8). Writing
//! goes inwards too and carries the value of every callee-saved register as it would be in a running thread: what a
//! frame saves is its caller's value, what is live in it comes from the site's residue.
use super::jumps;
use super::unwind::{Frame, Member, Memory, MemoryError, NativeStack, return_offset};
use crate::portable::{Place, Residue, Site, Value};
use isamorph_arch::{DwarfReg, Isa, RemoteAddr, ReturnAddr, aarch64, syscall_record as record, x86_64};

/// Frames that the target's tables do not allow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The other executable has no such site.
    #[error("site {site:#x} (returning to {ret}) is missing in the {isa} executable: not a pair")]
    NoSite {
        /// The site.
        site: u64,
        /// Its return address in the source executable.
        ret: ReturnAddr,
        /// The target.
        isa: Isa,
    },
    /// The slots of a site differ in size.
    #[error("site {site:#x} (returning to {ret}) has {from} bytes of slots, its peer {to}: not a pair")]
    Slots {
        /// The site.
        site: u64,
        /// Its return address in the source executable.
        ret: ReturnAddr,
        /// Bytes on the source's side.
        from: u32,
        /// Bytes on the target's side.
        to: u32,
    },
    /// A table entry that no verified executable has.
    #[error("site {site:#x} (returning to {ret} on {isa}): {what}")]
    Table {
        /// The site.
        site: u64,
        /// Its return address in the target executable.
        ret: ReturnAddr,
        /// The target.
        isa: Isa,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The frames do not fit below the outermost CFA.
    #[error("the frames need more than the address space below {top}")]
    TooDeep {
        /// The outermost CFA.
        top: RemoteAddr,
    },
    /// The target has no root for the outermost frame.
    #[error("the {isa} executable has no root number {root}: not a pair")]
    NoRoot {
        /// Index of the root.
        root: usize,
        /// The target.
        isa: Isa,
    },
    /// A jump cell that its frame's call of setjmp did not fill.
    #[error("the jump cell at {cell} of site {site:#x} (returning to {ret}): {what}")]
    Jump {
        /// Address of the cell.
        cell: RemoteAddr,
        /// The site at which its frame is suspended.
        site: u64,
        /// Its return address in the source executable.
        ret: ReturnAddr,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The source's slots are not in the images.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Where the target's frames are.
#[derive(Debug)]
pub struct Layout<'a> {
    target: Member<'a>,
    /// Innermost first, as in [`NativeStack::frames`].
    frames: Vec<(Frame, Site<'a>)>,
    root_ret: u64,
    /// Address of the stub's record: the thread's new `sp`.
    pub record: RemoteAddr,
    /// The outermost CFA.
    pub top: RemoteAddr,
}

/// A rewritten stack and the registers that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Address of the first byte: the record.
    pub start: RemoteAddr,
    /// The bytes from the record to the outermost CFA.
    pub bytes: Vec<u8>,
    /// Callee-saved registers at the stub's restart label; the frame pointer is the stub's own.
    pub registers: Vec<(DwarfReg, u64)>,
    /// Jump cells by address.
    pub cells: Vec<(RemoteAddr, jumps::Cell)>,
}

impl<'a> Layout<'a> {
    /// Lays the source's frames out for the target.
    ///
    /// # Errors
    /// If the two executables are no pair, or the address space ends.
    pub fn new(stack: &NativeStack, source: &Member<'_>, target: Member<'a>) -> Result<Self, LayoutError> {
        let isa = target.isa();
        let top = stack.top();
        let root_ret = target.root_ret[stack.root];
        if root_ret == 0 {
            return Err(LayoutError::NoRoot { root: stack.root, isa });
        }
        let mut frames = Vec::with_capacity(stack.frames.len());
        let mut cfa = top;
        let down = |from: RemoteAddr, bytes: u64| from.checked_sub(bytes).ok_or(LayoutError::TooDeep { top });
        for frame in stack.frames.iter().rev() {
            let Some(site) = target.sites.by_id(frame.site) else {
                return Err(LayoutError::NoSite { site: frame.site, ret: frame.ret, isa });
            };
            let from = source.sites.by_id(frame.site).map_or(0, |site| site.slots_len);
            if from != site.slots_len {
                return Err(LayoutError::Slots { site: frame.site, ret: frame.ret, from, to: site.slots_len });
            }
            let wrong = |what| LayoutError::Table { site: site.id, ret: site.ret, isa, what };
            if site.cfa_minus_sp == 0 || !site.cfa_minus_sp.is_multiple_of(16) {
                return Err(wrong("its frame has no whole number of 16 bytes"));
            }
            if return_offset(&site, isa).is_none() {
                return Err(wrong("x30 is not among its saved registers"));
            }
            frames.push((Frame { site: site.id, ret: site.ret, cfa }, site));
            cfa = down(cfa, site.cfa_minus_sp.into())?;
        }
        frames.reverse();
        Ok(Self { target, frames, root_ret, record: down(cfa, record::FRAME_LEN)?, top })
    }

    /// The target's frames, innermost first.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (&Frame, &Site<'a>)> {
        self.frames.iter().map(|(frame, site)| (frame, site))
    }

    /// Writes the target's stack from the source's slots and record.
    ///
    /// # Errors
    /// If the source cannot be read or a table entry is nonsense.
    pub fn write(
        &self,
        stack: &NativeStack,
        source: &Member<'_>,
        memory: &mut impl Memory,
        thread_pointer: RemoteAddr,
    ) -> Result<Rewritten, LayoutError> {
        let isa = self.target.isa();
        let mut out = Bytes { start: self.record, bytes: vec![0; (self.top.0 - self.record.0) as usize] };
        let mut saved = CalleeSaved::new(isa);
        let mut ret = self.root_ret;
        let mut cells = Vec::new();
        for ((frame, site), from) in self.frames.iter().zip(&stack.frames).rev() {
            let wrong = |what| LayoutError::Table { site: site.id, ret: site.ret, isa, what };
            let outside = || wrong("an entry lies outside its frame");
            let cell = |offset: i32| frame.cfa.checked_offset(offset.into());
            if site.cells > 0 {
                let place = jumps::Place { from, to: frame, source, target: &self.target, thread_pointer };
                jumps::rewrite(&place, &saved, memory, &mut cells)?;
            }
            for entry in site.saved {
                if entry.reg == return_register(isa) {
                    continue;
                }
                let value =
                    saved.get(entry.reg).ok_or_else(|| wrong("a register that calls do not preserve is saved"))?;
                out.put(cell(entry.cfa_off), &value.to_le_bytes()).ok_or_else(outside)?;
            }
            let ret_cell = return_offset(site, isa).and_then(cell);
            out.put(ret_cell, &ret.to_le_bytes()).ok_or_else(outside)?;
            let live = "a register that calls do not preserve is live";
            saved.enter(site, frame.cfa, thread_pointer, isa).ok_or_else(|| wrong(live))?;
            for residue in site.residue {
                if let Place::Stack(offset) = residue.place {
                    let bytes = evaluate(residue, frame.cfa, thread_pointer).to_le_bytes();
                    let bytes = bytes.get(..residue.size.into()).ok_or_else(outside)?;
                    out.put(cell(offset), bytes).ok_or_else(outside)?;
                }
            }
            if let (Some(peer), true) = (source.sites.by_id(from.site), site.slots_len > 0) {
                let at = from.cfa.checked_offset(peer.slots_cfa_off.into()).ok_or_else(outside)?;
                let slots = out.slice(cell(site.slots_cfa_off), site.slots_len as usize).ok_or_else(outside)?;
                memory.read(at, slots)?;
            }
            ret = site.ret.0;
        }
        self.write_record(stack.record, &mut out, &mut saved, ret, memory)?;
        Ok(Rewritten { start: out.start, bytes: out.bytes, registers: saved.0, cells })
    }

    /// The stub's frame: the part that means the same everywhere, marked as entered before, its gate open.
    fn write_record(
        &self,
        from: RemoteAddr,
        out: &mut Bytes,
        saved: &mut CalleeSaved,
        ret: u64,
        memory: &mut impl Memory,
    ) -> Result<(), LayoutError> {
        let neutral = record::NEUTRAL_LEN as usize;
        memory.read(from, &mut out.bytes[..neutral])?;
        let flags = record::FLAGS as usize;
        let mut word = [0; 8];
        word.copy_from_slice(&out.bytes[flags..flags + 8]);
        let word = (u64::from_le_bytes(word) | record::FLAG_RESUMED) & !(record::FLAG_GATE | record::FLAG_MASK);
        out.bytes[flags..flags + 8].copy_from_slice(&word.to_le_bytes());
        let fp = frame_pointer(self.target.isa());
        let fp_cell = record::SAVED_FP as usize;
        out.bytes[fp_cell..fp_cell + 8].copy_from_slice(&saved.get(fp).unwrap_or(0).to_le_bytes());
        let ret_cell = record::RETURN as usize;
        out.bytes[ret_cell..ret_cell + 8].copy_from_slice(&ret.to_le_bytes());
        saved.set(fp, self.record.0 + record::SAVED_FP);
        Ok(())
    }
}

/// The value of a residue in a frame.
pub(super) fn evaluate(residue: &Residue, cfa: RemoteAddr, thread_pointer: RemoteAddr) -> u64 {
    match residue.value {
        Value::Constant(value) => value,
        Value::Cfa(offset) => cfa.0.wrapping_add_signed(offset),
        Value::ThreadPointer(offset) => thread_pointer.0.wrapping_add_signed(offset),
    }
}

fn frame_pointer(isa: Isa) -> DwarfReg {
    match isa {
        Isa::X86_64 => x86_64::dwarf::FP,
        Isa::Aarch64 => aarch64::dwarf::FP,
    }
}

fn return_register(isa: Isa) -> DwarfReg {
    match isa {
        Isa::X86_64 => x86_64::dwarf::RA,
        Isa::Aarch64 => aarch64::dwarf::RA,
    }
}

/// The callee-saved registers as they are while a frame runs; all zero in the start stub.
#[derive(Clone)]
pub(super) struct CalleeSaved(Vec<(DwarfReg, u64)>);

impl CalleeSaved {
    fn new(isa: Isa) -> Self {
        let registers = match isa {
            Isa::X86_64 => x86_64::dwarf::CALLEE_SAVED,
            Isa::Aarch64 => aarch64::dwarf::CALLEE_SAVED,
        };
        Self(registers.iter().map(|reg| (*reg, 0)).collect())
    }

    /// The registers and their values, in the order of `dwarf::CALLEE_SAVED`.
    pub(super) fn values(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(_, value)| *value)
    }

    /// From what the caller of a frame left to what is there at one of its sites; `None` if its table entry names a
    /// register that calls do not preserve.
    pub(super) fn enter(
        &mut self,
        site: &Site<'_>,
        cfa: RemoteAddr,
        thread_pointer: RemoteAddr,
        isa: Isa,
    ) -> Option<()> {
        let fp = frame_pointer(isa);
        // Both psABIs: the frame pointer is the address of the caller's saved frame pointer.
        if let Some(saved) = site.saved.iter().find(|saved| saved.reg == fp) {
            self.set(fp, cfa.0.wrapping_add_signed(saved.cfa_off.into()))?;
        }
        for residue in site.residue {
            if let Place::Register(reg) = residue.place {
                self.set(reg, evaluate(residue, cfa, thread_pointer))?;
            }
        }
        Some(())
    }

    fn get(&self, reg: DwarfReg) -> Option<u64> {
        self.0.iter().find(|(other, _)| *other == reg).map(|(_, value)| *value)
    }

    fn set(&mut self, reg: DwarfReg, value: u64) -> Option<()> {
        self.0.iter_mut().find(|(other, _)| *other == reg).map(|(_, place)| *place = value)
    }
}

/// The bytes of the new stack by their addresses.
struct Bytes {
    start: RemoteAddr,
    bytes: Vec<u8>,
}

impl Bytes {
    fn slice(&mut self, at: Option<RemoteAddr>, len: usize) -> Option<&mut [u8]> {
        let from = usize::try_from(at?.0.checked_sub(self.start.0)?).ok()?;
        self.bytes.get_mut(from..from.checked_add(len)?)
    }

    fn put(&mut self, at: Option<RemoteAddr>, bytes: &[u8]) -> Option<()> {
        self.slice(at, bytes.len())?.copy_from_slice(bytes);
        Some(())
    }
}
