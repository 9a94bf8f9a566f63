//! A function as decoded instructions in basic blocks; the block map's edges checked against its branches.
use super::insn::{Decoder, Flow, Insn};
use super::violation::Kind;
use crate::portable::{Executable, bbmap};
use isamorph_arch::RemoteAddr;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::DfsPostOrder;
use std::collections::HashMap;
use std::ops::Range;

/// A decoded function.
pub struct Code {
    /// Address of its first instruction.
    pub addr: u64,
    /// Address behind its last block.
    pub end: u64,
    /// All instructions, block by block.
    pub insns: Vec<Insn>,
    /// Its blocks in address order.
    pub blocks: Vec<Block>,
    /// Edges between the indices of `blocks`.
    pub graph: DiGraph<(), ()>,
    /// Indices of the reachable blocks in reverse postorder.
    pub order: Vec<usize>,
}

/// A basic block.
pub struct Block {
    /// Address of its first byte.
    pub start: u64,
    /// Address behind its last byte.
    pub end: u64,
    /// Its instructions.
    pub insns: Range<usize>,
    /// Index in the block map of the block that it is, or is a part of.
    pub described: usize,
}

impl Code {
    /// Decodes a function; `polls` maps the address of each poll to its cold block.
    pub fn decode(
        executable: &Executable,
        decoder: &dyn Decoder,
        function: &bbmap::Function,
        polls: &HashMap<u64, u64>,
    ) -> Result<Self, Kind> {
        let last = function.blocks.last().map_or(0, |block| block.end);
        let bytes = executable.read(RemoteAddr(function.addr), last.into());
        let bytes = bytes.ok_or(Kind::BlockMap { addr: function.addr, why: "it is not in the file" })?;
        let mut code = Self {
            addr: function.addr,
            end: function.addr + u64::from(last),
            insns: Vec::with_capacity(bytes.len() / 4),
            blocks: Vec::with_capacity(function.blocks.len()),
            graph: DiGraph::new(),
            order: Vec::new(),
        };
        if function.blocks.first().is_none_or(|block| block.start != 0) {
            return Err(Kind::BlockMap { addr: function.addr, why: "the first block is not the entry" });
        }
        let mut behind = 0;
        for (described, block) in function.blocks.iter().enumerate() {
            for insn in decode(decoder, bytes, function.addr, behind..block.start)? {
                if !is_nop(&insn) {
                    return Err(Kind::BlockMap { addr: insn.addr, why: "code between two blocks" });
                }
            }
            let mut insns = decode(decoder, bytes, function.addr, block.start..block.end)?;
            for insn in &mut insns {
                if let Some(target) = polls.get(&insn.addr) {
                    insn.flow = Flow::Branch(*target);
                }
            }
            let (mut start, end) = (function.addr + u64::from(block.start), function.addr + u64::from(block.end));
            // LLVM puts a phi's copies for the way past a poll behind it: a poll ends a block of ours.
            while let Some(poll) = insns.iter().position(|insn| polls.contains_key(&insn.addr)) {
                let rest = insns.split_off(poll + 1);
                let next = insns[poll].end();
                code.push(described, start..next, std::mem::replace(&mut insns, rest));
                start = next;
            }
            code.push(described, start..end, insns);
            behind = block.end;
        }
        code.connect(decoder, function, bytes)?;
        Ok(code)
    }

    fn push(&mut self, described: usize, addrs: Range<u64>, mut insns: Vec<Insn>) {
        let first = self.insns.len();
        self.insns.append(&mut insns);
        self.blocks.push(Block { start: addrs.start, end: addrs.end, insns: first..self.insns.len(), described });
    }

    /// The bytes from an instruction on, for its text.
    pub fn text(&self, executable: &Executable, decoder: &dyn Decoder, insn: &Insn) -> String {
        executable.read(RemoteAddr(insn.addr), insn.len.into()).map_or(String::new(), |b| decoder.text(b, insn.addr))
    }

    /// Index of the block that an address is in, or ends (`start < addr <= end`).
    pub fn block_ending_at_or_around(&self, addr: u64) -> Option<usize> {
        let index = self.blocks.partition_point(|block| block.start < addr).checked_sub(1)?;
        // Empty blocks share their start with the next one.
        (addr <= self.blocks[index].end).then_some(index)
    }

    /// Successors of a block.
    pub fn successors(&self, block: usize) -> impl Iterator<Item = usize> {
        self.graph.neighbors(NodeIndex::new(block)).map(|node| node.index())
    }

    /// Predecessors of a block.
    pub fn predecessors(&self, block: usize) -> impl Iterator<Item = usize> {
        self.graph.neighbors_directed(NodeIndex::new(block), petgraph::Incoming).map(|node| node.index())
    }

    fn connect(&mut self, decoder: &dyn Decoder, function: &bbmap::Function, bytes: &[u8]) -> Result<(), Kind> {
        // To the first part of a block.
        let first = |described| self.blocks.partition_point(|block| block.described < described);
        let by_id: HashMap<u32, usize> =
            function.blocks.iter().enumerate().map(|(n, block)| (block.id, first(n))).collect();
        if by_id.len() != function.blocks.len() {
            return Err(Kind::BlockMap { addr: function.addr, why: "two blocks have one ID" });
        }
        // A branch to an empty block is one to the block behind it: any of them will do.
        let mut by_start: HashMap<u64, Vec<usize>> = HashMap::new();
        for (n, block) in self.blocks.iter().enumerate() {
            self.graph.add_node(());
            by_start.entry(block.start).or_default().push(n);
        }
        for n in 0..self.blocks.len() {
            let block = &self.blocks[n];
            let described = &function.blocks[block.described];
            let mut declared = Vec::new();
            for id in &described.successors {
                let unknown = Kind::BlockMap { addr: block.start, why: "a successor that is no block" };
                declared.push(*by_id.get(id).ok_or(unknown)?);
            }
            let mut edges = Vec::new();
            let mut ended = false;
            for insn in &self.insns[block.insns.clone()] {
                let branches = matches!(insn.flow, Flow::Jump(_) | Flow::Branch(_) | Flow::IndirectJump);
                if ended && !branches && !is_nop(insn) {
                    return Err(Kind::BlockMap { addr: insn.addr, why: "code after a branch" });
                }
                match insn.flow {
                    Flow::Jump(target) | Flow::Branch(target) => {
                        let outside = !(self.addr..self.end).contains(&target);
                        if outside {
                            let at = (insn.addr - self.addr) as usize;
                            let text = decoder.text(&bytes[at..], insn.addr);
                            return Err(Kind::TailJump { addr: insn.addr, text, target });
                        }
                        let blocks = by_start.get(&target).map_or(&[][..], Vec::as_slice);
                        let to = blocks.iter().copied().find(|to| declared.contains(to));
                        edges.push(to.ok_or(Kind::BlockMap {
                            addr: insn.addr,
                            why: "a branch to something that is no successor",
                        })?);
                        ended = true;
                    }
                    Flow::IndirectJump => {
                        if declared.is_empty() || described.ends.tail_call {
                            let at = (insn.addr - self.addr) as usize;
                            let text = decoder.text(&bytes[at..], insn.addr);
                            return Err(Kind::TailJump { addr: insn.addr, text, target: 0 });
                        }
                        edges.extend(&declared);
                        ended = true;
                    }
                    _ => {}
                }
            }
            let goes_on = match self.insns[block.insns.clone()].last() {
                Some(insn) => !matches!(insn.flow, Flow::Jump(_) | Flow::IndirectJump | Flow::Return | Flow::Trap),
                None => true,
            };
            if goes_on {
                // Into the next block, which must be a successor, also an empty one, or the next part of this.
                let part = self.blocks.get(n + 1).is_some_and(|next| next.described == block.described);
                if !part && !declared.contains(&(n + 1)) {
                    return Err(Kind::BlockMap { addr: block.end, why: "control falls out of a block" });
                }
                edges.push(n + 1);
            }
            edges.sort_unstable();
            edges.dedup();
            for to in edges {
                self.graph.add_edge(NodeIndex::new(n), NodeIndex::new(to), ());
            }
        }
        let mut walk = DfsPostOrder::new(&self.graph, NodeIndex::new(0));
        while let Some(node) = walk.next(&self.graph) {
            self.order.push(node.index());
        }
        self.order.reverse();
        Ok(())
    }
}

fn is_nop(insn: &Insn) -> bool {
    insn.flow == Flow::Next && insn.pure && insn.effects().next().is_none()
}

fn decode(decoder: &dyn Decoder, bytes: &[u8], base: u64, range: Range<u32>) -> Result<Vec<Insn>, Kind> {
    let mut insns = Vec::new();
    let mut at = range.start as usize;
    let end = range.end as usize;
    while at < end {
        let insn = decoder.decode(&bytes[at..end], base + at as u64).map_err(Kind::NotModelled)?;
        at += usize::from(insn.len.max(1));
        insns.push(insn);
    }
    Ok(insns)
}
