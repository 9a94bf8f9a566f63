//! Calls that return twice: `setjmp`, by its stub.
//!
//! A second return finds the registers that the first one found: the stub has them from its cell. What the first return
//! need not prove is the native frame, where the function went on meanwhile. So behind such a call
//!
//! - only those frame bytes are known that all of the function writes one value to, if any: slots and whatever else
//!   was reused are forgotten; the caller's registers and the return address must stand where they stood;
//! - every site of the function saves the same registers at the same places;
//! - what is live in the frame outside the slots is residue at every site of the function, since control may come back
//!   from any of them, also after a move.
//!
//! What the slots hold rests on the semantics of the IR, here as elsewhere.
use super::abi::Abi;
use super::code::Code;
use super::function::Proved;
use super::insn::{Flow, Insn};
use super::values::{Cell, FrameAccess, State, Value};
use crate::portable::{Place, Residue};
use std::collections::BTreeSet;
use std::ops::Range;

/// The calls of a function that return twice.
#[derive(Debug, Default)]
pub struct Jumps {
    calls: BTreeSet<usize>,
    /// Frame bytes that are written with more than one value, in ascending order.
    changing: Vec<Range<i64>>,
}

impl Jumps {
    /// The calls of the stub in a function; `entry` is 0 in an executable without it.
    pub fn find(code: &Code, entry: u64) -> Self {
        let calls = |insn: &Insn| entry != 0 && insn.flow == Flow::Call(Some(entry));
        let calls = (0..code.insns.len()).filter(|n| calls(&code.insns[*n])).collect();
        Self { calls, changing: Vec::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether an instruction is such a call.
    pub fn is(&self, insn: usize) -> bool {
        self.calls.contains(&insn)
    }

    /// Forgets behind a call what may not be so at its second return.
    pub fn forget(&self, state: &mut State) {
        let keeps = |cell: &Cell| {
            let after = self.changing.partition_point(|range| range.end <= cell.offset);
            self.changing.get(after).is_none_or(|range| cell.offset + i64::from(cell.size) <= range.start)
        };
        state.retain(keeps);
    }

    /// Learns from all accesses of the function, as they are if nothing else changes, what changes; whether that is
    /// something new.
    pub fn learn(&mut self, abi: &Abi, accesses: &[(usize, FrameAccess)]) -> bool {
        if self.is_empty() {
            return false;
        }
        let written = accesses.iter().map(|(_, access)| access).filter(|access| access.write);
        let mut writes: Vec<(Range<i64>, Value)> =
            written.map(|access| (access.offset..access.offset + i64::from(access.len), access.value)).collect();
        if abi.entry_sp != 0 {
            writes.push((abi.entry_sp..0, Value::Caller(abi.return_address)));
        }
        // What changed before still does: it only grows, so that this ends.
        let mut all = changing(writes);
        all.extend(self.changing.iter().cloned());
        unite(&mut all);
        let new = all != self.changing;
        self.changing = all;
        new
    }

    /// Makes the stack residue of the sites that return twice residue of all. An error is a site (ID and return address)
    /// where other registers are saved than where control may come back.
    pub fn spread(&self, sites: &mut [Proved]) -> Result<(), (u64, u64)> {
        if let Some(twice) = sites.iter().find(|site| site.twice)
            && let Some(other) = sites.iter().find(|site| site.entry.saved != twice.entry.saved)
        {
            return Err((other.entry.id, other.entry.ret.0));
        }
        let mut residue: Vec<Residue> = Vec::new();
        for site in sites.iter().filter(|site| site.twice) {
            let on_stack = site.entry.residue.iter().filter(|residue| matches!(residue.place, Place::Stack(_)));
            residue.extend(on_stack);
        }
        residue.sort_by_key(|residue| residue.place);
        residue.dedup();
        for site in sites {
            let own: BTreeSet<Place> = site.entry.residue.iter().map(|residue| residue.place).collect();
            site.entry.residue.extend(residue.iter().filter(|residue| !own.contains(&residue.place)));
        }
        Ok(())
    }
}

/// The bytes of those groups of overlapping writes that are not all the same write.
fn changing(mut writes: Vec<(Range<i64>, Value)>) -> Vec<Range<i64>> {
    writes.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = Vec::new();
    let mut rest = writes.into_iter().peekable();
    while let Some(first) = rest.next() {
        let (mut all, mut same) = (first.0.clone(), true);
        while let Some(next) = rest.next_if(|next| next.0.start < all.end) {
            same &= next == first;
            all.end = all.end.max(next.0.end);
        }
        if !same {
            out.push(all);
        }
    }
    out
}

fn unite(ranges: &mut Vec<Range<i64>>) {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portable::{Saved, SiteEntry, sites};
    use isamorph_arch::{DwarfReg, ReturnAddr};

    #[test]
    fn what_is_written_twice_alike_does_not_change() {
        let (a, b) = (Value::exact(1), Value::exact(2));
        let mut writes = vec![(-16..-8, a), (-24..-16, a), (-16..-8, a), (-32..-24, a), (-32..-24, b), (-28..-20, a)];
        writes.extend([(-8..0, b), (-8..-4, b)]);
        assert_eq!(changing(writes), [-32..-16, -8..0]);
        assert_eq!(changing(Vec::new()), []);
        let mut ranges = vec![4..8, 0..2, 7..9, 2..3];
        unite(&mut ranges);
        assert_eq!(ranges, [0..3, 4..9]);
    }

    fn site(id: u64, twice: bool, saved: i32, residue: Vec<Residue>) -> Proved {
        let saved = vec![Saved { reg: DwarfReg(6), cfa_off: saved }];
        let ret = ReturnAddr(0x1000 + id);
        let entry =
            SiteEntry { id, ret, cfa_minus_sp: 64, slots_cfa_off: -48, slots_len: 16, saved, residue, cells: 1 };
        Proved { entry, function: 0x1000, reads: Vec::new(), written: None, twice }
    }

    #[test]
    fn what_a_second_return_finds_in_the_frame_is_there_at_every_site() {
        let on_stack = Residue { place: Place::Stack(-56), size: 8, value: sites::Value::Constant(7) };
        let in_register = Residue { place: Place::Register(DwarfReg(3)), size: 8, value: sites::Value::Constant(8) };
        let mut sites = vec![
            site(1, false, -16, vec![in_register]),
            site(2, true, -16, vec![on_stack, in_register]),
            site(3, false, -16, vec![on_stack]),
        ];
        Jumps::default().spread(&mut sites).unwrap();
        assert_eq!(sites[0].entry.residue, [in_register, on_stack]);
        assert_eq!(sites[1].entry.residue, [on_stack, in_register]);
        assert_eq!(sites[2].entry.residue, [on_stack]);
    }

    #[test]
    fn every_site_saves_what_the_call_saves() {
        let mut sites = vec![site(1, false, -24, Vec::new()), site(2, true, -16, Vec::new())];
        assert_eq!(Jumps::default().spread(&mut sites), Err((1, 0x1001)));
        let mut sites = vec![site(1, false, -24, Vec::new()), site(2, false, -16, Vec::new())];
        assert_eq!(Jumps::default().spread(&mut sites), Ok(()));
    }
}
