//! Forward abstract interpretation: what registers and cells of the native frame hold.
use super::abi::Abi;
use super::code::Code;
use super::insn::{Address, Effect, Expr, Flow, Insn, Op, Operand, Reg, UNBOUNDED};
use super::jumps::Jumps;
use std::fmt;

/// What a register or a cell of the frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Anything but a frame address.
    Unknown,
    /// A constant of the link, of which the low `known` bytes (1, 2, 4, 8) are known.
    Const {
        /// Its value; bytes above `known` are 0.
        value: u64,
        /// Known bytes.
        known: u8,
    },
    /// One of two constants of 8 bytes, in ascending order; no residue, but it may be added to a frame address.
    ConstOneOf(u64, u64),
    /// The CFA plus this.
    Cfa(i64),
    /// The CFA plus one of these, in ascending order: LLVM makes one load through a chosen address of a
    /// choice between two loads.
    CfaOneOf(i64, i64),
    /// The thread pointer plus this.
    Tp(i64),
    /// What this register held when the function was entered.
    Caller(Reg),
    /// Something computed from a frame address in a way that is not followed.
    Tainted,
}

impl Value {
    /// A constant of 8 bytes.
    pub const fn exact(value: u64) -> Self {
        Self::Const { value, known: 8 }
    }

    fn one_of(a: u64, b: u64) -> Self {
        if a == b { Self::exact(a) } else { Self::ConstOneOf(a.min(b), a.max(b)) }
    }

    /// What the low bytes are, if they are the same constant in any case.
    pub fn low(self, bytes: u8) -> Option<u64> {
        match self {
            Self::Const { value, known } if known >= bytes => Some(value),
            Self::ConstOneOf(a, b) if truncate(a ^ b, bytes) == 0 => Some(truncate(a, bytes)),
            _ => None,
        }
    }

    fn partial(value: u64, known: u8) -> Self {
        Self::Const { value: truncate(value, known), known }
    }

    /// Whether it is, or comes from, an address in the frame.
    pub fn is_frame(self) -> bool {
        matches!(self, Self::Cfa(_) | Self::CfaOneOf(..) | Self::Tainted)
    }

    /// The least that covers both.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Const { value: a, known: 8 }, Self::Const { value: b, known: 8 }) => Self::one_of(a, b),
            (Self::ConstOneOf(a, b), Self::Const { value: c, known: 8 })
            | (Self::Const { value: c, known: 8 }, Self::ConstOneOf(a, b))
                if c == a || c == b =>
            {
                Self::ConstOneOf(a, b)
            }
            (Self::ConstOneOf(a, b), Self::Const { value: c, known })
            | (Self::Const { value: c, known }, Self::ConstOneOf(a, b)) => {
                let same = |k: u8| k <= known && truncate(a ^ b, k) == 0 && truncate(a ^ c, k) == 0;
                [4, 2, 1].into_iter().find(|k| same(*k)).map_or(Self::Unknown, |known| Self::partial(a, known))
            }
            (Self::ConstOneOf(a, b), Self::ConstOneOf(c, d)) => {
                let same = |k: u8| [b, c, d].into_iter().all(|other| truncate(a ^ other, k) == 0);
                [4, 2, 1].into_iter().find(|k| same(*k)).map_or(Self::Unknown, |known| Self::partial(a, known))
            }
            (Self::Const { value: a, known: m }, Self::Const { value: b, known: n }) => {
                let agreed = [8, 4, 2, 1].into_iter().find(|k| *k <= m.min(n) && truncate(a ^ b, *k) == 0);
                agreed.map_or(Self::Unknown, |known| Self::partial(a, known))
            }
            (Self::Cfa(a), Self::Cfa(b)) => Self::CfaOneOf(a.min(b), a.max(b)),
            (Self::CfaOneOf(a, b), Self::Cfa(c)) | (Self::Cfa(c), Self::CfaOneOf(a, b)) if c == a || c == b => {
                Self::CfaOneOf(a, b)
            }
            (a, b) if a.is_frame() || b.is_frame() => Self::Tainted,
            _ => Self::Unknown,
        }
    }

    /// The low `from` bytes, extended to 8.
    fn extend(self, from: u8, signed: bool) -> Self {
        match self {
            _ if from == 8 => self,
            Self::Const { value, known } if known >= from => {
                let shift = 64 - 8 * u32::from(from);
                let value = truncate(value, from);
                Self::exact(if signed { (value << shift).cast_signed() >> shift } else { value as i64 }.cast_unsigned())
            }
            Self::Const { value, known } => Self::Const { value, known },
            Self::ConstOneOf(a, b) => {
                let both = [a, b].map(|value| Self::exact(value).extend(from, signed));
                match both {
                    [Self::Const { value: a, .. }, Self::Const { value: b, .. }] => Self::one_of(a, b),
                    _ => Self::Unknown,
                }
            }
            value if value.is_frame() => Self::Tainted,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("a value that is no residue"),
            Self::Const { value, known: 8 } => write!(f, "the constant {value:#x}"),
            Self::Const { value, known } => write!(f, "the constant {value:#x}, of which {known} bytes are known"),
            Self::ConstOneOf(a, b) => write!(f, "one of the constants {a:#x} and {b:#x}"),
            Self::Cfa(offset) => write!(f, "the frame address CFA{offset:+}"),
            Self::CfaOneOf(a, b) => write!(f, "one of the frame addresses CFA{a:+} and CFA{b:+}"),
            Self::Tp(offset) => write!(f, "the thread pointer{offset:+}"),
            Self::Caller(reg) => write!(f, "the caller's value of register unit {}", reg.0),
            Self::Tainted => f.write_str("something computed from a frame address"),
        }
    }
}

fn truncate(value: u64, bytes: u8) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * u32::from(bytes))) - 1) }
}

/// Bytes of the frame that hold something known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// At the CFA plus this.
    pub offset: i64,
    /// Bytes.
    pub size: u8,
    /// What they hold; never [`Value::Unknown`].
    pub value: Value,
}

/// Everything that is known at one point of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    regs: [Value; Reg::COUNT],
    cells: Vec<Cell>,
}

impl State {
    /// The state at a function's entry.
    pub fn entry(abi: &Abi) -> Self {
        let mut state = Self { regs: [Value::Unknown; Reg::COUNT], cells: Vec::new() };
        for reg in &abi.callee_saved {
            state.regs[reg.index()] = Value::Caller(*reg);
        }
        state.regs[abi.sp.index()] = Value::Cfa(abi.entry_sp);
        if abi.entry_sp != 0 {
            state.store(abi.entry_sp, 8, Value::Caller(abi.return_address));
        } else {
            state.regs[abi.return_address.index()] = Value::Caller(abi.return_address);
        }
        state
    }

    /// What a register holds.
    pub fn reg(&self, reg: Reg) -> Value {
        self.regs[reg.index()]
    }

    /// The stack pointer's distance from the CFA, if it is fixed.
    pub fn sp(&self, abi: &Abi) -> Option<i64> {
        match self.reg(abi.sp) {
            Value::Cfa(offset) => Some(offset),
            _ => None,
        }
    }

    /// Forgets the cells that `keeps` does not want.
    pub fn retain(&mut self, keeps: impl Fn(&Cell) -> bool) {
        self.cells.retain(keeps);
    }

    /// The known cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// What `size` bytes at an offset from the CFA hold.
    pub fn cell(&self, offset: i64, size: u8) -> Value {
        let end = offset + i64::from(size);
        for cell in &self.cells {
            let cell_end = cell.offset + i64::from(cell.size);
            if end <= cell.offset || cell_end <= offset {
                continue;
            }
            if (cell.offset, cell.size) == (offset, size) {
                return cell.value;
            }
            return match cell.value {
                Value::Const { value, .. } if cell.offset <= offset && end <= cell_end => {
                    Value::partial(value >> (8 * (offset - cell.offset)), size.min(8))
                }
                value if value.is_frame() => Value::Tainted,
                _ => Value::Unknown,
            };
        }
        Value::Unknown
    }

    fn store(&mut self, offset: i64, size: u8, value: Value) {
        let end = offset + i64::from(size);
        self.cells.retain(|cell| cell.offset + i64::from(cell.size) <= offset || end <= cell.offset);
        // Only the stored bytes of a constant are known; a narrower part of an address is nobody's.
        let value =
            match value {
                Value::Const { value, known } if known >= size => Value::partial(value, size),
                Value::Const { .. } => Value::Unknown,
                Value::Cfa(_) | Value::CfaOneOf(..) | Value::Tp(_) | Value::Caller(_) if size < 8 => {
                    if value.is_frame() { Value::Tainted } else { Value::Unknown }
                }
                value => value,
            };
        if value != Value::Unknown {
            let at = self.cells.partition_point(|cell| cell.offset < offset);
            self.cells.insert(at, Cell { offset, size, value });
        }
    }

    fn join(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.regs.iter_mut().zip(&other.regs) {
            let joined = mine.join(*theirs);
            changed |= joined != *mine;
            *mine = joined;
        }
        let before = self.cells.len();
        let mut cells = Vec::with_capacity(before);
        for cell in &self.cells {
            let value = cell.value.join(other.cell(cell.offset, cell.size));
            changed |= value != cell.value;
            if value != Value::Unknown {
                cells.push(Cell { value, ..*cell });
            }
        }
        // A frame address that only the other has must not be forgotten: it still is one.
        for cell in other.cells.iter().filter(|cell| cell.value.is_frame()) {
            let overlaps = |mine: &&Cell| {
                mine.offset < cell.offset + i64::from(cell.size) && cell.offset < mine.offset + i64::from(mine.size)
            };
            if cells.iter().find(overlaps).is_none() {
                let at = cells.partition_point(|mine| mine.offset < cell.offset);
                cells.insert(at, Cell { value: Value::Tainted, ..*cell });
                changed = true;
            }
        }
        self.cells = cells;
        changed
    }
}

/// An access to the native frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAccess {
    /// At the CFA plus this.
    pub offset: i64,
    /// Bytes.
    pub len: u8,
    /// Written, else read.
    pub write: bool,
    /// What is written.
    pub value: Value,
    /// Which of the instruction's effects it is.
    pub effect: u8,
}

/// What the last pass over a function wants to hear about.
pub trait Listener {
    /// The frame is accessed.
    fn access(&mut self, insn: usize, access: FrameAccess);
    /// A frame address gets where it cannot be followed.
    fn escape(&mut self, insn: usize, why: &'static str);
}

/// A listener that does not listen.
pub struct Deaf;

impl Listener for Deaf {
    fn access(&mut self, _: usize, _: FrameAccess) {}
    fn escape(&mut self, _: usize, _: &'static str) {}
}

/// Reads memory that never changes: `None` if the bytes are not in a read-only segment.
pub type ReadOnly<'a> = dyn Fn(u64, u8) -> Option<u64> + 'a;

/// The interpreter of one function.
pub struct Interpreter<'a> {
    /// Calling conventions.
    pub abi: &'a Abi,
    /// The function.
    pub code: &'a Code,
    /// Its calls that return twice.
    pub jumps: &'a Jumps,
    /// Read-only memory.
    pub read_only: &'a ReadOnly<'a>,
}

impl Interpreter<'_> {
    /// States at the entries of all blocks; `None` for blocks that are not reachable.
    pub fn solve(&self) -> Vec<Option<State>> {
        let mut states: Vec<Option<State>> = vec![None; self.code.blocks.len()];
        let mut rank = vec![usize::MAX; self.code.blocks.len()];
        for (n, block) in self.code.order.iter().enumerate() {
            rank[*block] = n;
        }
        let mut work = std::collections::BTreeSet::new();
        if let Some(first) = self.code.order.first() {
            states[*first] = Some(State::entry(self.abi));
            work.insert(rank[*first]);
        }
        while let Some(next) = work.pop_first() {
            let block = self.code.order[next];
            let Some(mut state) = states[block].clone() else { continue };
            for index in self.code.blocks[block].insns.clone() {
                self.step(index, &mut state, &mut Deaf);
            }
            for successor in self.code.successors(block) {
                let changed = match &mut states[successor] {
                    Some(known) => known.join(&state),
                    unknown => {
                        *unknown = Some(state.clone());
                        true
                    }
                };
                if changed {
                    work.insert(rank[successor]);
                }
            }
        }
        states
    }

    /// Executes one instruction.
    pub fn step(&self, index: usize, state: &mut State, listener: &mut dyn Listener) {
        let insn = &self.code.insns[index];
        let mut sets: [Option<(Reg, Value)>; super::insn::MAX_EFFECTS] = [None; super::insn::MAX_EFFECTS];
        let mut stores: [Option<(i64, u8, Value)>; super::insn::MAX_EFFECTS] = [None; super::insn::MAX_EFFECTS];
        let mut tainted = insn.data.iter().any(|reg| state.reg(reg).is_frame());
        let mut taint_of_memory = false;
        for (n, effect) in insn.effects().enumerate() {
            match effect {
                Effect::Set { dst, expr, bytes } => {
                    sets[n] = Some((dst, merge(state.reg(dst), evaluate(state, &expr, bytes), bytes)));
                }
                Effect::Load { dst, addr, size, signed, bytes } => {
                    let value = self.load((index, n as u8), state, addr, size, listener);
                    match dst {
                        Some(dst) => {
                            let value = if size == 8 { value } else { value.extend(size, signed) };
                            let value = if bytes < 8 && bytes == size { value } else { narrow(value, bytes) };
                            sets[n] = Some((dst, merge(state.reg(dst), value, bytes)));
                        }
                        None => taint_of_memory |= value.is_frame(),
                    }
                }
                Effect::Store { addr, size, src } => {
                    let value = match src {
                        Some(src) => self::operand(state, src),
                        None => Value::Unknown,
                    };
                    match address(state, &addr) {
                        Value::Cfa(_) if size == UNBOUNDED => {
                            listener.escape(index, "a write of unknown extent to the native frame");
                        }
                        Value::Cfa(offset) => {
                            listener
                                .access(index, FrameAccess { offset, len: size, write: true, value, effect: n as u8 });
                            stores[n] = Some((offset, size, value));
                        }
                        Value::Tainted | Value::CfaOneOf(..) => {
                            listener.escape(index, "a write through a computed frame address");
                        }
                        _ if value.is_frame() => listener.escape(index, "stores a frame address outside the frame"),
                        _ if src.is_none() && tainted => {
                            listener.escape(index, "stores something computed from a frame address");
                        }
                        _ => {}
                    }
                }
            }
        }
        tainted |= taint_of_memory;
        for reg in insn.clobbers.iter() {
            state.regs[reg.index()] = if tainted { Value::Tainted } else { Value::Unknown };
        }
        for (reg, value) in sets.into_iter().flatten() {
            state.regs[reg.index()] = value;
        }
        for (offset, size, value) in stores.into_iter().flatten() {
            state.store(offset, size, value);
        }
        if matches!(insn.flow, Flow::Call(_)) {
            self.call(state);
            if self.jumps.is(index) {
                self.jumps.forget(state);
            }
        }
    }

    fn call(&self, state: &mut State) {
        for reg in self.abi.clobbered.iter() {
            state.regs[reg.index()] = Value::Unknown;
        }
        // Below the stack pointer is the callee's.
        if let Some(sp) = state.sp(self.abi) {
            state.cells.retain(|cell| cell.offset >= sp);
        } else {
            state.cells.clear();
        }
    }

    fn load(
        &self,
        (index, effect): (usize, u8),
        state: &State,
        addr: Address,
        size: u8,
        listener: &mut dyn Listener,
    ) -> Value {
        let read = |offset| FrameAccess { offset, len: size, write: false, value: Value::Unknown, effect };
        match address(state, &addr) {
            Value::Cfa(_) if size == UNBOUNDED => {
                listener.escape(index, "a read of unknown extent from the native frame");
                Value::Tainted
            }
            Value::Cfa(offset) => {
                listener.access(index, read(offset));
                state.cell(offset, size)
            }
            Value::CfaOneOf(a, b) if size != UNBOUNDED => {
                for offset in [a, b] {
                    listener.access(index, read(offset));
                }
                state.cell(a, size).join(state.cell(b, size))
            }
            Value::Tainted | Value::CfaOneOf(..) => {
                listener.escape(index, "a read through a computed frame address");
                Value::Tainted
            }
            Value::Const { value, known: 8 } if size <= 8 && !addr.thread => {
                (self.read_only)(value, size).map_or(Value::Unknown, |value| Value::partial(value, size))
            }
            _ => Value::Unknown,
        }
    }
}

fn operand(state: &State, operand: Operand) -> Value {
    match operand {
        Operand::Reg(reg) => state.reg(reg),
        Operand::Imm(value) => Value::exact(value),
    }
}

/// Where an access goes.
fn address(state: &State, addr: &Address) -> Value {
    if addr.thread {
        let frame = [addr.base, addr.index].into_iter().flatten().any(|reg| state.reg(reg).is_frame());
        return if frame { Value::Tainted } else { Value::Unknown };
    }
    sum(state, addr)
}

fn sum(state: &State, addr: &Address) -> Value {
    let base = addr.base.map_or(Value::exact(0), |reg| state.reg(reg));
    let index = match addr.index {
        None => Value::exact(0),
        Some(reg) if addr.index_extended => {
            if state.reg(reg).is_frame() {
                Value::Tainted
            } else {
                Value::Unknown
            }
        }
        Some(reg) => binary(Op::Shl, state.reg(reg), Value::exact(addr.shift.into())),
    };
    let sum = binary(Op::Add, base, index);
    binary(Op::Add, sum, Value::exact(addr.disp.cast_unsigned()))
}

/// The value of an expression whose low `bytes` are written.
fn evaluate(state: &State, expr: &Expr, bytes: u8) -> Value {
    let value = match *expr {
        Expr::Extend { src, from, signed } => {
            let value = operand(state, src);
            // A copy of 1 or 2 bytes is merged by the caller: the rest does not matter.
            if bytes < 4 && from >= bytes { value } else { value.extend(from, signed) }
        }
        Expr::Address(addr) => sum(state, &addr),
        Expr::Binary(op, a, b) => {
            // or, xor, add of zero are moves.
            binary(op, operand(state, a), operand(state, b))
        }
        Expr::Insert { src, mask, bits } => match state.reg(src) {
            Value::Const { value, known: 8 } => Value::exact(value & !mask | bits),
            value if value.is_frame() => Value::Tainted,
            _ => Value::Unknown,
        },
        Expr::Either(a, b) => operand(state, a).join(operand(state, b)),
        Expr::ThreadPointer => Value::Tp(0),
    };
    narrow(value, bytes)
}

/// A value of which only 4 bytes are written, the rest cleared; 1 and 2 are left to [`merge`].
fn narrow(value: Value, bytes: u8) -> Value {
    if bytes == 4 { value.extend(4, false) } else { value }
}

/// A register after its low `bytes` were written.
fn merge(old: Value, new: Value, bytes: u8) -> Value {
    if bytes >= 4 {
        return new;
    }
    match (old, new) {
        (Value::Const { value: old, known: n @ 2.. }, Value::Const { value: new, known })
            if known >= bytes && n > bytes =>
        {
            let mask = (1u64 << (8 * u32::from(bytes))) - 1;
            Value::partial(old & !mask | new & mask, n)
        }
        (Value::Const { value: old, known: 8 }, Value::ConstOneOf(a, b)) => {
            let mask = (1u64 << (8 * u32::from(bytes))) - 1;
            Value::one_of(old & !mask | a & mask, old & !mask | b & mask)
        }
        (_, Value::Const { value, known }) => Value::partial(value, known.min(bytes)),
        (old, new) if old.is_frame() || new.is_frame() => Value::Tainted,
        _ => Value::Unknown,
    }
}

fn binary(op: Op, a: Value, b: Value) -> Value {
    match (op, a, b) {
        (Op::Add | Op::Or | Op::Xor, value, Value::Const { value: 0, known: 8 })
        | (Op::Add | Op::Or | Op::Xor, Value::Const { value: 0, known: 8 }, value)
        | (Op::Sub | Op::Shl | Op::Shr, value, Value::Const { value: 0, known: 8 }) => value,
        (_, Value::Const { value: a, known: m }, Value::Const { value: b, known: n }) => {
            let value = match op {
                Op::Add => a.wrapping_add(b),
                Op::Sub => a.wrapping_sub(b),
                Op::And => a & b,
                Op::Or => a | b,
                Op::Xor => a ^ b,
                Op::Shl => a.checked_shl(b as u32).unwrap_or(0),
                Op::Shr if m == 8 => a.checked_shr(b as u32).unwrap_or(0),
                Op::Shr => return Value::Unknown,
            };
            // The low bytes of a result depend on the low bytes only; a shift's count must be known.
            let known = if op == Op::Shl && n < 8 { return Value::Unknown } else { m.min(n) };
            Value::partial(value, known)
        }
        (Op::Add, Value::Cfa(offset), Value::ConstOneOf(a, b))
        | (Op::Add, Value::ConstOneOf(a, b), Value::Cfa(offset)) => {
            Value::Cfa(offset.wrapping_add_unsigned(a)).join(Value::Cfa(offset.wrapping_add_unsigned(b)))
        }
        (_, Value::ConstOneOf(a, b), constant @ Value::Const { known: 8, .. }) => {
            binary(op, Value::exact(a), constant).join(binary(op, Value::exact(b), constant))
        }
        (_, constant @ Value::Const { known: 8, .. }, Value::ConstOneOf(a, b)) => {
            binary(op, constant, Value::exact(a)).join(binary(op, constant, Value::exact(b)))
        }
        // The CFA is a multiple of 16 on both ISAs: an `or` may be an addition.
        (Op::Or, Value::Cfa(offset), Value::Const { value: value @ 0..16, known: 8 })
            if offset.rem_euclid(16).cast_unsigned() & value == 0 =>
        {
            Value::Cfa(offset.wrapping_add_unsigned(value))
        }
        (Op::Add, Value::Cfa(offset), Value::Const { value, known: 8 })
        | (Op::Add, Value::Const { value, known: 8 }, Value::Cfa(offset)) => {
            Value::Cfa(offset.wrapping_add_unsigned(value))
        }
        (Op::Sub, Value::Cfa(offset), Value::Const { value, known: 8 }) => {
            Value::Cfa(offset.wrapping_sub_unsigned(value))
        }
        (Op::Add, Value::CfaOneOf(a, b), Value::Const { value, known: 8 })
        | (Op::Add, Value::Const { value, known: 8 }, Value::CfaOneOf(a, b)) => {
            Value::CfaOneOf(a.wrapping_add_unsigned(value), b.wrapping_add_unsigned(value))
        }
        (Op::Sub, Value::Cfa(a), Value::Cfa(b)) => Value::exact(a.wrapping_sub(b).cast_unsigned()),
        (Op::Add, Value::Tp(offset), Value::Const { value, known: 8 })
        | (Op::Add, Value::Const { value, known: 8 }, Value::Tp(offset)) => {
            Value::Tp(offset.wrapping_add_unsigned(value))
        }
        (Op::Sub, Value::Tp(offset), Value::Const { value, known: 8 }) => {
            Value::Tp(offset.wrapping_sub_unsigned(value))
        }
        (_, a, b) if a.is_frame() || b.is_frame() => Value::Tainted,
        _ => Value::Unknown,
    }
}

/// Whether an instruction may give a register or a cell its value: for messages.
pub fn defines(insn: &Insn, reg: Reg) -> bool {
    insn.clobbers.has(reg)
        || insn.effects().any(|effect| match effect {
            Effect::Set { dst, .. } => dst == reg,
            Effect::Load { dst, .. } => dst == Some(reg),
            Effect::Store { .. } => false,
        })
}
