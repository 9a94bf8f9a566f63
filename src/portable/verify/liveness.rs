//! Backward liveness of register parts and of the bytes of the native frame; definitely written slot bytes.
use super::abi::Abi;
use super::code::Code;
use super::insn::{Address, Effect, Expr, Flow, Insn, MAX_EFFECTS, Op, Operand, Parts, Reg};
use super::values::FrameAccess;
use std::collections::{BTreeSet, HashMap};

/// All accesses of a function to its native frame, by instruction.
pub struct Accesses {
    list: Vec<FrameAccess>,
    first: Vec<u32>,
}

impl Accesses {
    /// From accesses in any order, with the index of their instruction.
    pub fn new(insns: usize, mut found: Vec<(usize, FrameAccess)>) -> Self {
        found.sort_by_key(|(insn, _)| *insn);
        let mut first = vec![0u32; insns + 1];
        for (insn, _) in &found {
            first[insn + 1] += 1;
        }
        for n in 0..insns {
            first[n + 1] += first[n];
        }
        Self { list: found.into_iter().map(|(_, access)| access).collect(), first }
    }

    /// Those of one instruction.
    pub fn of(&self, insn: usize) -> &[FrameAccess] {
        &self.list[self.first[insn] as usize..self.first[insn + 1] as usize]
    }

    /// All of them.
    pub fn all(&self) -> &[FrameAccess] {
        &self.list
    }
}

/// A set of bytes of a range of offsets from the CFA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    start: i64,
    words: Vec<u64>,
}

impl Bytes {
    /// No byte of `start..end`.
    pub fn none(start: i64, end: i64) -> Self {
        let len = usize::try_from(end - start).unwrap_or(0);
        Self { start, words: vec![0; len.div_ceil(64)] }
    }

    /// Adds or removes those bytes of a range that the set can have.
    pub fn put(&mut self, offset: i64, len: u8, present: bool) {
        for at in offset..offset + i64::from(len) {
            let Ok(index) = usize::try_from(at - self.start) else { continue };
            let Some(word) = self.words.get_mut(index / 64) else { continue };
            let bit = 1 << (index % 64);
            if present { *word |= bit } else { *word &= !bit }
        }
    }

    /// Whether it has a byte.
    pub fn has(&self, offset: i64) -> bool {
        let Ok(index) = usize::try_from(offset - self.start) else { return false };
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Its bytes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        let start = self.start;
        self.words.iter().enumerate().flat_map(move |(n, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(start + 64 * n as i64 + i64::from(bit))
            })
        })
    }

    fn unite(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            changed |= *theirs & !*mine != 0;
            *mine |= theirs;
        }
        changed
    }

    fn intersect(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            changed |= *mine & !*theirs != 0;
            *mine &= theirs;
        }
        changed
    }
}

/// What is live at one point.
#[derive(Clone, Debug)]
pub struct Live {
    /// Register parts.
    pub parts: Parts,
    /// Bytes of the frame.
    pub frame: Bytes,
}

/// What others use of a function's registers and frame.
#[derive(Clone, Copy)]
pub struct Others<'a> {
    /// What a return uses.
    pub returned: Parts,
    /// Which registers a call uses, given its target if it is known.
    pub arguments: &'a dyn Fn(Option<u64>) -> Parts,
    /// What is stored in the frame and not read by the function may be an argument: then a callee uses all of it.
    pub stored: bool,
}

/// What is live after each instruction of `wanted`, and at the function's entry.
pub fn live(
    abi: &Abi,
    others: Others<'_>,
    code: &Code,
    accesses: &Accesses,
    wanted: &BTreeSet<usize>,
) -> (HashMap<usize, Live>, Live) {
    let start = accesses.all().iter().map(|a| a.offset).min().unwrap_or(0);
    let end = accesses.all().iter().map(|a| a.offset + i64::from(a.len)).max().unwrap_or(0);
    let nothing = Live { parts: Parts::NONE, frame: Bytes::none(start, end) };
    let mut at_entry: Vec<Live> = vec![nothing.clone(); code.blocks.len()];
    let mut rank = vec![usize::MAX; code.blocks.len()];
    for (n, block) in code.order.iter().rev().enumerate() {
        rank[*block] = n;
    }
    let mut work: BTreeSet<usize> = (0..code.order.len()).collect();
    let flow_out = |block: usize, at_entry: &[Live]| {
        let mut live = nothing.clone();
        for successor in code.successors(block) {
            live.parts |= at_entry[successor].parts;
            live.frame.unite(&at_entry[successor].frame);
        }
        live
    };
    while let Some(next) = work.pop_first() {
        let block = code.order[code.order.len() - 1 - next];
        let mut live = flow_out(block, &at_entry);
        for index in code.blocks[block].insns.clone().rev() {
            before(abi, others, &code.insns[index], accesses.of(index), &mut live);
        }
        let known = &mut at_entry[block];
        let grown = !(live.parts & !known.parts).is_empty();
        known.parts |= live.parts;
        if known.frame.unite(&live.frame) || grown {
            work.extend(code.predecessors(block).map(|p| rank[p]).filter(|rank| *rank != usize::MAX));
        }
    }
    let mut found = HashMap::new();
    for block in &code.order {
        let range = code.blocks[*block].insns.clone();
        if wanted.range(range.clone()).next().is_none() {
            continue;
        }
        let mut live = flow_out(*block, &at_entry);
        for index in range.rev() {
            if wanted.contains(&index) {
                found.insert(index, live.clone());
            }
            before(abi, others, &code.insns[index], accesses.of(index), &mut live);
        }
    }
    let entry = code.order.first().map_or(nothing, |block| at_entry[*block].clone());
    (found, entry)
}

/// The registers that are live before an instruction of a leaf, given those behind it. The frame is not followed: all that
/// is stored counts as used.
pub fn registers_before(abi: &Abi, insn: &Insn, after: Parts) -> Parts {
    let others = Others { returned: abi.live_at_return, arguments: &|_| abi.arguments, stored: true };
    let mut live = Live { parts: after, frame: Bytes::none(0, 0) };
    before(abi, others, insn, &[], &mut live);
    live.parts
}

/// Turns what is live after an instruction into what is live before it.
fn before(abi: &Abi, others: Others<'_>, insn: &Insn, accesses: &[FrameAccess], live: &mut Live) {
    match insn.flow {
        Flow::Return => live.parts = others.returned,
        Flow::Call(target) => live.parts = live.parts & !abi.clobbered_parts | (others.arguments)(target),
        _ => {}
    }
    if insn.pure {
        return before_copy(others, insn, accesses, live);
    }
    live.parts = live.parts & !insn.kills | insn.reads;
    for access in accesses.iter().filter(|access| access.write) {
        live.frame.put(access.offset, access.len, false);
    }
    for access in accesses.iter().filter(|access| !access.write) {
        live.frame.put(access.offset, access.len, true);
    }
}

/// As [`before`], for an instruction that only copies: of what it copies, so much is used as is used of
/// the copy. Compilers move 32 bits of which they mean 8, and `pop` into registers that nobody reads.
fn before_copy(others: Others<'_>, insn: &Insn, accesses: &[FrameAccess], live: &mut Live) {
    let mut parts = live.parts & !insn.kills | insn.other_reads;
    let mut reads: [u8; MAX_EFFECTS] = [0; MAX_EFFECTS];
    let used = |live: &Live, dst: Reg| (live.parts & insn.kills).extent(dst);
    for (n, effect) in insn.effects().enumerate() {
        match effect {
            Effect::Set { dst, expr, bytes } => parts |= demand(&expr, used(live, dst), bytes),
            Effect::Load { dst, addr, size, signed, .. } => {
                let used = dst.map_or(8, |dst| used(live, dst));
                if used > 0 {
                    parts |= registers(&addr, 8);
                    reads[n] = if signed || dst.is_none() { size } else { size.min(used) };
                }
            }
            Effect::Store { addr, size, src } => {
                parts |= registers(&addr, 8);
                let access = accesses.iter().find(|a| usize::from(a.effect) == n);
                let spilled = access
                    .and_then(|a| (1..=size).rev().find(|bytes| live.frame.has(a.offset + i64::from(*bytes) - 1)));
                let unread = if access.is_none() || others.stored { size } else { 0 };
                if let Some(Operand::Reg(src)) = src {
                    parts |= Parts::low(src, spilled.unwrap_or(unread));
                }
            }
        }
    }
    live.parts = parts;
    for access in accesses.iter().filter(|access| access.write) {
        live.frame.put(access.offset, access.len, false);
    }
    for access in accesses.iter().filter(|access| !access.write) {
        live.frame.put(access.offset, reads[usize::from(access.effect)].min(access.len), true);
    }
}

/// What is used of the sources of a value of which the low `used` bytes are used, and `written` are written.
fn demand(expr: &Expr, used: u8, written: u8) -> Parts {
    if used == 0 {
        return Parts::NONE;
    }
    let used = used.min(written);
    let operand = |operand: Operand, bytes: u8| match operand {
        Operand::Reg(reg) => Parts::low(reg, bytes),
        Operand::Imm(_) => Parts::NONE,
    };
    match *expr {
        Expr::Extend { src, from, .. } => operand(src, from.min(used)),
        // The low bytes of a sum depend on the low bytes of what is added.
        Expr::Address(addr) => registers(&addr, used),
        Expr::Binary(Op::Shr, a, b) => operand(a, written) | operand(b, written),
        Expr::Binary(_, a, b) => operand(a, used) | operand(b, used),
        Expr::Either(a, b) => operand(a, used) | operand(b, used),
        Expr::Insert { src, .. } => Parts::low(src, used),
        Expr::ThreadPointer => Parts::NONE,
    }
}

fn registers(addr: &Address, bytes: u8) -> Parts {
    [addr.base, addr.index].into_iter().flatten().fold(Parts::NONE, |parts, reg| parts | Parts::low(reg, bytes))
}

/// The slot bytes that are written on every path to each instruction of `wanted`.
pub fn written(
    code: &Code,
    accesses: &Accesses,
    slots: std::ops::Range<i64>,
    wanted: &BTreeSet<usize>,
) -> HashMap<usize, Bytes> {
    let mut at_entry: Vec<Option<Bytes>> = vec![None; code.blocks.len()];
    let mut rank = vec![usize::MAX; code.blocks.len()];
    for (n, block) in code.order.iter().enumerate() {
        rank[*block] = n;
    }
    let mut work = BTreeSet::new();
    if let Some(first) = code.order.first() {
        at_entry[*first] = Some(Bytes::none(slots.start, slots.end));
        work.insert(0);
    }
    let run = |block: usize, bytes: &mut Bytes, found: &mut Option<&mut HashMap<usize, Bytes>>| {
        for index in code.blocks[block].insns.clone() {
            for access in accesses.of(index).iter().filter(|access| access.write) {
                bytes.put(access.offset, access.len, true);
            }
            if let Some(found) = found
                && wanted.contains(&index)
            {
                found.insert(index, bytes.clone());
            }
        }
    };
    while let Some(next) = work.pop_first() {
        let block = code.order[next];
        let Some(mut bytes) = at_entry[block].clone() else { continue };
        run(block, &mut bytes, &mut None);
        for successor in code.successors(block) {
            let changed = match &mut at_entry[successor] {
                Some(known) => known.intersect(&bytes),
                unknown => {
                    *unknown = Some(bytes.clone());
                    true
                }
            };
            if changed {
                work.insert(rank[successor]);
            }
        }
    }
    let mut found = HashMap::new();
    for block in &code.order {
        if let Some(mut bytes) = at_entry[*block].clone() {
            run(*block, &mut bytes, &mut Some(&mut found));
        }
    }
    found
}
