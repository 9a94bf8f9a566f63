//! Where a location got its value and where it is used: for the words of a violation.
use super::function::{Function, Location, Log};
use super::insn::{Flow, Parts};
use super::values::defines;
use std::collections::HashSet;

impl Function<'_, '_> {
    /// The nearest instruction behind a call, along any path, that uses a register before it is overwritten.
    pub(super) fn used(&self, call: usize, location: Location) -> Option<usize> {
        let Location::Register(reg) = location else { return None };
        let block = self.code.blocks.iter().position(|block| block.insns.contains(&call))?;
        self.used_from(block, call + 1, Parts::all(reg), true)
    }

    pub(super) fn used_from(&self, block: usize, start: usize, parts: Parts, by_calls: bool) -> Option<usize> {
        let mut seen = HashSet::new();
        let mut work = std::collections::VecDeque::from([(block, start, parts)]);
        while let Some((block, start, mut left)) = work.pop_front() {
            for n in start..self.code.blocks[block].insns.end {
                let insn = &self.code.insns[n];
                if !(insn.reads & left).is_empty() {
                    return Some(n);
                }
                left = left & !insn.kills;
                if let Flow::Call(target) = insn.flow {
                    if by_calls && !(self.context.arguments(target) & left).is_empty() {
                        return Some(n);
                    }
                    left = left & !self.context.abi.clobbered_parts;
                }
            }
            if !left.is_empty() {
                let next = self.code.successors(block).filter(|next| seen.insert(*next));
                work.extend(next.map(|next| (next, self.code.blocks[next].insns.start, left)));
            }
        }
        None
    }

    /// The nearest instruction before a call, along any path, that may define a location.
    pub(super) fn definition(&self, call: usize, location: Location) -> Option<usize> {
        let block = self.code.blocks.iter().position(|block| block.insns.contains(&call))?;
        let interpreter = self.interpreter();
        let states = interpreter.solve();
        let matches = |block: usize, end: usize| -> Option<usize> {
            let mut state = states[block].clone()?;
            let mut found = None;
            for n in self.code.blocks[block].insns.start..end {
                let mut log = Log::default();
                interpreter.step(n, &mut state, &mut log);
                let insn = &self.code.insns[n];
                let hit = match location {
                    Location::Register(reg) => {
                        defines(insn, reg)
                            || matches!(insn.flow, Flow::Call(_)) && self.context.abi.clobbered.has(reg) && n != call
                    }
                    Location::Stack(offset, size) => log.accesses.iter().any(|(_, access)| {
                        access.write
                            && access.offset < offset + i64::from(size)
                            && offset < access.offset + i64::from(access.len)
                    }),
                };
                if hit {
                    found = Some(n);
                }
            }
            found
        };
        let mut seen = HashSet::new();
        let mut work = std::collections::VecDeque::from([(block, call)]);
        while let Some((block, end)) = work.pop_front() {
            if let Some(n) = matches(block, end) {
                return Some(n);
            }
            for before in self.code.predecessors(block) {
                if seen.insert(before) {
                    work.push_back((before, self.code.blocks[before].insns.end));
                }
            }
        }
        None
    }
}
