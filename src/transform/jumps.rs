//! Jump cells: the native frames that `setjmp` can still come back to.
//!
//! Each is found through the slots of the frame that owns it, so none is missed and none is of a frame that is gone. What
//! it says is held against that frame; what it is to say follows from the target's tables, as everything in a frame does.
use super::frames::{CalleeSaved, LayoutError};
use super::unwind::{Frame, Member, Memory};
use isamorph_arch::{RemoteAddr, ReturnAddr, jump_cell};

/// The bytes of a cell.
pub type Cell = [u8; jump_cell::LEN as usize];

/// A frame with jump cells, on both sides.
#[derive(Debug)]
pub(super) struct Place<'a, 'b> {
    /// The frame as it was.
    pub from: &'a Frame,
    /// The frame as it will be.
    pub to: &'a Frame,
    /// The source.
    pub source: &'a Member<'b>,
    /// The target.
    pub target: &'a Member<'b>,
    /// The target's thread pointer.
    pub thread_pointer: RemoteAddr,
}

/// Adds the target's version of every cell of a frame that is set; `callers` are the registers as the target's caller
/// of the frame leaves them.
///
/// # Errors
/// A cell that the frame's setjmp did not fill, or memory that is not stored.
pub(super) fn rewrite(
    place: &Place<'_, '_>,
    callers: &CalleeSaved,
    memory: &mut impl Memory,
    out: &mut Vec<(RemoteAddr, Cell)>,
) -> Result<(), LayoutError> {
    let Place { from, to, source, target, thread_pointer } = *place;
    let Some(site) = source.sites.by_id(from.site) else { return Ok(()) };
    let bad = |cell, what| LayoutError::Jump { cell, site: site.id, ret: site.ret, what };
    let slots = from.cfa.0.wrapping_add_signed(site.slots_cfa_off.into());
    let mut at = RemoteAddr(memory.word(RemoteAddr(slots))?);
    // A function can be at a site before it has its cells.
    if at.0 == 0 {
        return Ok(());
    }
    for _ in 0..site.cells {
        let mut cell: Cell = [0; jump_cell::LEN as usize];
        memory.read(at, &mut cell)?;
        if word(&cell, jump_cell::KEY_AT) == jump_cell::key(at.0) {
            let ret = ReturnAddr(word(&cell, jump_cell::RETURN));
            let here = source.sites.by_return(ret).ok_or_else(|| bad(at, "it returns to no call site"))?;
            let cfa = word(&cell, jump_cell::SP).checked_add(here.cfa_minus_sp.into());
            if cfa != Some(from.cfa.0) || here.slots_cfa_off != site.slots_cfa_off || here.cells != site.cells {
                return Err(bad(at, "it is none of its frame"));
            }
            let isa = target.isa();
            let missing = LayoutError::NoSite { site: here.id, ret, isa };
            let there = target.sites.by_id(here.id).ok_or(missing)?;
            let sp = to.cfa.0.checked_sub(there.cfa_minus_sp.into());
            let sp = sp.ok_or_else(|| bad(at, "its frame would begin below the address space"))?;
            let mut registers = callers.clone();
            let entered = registers.enter(&there, to.cfa, thread_pointer, isa);
            entered.ok_or_else(|| bad(at, "the target has a register live in it that calls do not preserve"))?;
            cell[jump_cell::RETURN as usize..].fill(0);
            let words = [there.ret.0, sp].into_iter().chain(registers.values());
            for (place, value) in cell[jump_cell::RETURN as usize..].chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&value.to_le_bytes());
            }
            out.push((at, cell));
        }
        at = at.checked_offset(jump_cell::LEN as i64).ok_or_else(|| bad(at, "the address space ends behind it"))?;
    }
    Ok(())
}

fn word(cell: &Cell, at: u64) -> u64 {
    let at = at as usize;
    cell[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
