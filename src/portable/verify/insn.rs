//! What the analyses know of an instruction: register parts, memory accesses, values, control flow.
//!
//! The two decoders (`x86_64.rs`, `aarch64.rs`) translate machine code into this model, and refuse
//! what they do not know. Register state is cut into 64-bit units ([`Reg`]); liveness is finer
//! ([`Parts`]), because x86_64 writes 8 and 16 bits of a register and leaves the rest.
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// A 64-bit unit of register state: a general register (by DWARF number on x86_64, by its own on
/// aarch64, `sp` = 31), or the low or high half of a vector register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u8);

impl Reg {
    /// Number of units.
    pub const COUNT: usize = 96;

    /// A general register.
    pub const fn gpr(n: u8) -> Self {
        Self(n & 31)
    }

    /// Bits 0..64 of a vector register.
    pub const fn lo(n: u8) -> Self {
        Self(32 + (n & 31))
    }

    /// Bits 64..128 of a vector register.
    pub const fn hi(n: u8) -> Self {
        Self(64 + (n & 31))
    }

    /// Its index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether it is a general register.
    pub const fn is_gpr(self) -> bool {
        self.0 < 32
    }
}

/// A set of [`Reg`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegSet(pub u128);

impl RegSet {
    /// Adds a register.
    pub fn add(&mut self, reg: Reg) {
        self.0 |= 1 << reg.0;
    }

    /// Whether it has a register.
    pub fn has(self, reg: Reg) -> bool {
        self.0 >> reg.0 & 1 != 0
    }

    /// Its registers, ascending.
    pub fn iter(self) -> impl Iterator<Item = Reg> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let reg = Reg(left.trailing_zeros() as u8);
            left &= left - 1;
            Some(reg)
        })
    }
}

impl FromIterator<Reg> for RegSet {
    fn from_iter<I: IntoIterator<Item = Reg>>(regs: I) -> Self {
        let mut set = Self::default();
        regs.into_iter().for_each(|reg| set.add(reg));
        set
    }
}

/// A set of register parts: bits 0..8, 8..16, 16..32 and 32..64 of general registers, halves of
/// vector registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    gpr: u128,
    vec: u64,
}

impl Parts {
    /// No part.
    pub const NONE: Self = Self { gpr: 0, vec: 0 };

    /// The low `bytes` (1, 2, 4, 8) of a register; of half a vector register always the whole half.
    pub fn low(reg: Reg, bytes: u8) -> Self {
        if reg.is_gpr() {
            let parts = match bytes {
                0 => 0,
                1 => 0b0001,
                2 => 0b0011,
                3..=4 => 0b0111,
                _ => 0b1111u128,
            };
            Self { gpr: parts << (4 * u32::from(reg.0)), vec: 0 }
        } else {
            Self { gpr: 0, vec: 1 << (reg.0 - 32) }
        }
    }

    /// Bits 8..16 of a general register (`ah`, `bh`, `ch`, `dh`).
    pub fn second_byte(reg: Reg) -> Self {
        Self { gpr: 0b0010 << (4 * u32::from(reg.0)), vec: 0 }
    }

    /// All of a register.
    pub fn all(reg: Reg) -> Self {
        Self::low(reg, 8)
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// How many low bytes of a register cover the parts that are in the set; 0 if none is.
    pub fn extent(self, reg: Reg) -> u8 {
        if !reg.is_gpr() {
            return if self.vec >> (reg.0 - 32) & 1 != 0 { 8 } else { 0 };
        }
        match self.gpr >> (4 * u32::from(reg.0)) & 0b1111 {
            0 => 0,
            1 => 1,
            2..=3 => 2,
            4..=7 => 4,
            _ => 8,
        }
    }
}

impl BitOr for Parts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self { gpr: self.gpr | other.gpr, vec: self.vec | other.vec }
    }
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for Parts {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self { gpr: self.gpr & other.gpr, vec: self.vec & other.vec }
    }
}

impl Not for Parts {
    type Output = Self;
    fn not(self) -> Self {
        Self { gpr: !self.gpr, vec: !self.vec }
    }
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To an address.
    Jump(u64),
    /// To an address or to the next instruction.
    Branch(u64),
    /// Wherever a register or memory says.
    IndirectJump,
    /// Into a function (`None`: through a register or memory) and back to the next instruction.
    Call(Option<u64>),
    /// To the caller.
    Return,
    /// Nowhere: it traps.
    Trap,
    /// Into the kernel and back.
    SystemCall,
}

/// An operand: a register or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register unit.
    Reg(Reg),
    /// A number.
    Imm(u64),
}

/// `base + (index << shift) + disp`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Base register.
    pub base: Option<Reg>,
    /// Index register.
    pub index: Option<Reg>,
    /// Shift of the index; meaningless if `index_extended`.
    pub shift: u8,
    /// The index is a narrower register that is extended first: its value is not used.
    pub index_extended: bool,
    /// Displacement; the whole address if there is no register.
    pub disp: i64,
    /// Relative to the thread pointer (a segment override on x86_64): never in the native frame.
    pub thread: bool,
}

/// Binary operations that are computed on constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sum; also of a frame address and a constant.
    Add,
    /// Difference; also of a frame address and a constant.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Shift left.
    Shl,
    /// Logical shift right.
    Shr,
}

/// The value that an instruction puts somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expr {
    /// An operand's low `from` bytes, sign- or zero-extended to 8 bytes.
    Extend {
        /// What.
        src: Operand,
        /// Bytes that are used.
        from: u8,
        /// Sign-extended.
        signed: bool,
    },
    /// A sum of registers.
    Address(Address),
    /// A binary operation.
    Binary(Op, Operand, Operand),
    /// `src` with the bits of `mask` replaced.
    Insert {
        /// What is changed.
        src: Reg,
        /// Which bits.
        mask: u64,
        /// Their new value.
        bits: u64,
    },
    /// One of two operands.
    Either(Operand, Operand),
    /// The thread pointer.
    ThreadPointer,
}

/// Size of an access whose extent depends on a register.
pub const UNBOUNDED: u8 = u8::MAX;

/// One modelled effect of an instruction. All effects of one instruction see the state before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A register gets a value.
    Set {
        /// The register.
        dst: Reg,
        /// The value.
        expr: Expr,
        /// Bytes written: 8; 4 clears the upper half; 1 and 2 leave the rest.
        bytes: u8,
    },
    /// Memory is read, perhaps into a register.
    Load {
        /// The register; `None` if the value goes into a computation that is not modelled.
        dst: Option<Reg>,
        /// From where.
        addr: Address,
        /// Bytes read: 1, 2, 4 or 8 into a register, else up to 64, or [`UNBOUNDED`].
        size: u8,
        /// Sign-extended to 8 bytes, else zero-extended.
        signed: bool,
        /// Bytes of the register written, as in [`Effect::Set`].
        bytes: u8,
    },
    /// Memory is written.
    Store {
        /// Where to.
        addr: Address,
        /// Bytes written: 1, 2, 4 or 8 of an operand, else up to 64, or [`UNBOUNDED`].
        size: u8,
        /// What; `None` if it is not modelled.
        src: Option<Operand>,
    },
}

/// Most effects of one instruction (`ldp q0, q1, [sp], #32`).
pub const MAX_EFFECTS: usize = 6;

/// An instruction as the analyses see it.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    /// Address.
    pub addr: u64,
    /// Bytes.
    pub len: u8,
    /// Where control goes.
    pub flow: Flow,
    /// It does nothing but what `effects` says (no flags): what it copies is used only if the copy is.
    pub pure: bool,
    /// Parts that it may use.
    pub reads: Parts,
    /// Those of them that are not the source of an effect: used whatever becomes of the result.
    pub other_reads: Parts,
    /// Parts that it overwrites in any case.
    pub kills: Parts,
    /// Registers whose value is lost, unless an effect sets it.
    pub clobbers: RegSet,
    /// Registers whose value may flow into a clobbered one (not: registers that only address memory).
    pub data: RegSet,
    effects: [Option<Effect>; MAX_EFFECTS],
}

impl Insn {
    /// An instruction that does nothing.
    pub fn new(addr: u64, len: u8) -> Self {
        Self {
            addr,
            len,
            flow: Flow::Next,
            pure: false,
            reads: Parts::NONE,
            other_reads: Parts::NONE,
            kills: Parts::NONE,
            clobbers: RegSet::default(),
            data: RegSet::default(),
            effects: [None; MAX_EFFECTS],
        }
    }

    /// The address behind it.
    pub fn end(&self) -> u64 {
        self.addr.wrapping_add(self.len.into())
    }

    /// Its effects.
    pub fn effects(&self) -> impl Iterator<Item = Effect> {
        self.effects.into_iter().flatten()
    }

    /// It uses the low `bytes` of a register as data.
    pub fn uses(&mut self, reg: Reg, bytes: u8) {
        self.uses_parts(reg, Parts::low(reg, bytes));
    }

    /// It uses parts of a register as data.
    pub fn uses_parts(&mut self, reg: Reg, parts: Parts) {
        self.reads |= parts;
        self.other_reads |= parts;
        self.data.add(reg);
    }

    /// It writes the low `bytes` of a register with something that is not modelled; 4 and 8 bytes
    /// overwrite all of it.
    pub fn writes(&mut self, reg: Reg, bytes: u8) {
        self.kills |= Parts::low(reg, if bytes == 4 { 8 } else { bytes });
        self.clobbers.add(reg);
    }

    /// It writes some of a register and leaves the rest.
    pub fn changes(&mut self, reg: Reg) {
        self.uses(reg, 8);
        self.clobbers.add(reg);
    }

    /// The registers of an address are used, but not as data.
    pub fn addresses(&mut self, addr: Address) {
        for reg in [addr.base, addr.index].into_iter().flatten() {
            self.reads |= Parts::all(reg);
        }
    }

    /// A register gets a modelled value.
    pub fn set(&mut self, dst: Reg, bytes: u8, expr: Expr) {
        match expr {
            Expr::Extend { src, from, .. } => self.uses_operand(src, from),
            Expr::Address(addr) => {
                self.addresses(addr);
                for reg in [addr.base, addr.index].into_iter().flatten() {
                    self.data.add(reg);
                }
            }
            Expr::Binary(_, a, b) | Expr::Either(a, b) => {
                self.uses_operand(a, bytes);
                self.uses_operand(b, bytes);
            }
            Expr::Insert { src, .. } => self.uses_operand(Operand::Reg(src), 8),
            Expr::ThreadPointer => {}
        }
        self.writes(dst, bytes);
        self.effect(Effect::Set { dst, expr, bytes });
    }

    /// A register gets a number.
    pub fn set_imm(&mut self, dst: Reg, bytes: u8, value: u64) {
        self.set(dst, bytes, Expr::Extend { src: Operand::Imm(value), from: 8, signed: false });
    }

    /// A register gets the low `bytes` of another.
    pub fn copy(&mut self, dst: Reg, bytes: u8, src: Reg) {
        self.set(dst, bytes, Expr::Extend { src: Operand::Reg(src), from: bytes, signed: false });
    }

    /// Memory is loaded into a register.
    pub fn load(&mut self, dst: Reg, bytes: u8, addr: Address, size: u8, signed: bool) {
        self.addresses(addr);
        self.writes(dst, bytes);
        self.effect(Effect::Load { dst: Some(dst), addr, size, signed, bytes });
    }

    /// Memory is read by a computation that is not modelled.
    pub fn reads_memory(&mut self, addr: Address, size: u8) {
        self.addresses(addr);
        self.effect(Effect::Load { dst: None, addr, size, signed: false, bytes: 8 });
    }

    /// An operand is stored.
    pub fn store(&mut self, addr: Address, size: u8, src: Operand) {
        self.addresses(addr);
        self.uses_operand(src, size);
        self.effect(Effect::Store { addr, size, src: Some(src) });
    }

    /// Memory is written with something that is not modelled.
    pub fn writes_memory(&mut self, addr: Address, size: u8) {
        self.addresses(addr);
        self.effect(Effect::Store { addr, size, src: None });
    }

    fn uses_operand(&mut self, operand: Operand, bytes: u8) {
        if let Operand::Reg(reg) = operand {
            self.reads |= Parts::low(reg, bytes);
            self.data.add(reg);
        }
    }

    fn effect(&mut self, effect: Effect) {
        let free = self.effects.iter_mut().find(|slot| slot.is_none());
        *free.expect("no instruction of either decoder has more effects") = Some(effect);
    }
}

/// An instruction that is not modelled, or whose two descriptions disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotModelled {
    /// Its address.
    pub addr: u64,
    /// Its text, or its bytes if it has none.
    pub text: String,
    /// Why.
    pub why: &'static str,
}

/// Decodes the code of one ISA into the model.
pub trait Decoder {
    /// The instruction at the start of `code`, which is at `addr`.
    fn decode(&self, code: &[u8], addr: u64) -> Result<Insn, NotModelled>;
    /// Length and control flow of any instruction that the disassembler knows, modelled or not.
    fn flow(&self, code: &[u8], addr: u64) -> Result<(u8, Flow), NotModelled>;
    /// The text of the instruction at the start of `code`.
    fn text(&self, code: &[u8], addr: u64) -> String;
}
