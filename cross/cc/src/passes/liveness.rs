//! Which values live across which sites.
//!
//! A position is a block and an index into its instructions; a value lives across a site when it is defined before the
//! call and used after it on some path. An argument of the call alone does not count: the callee has it.
use super::is_site;
use crate::llvm::{Block, Value};
use llvm_sys::LLVMOpcode::LLVMPHI;
use std::collections::HashMap;

/// Position of something in a block: arguments are before 0, uses by phis of a successor at the end.
pub type Position = i64;
/// Before the first instruction.
pub const BEFORE: Position = -1;
/// Behind the last instruction.
pub const END: Position = i64::MAX;

/// The function's blocks, instructions and sites by number.
#[derive(Debug)]
pub struct Shape {
    /// Blocks in order.
    pub blocks: Vec<Block>,
    /// Number of each block.
    pub index: HashMap<Block, usize>,
    /// Predecessors of each block, each once.
    pub predecessors: Vec<Vec<usize>>,
    /// Successors of each block, each once.
    pub successors: Vec<Vec<usize>>,
    /// Instructions of each block.
    pub instructions: Vec<Vec<Value>>,
    /// Positions of the sites of each block, ascending.
    pub sites: Vec<Vec<Position>>,
    place: HashMap<Value, (usize, Position)>,
}

/// One use of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsePlace {
    /// Block in which the value is needed; for a phi, where it comes from.
    pub block: usize,
    /// Where in the block.
    pub position: Position,
    /// Who uses it.
    pub user: Value,
    /// As which operand.
    pub operand: u32,
}

impl Shape {
    /// Numbers a function.
    pub fn of(function: Value) -> Shape {
        let blocks = function.blocks();
        let index: HashMap<Block, usize> = blocks.iter().enumerate().map(|(i, b)| (*b, i)).collect();
        let mut predecessors = vec![Vec::new(); blocks.len()];
        let mut successors = vec![Vec::new(); blocks.len()];
        let (mut instructions, mut sites, mut place) = (Vec::new(), Vec::new(), HashMap::new());
        for (i, block) in blocks.iter().enumerate() {
            for successor in block.successors() {
                let to = index[&successor];
                if predecessors[to].last() != Some(&i) {
                    predecessors[to].push(i);
                    successors[i].push(to);
                }
            }
            let list = block.instructions();
            let mut here = Vec::new();
            for (position, instruction) in list.iter().enumerate() {
                place.insert(*instruction, (i, position as Position));
                if is_site(*instruction) {
                    here.push(position as Position);
                }
            }
            instructions.push(list);
            sites.push(here);
        }
        Shape { blocks, index, predecessors, successors, instructions, sites, place }
    }

    /// Where a value is defined.
    pub fn definition(&self, value: Value) -> (usize, Position) {
        self.place.get(&value).copied().unwrap_or((0, BEFORE))
    }

    /// Where a value is needed, in block order.
    pub fn uses(&self, value: Value) -> Vec<UsePlace> {
        let mut out: Vec<UsePlace> = value
            .uses()
            .into_iter()
            .filter_map(|u| {
                let (block, position) = if u.user.is(LLVMPHI) {
                    (*self.index.get(&u.user.incoming_block(u.operand))?, END)
                } else {
                    *self.place.get(&u.user)?
                };
                Some(UsePlace { block, position, user: u.user, operand: u.operand })
            })
            .collect();
        // By place only: handles are addresses, and would make the result differ from run to run.
        out.sort_by_key(|u| (u.block, u.position, self.definition(u.user), u.operand));
        out
    }

    /// Sites of `block` strictly between two positions.
    pub fn sites_between(&self, block: usize, after: Position, before: Position) -> &[Position] {
        let list = &self.sites[block];
        let from = list.partition_point(|&s| s <= after);
        let to = list.partition_point(|&s| s < before).max(from);
        &list[from..to]
    }

    /// Number of sites of `block` before `position`.
    pub fn segment(&self, block: usize, position: Position) -> usize {
        self.sites[block].partition_point(|&s| s < position)
    }

    /// Every site that `value` lives across.
    pub fn life(&self, value: Value, uses: &[UsePlace], scratch: &mut Scratch) -> Life {
        let (home, defined) = self.definition(value);
        // Per block: how far down the value is needed.
        let mut reach: Vec<(usize, Position)> = Vec::new();
        scratch.next_round(self.blocks.len());
        let mut work = Vec::new();
        let mut need =
            |scratch: &mut Scratch, work: &mut Vec<usize>, block: usize, until: Position| match scratch.get(block) {
                Some(slot) => reach[slot].1 = reach[slot].1.max(until),
                None => {
                    scratch.set(block, reach.len());
                    reach.push((block, until));
                    if block != home {
                        work.push(block);
                    }
                }
            };
        for u in uses {
            // A phi in the value's own block that takes it around a loop needs it at the end of the predecessor only.
            need(scratch, &mut work, u.block, u.position);
        }
        while let Some(block) = work.pop() {
            for &p in &self.predecessors[block] {
                need(scratch, &mut work, p, END);
            }
        }
        reach.sort_unstable();
        let mut crossed = Vec::new();
        for &(block, until) in &reach {
            let after = if block == home { defined } else { BEFORE };
            crossed.extend(self.sites_between(block, after, until).iter().map(|&s| (block, s)));
        }
        Life { reach, crossed }
    }

    /// The sites that `value` reaches from its definition without another site on the way.
    pub fn first_sites(&self, value: Value, life: &Life, scratch: &mut Scratch) -> Vec<Site> {
        let (home, defined) = self.definition(value);
        scratch.next_round(self.blocks.len());
        let (mut out, mut work) = (Vec::new(), vec![home]);
        while let Some(block) = work.pop() {
            let Ok(slot) = life.reach.binary_search_by_key(&block, |r| r.0) else { continue };
            let after = if block == home { defined } else { BEFORE };
            match self.sites_between(block, after, life.reach[slot].1).first() {
                Some(&site) => out.push((block, site)),
                None => {
                    for &next in &self.successors[block] {
                        if next != home && scratch.get(next).is_none() {
                            scratch.set(next, 0);
                            work.push(next);
                        }
                    }
                }
            }
        }
        out.sort_unstable();
        out
    }
}

/// A call site: block and position.
pub type Site = (usize, Position);

/// Where a value is needed.
#[derive(Debug, Default)]
pub struct Life {
    /// Per block, how far down.
    pub reach: Vec<(usize, Position)>,
    /// Sites that it lives across.
    pub crossed: Vec<Site>,
}

/// Reusable marks per block, valid for one round.
#[derive(Debug, Default)]
pub struct Scratch {
    round: u32,
    marks: Vec<(u32, usize)>,
}

impl Scratch {
    /// Forgets all marks.
    pub fn next_round(&mut self, blocks: usize) {
        self.marks.resize(blocks, (0, 0));
        self.round += 1;
    }

    /// The mark of a block.
    pub fn get(&self, block: usize) -> Option<usize> {
        let (round, mark) = self.marks[block];
        (round == self.round).then_some(mark)
    }

    /// Marks a block.
    pub fn set(&mut self, block: usize, mark: usize) {
        self.marks[block] = (self.round, mark);
    }
}
