//! Calling conventions, as the analyses need them: psABI 1.0 section 3.2, AAPCS64 section 6.
use super::aarch64::{Aarch64, SP};
use super::insn::{Decoder, Parts, Reg, RegSet};
use super::x86_64::{RSP, X86_64};
use isamorph_arch::{DwarfReg, Isa, aarch64, x86_64};

/// The facts of one ISA.
pub struct Abi {
    /// Whose.
    pub isa: Isa,
    /// The stack pointer.
    pub sp: Reg,
    /// Registers that a call preserves (of vector registers the low half), without `sp`.
    pub callee_saved: Vec<Reg>,
    /// All other registers.
    pub clobbered: RegSet,
    /// The same, as parts.
    pub clobbered_parts: Parts,
    /// Registers that may carry arguments: no function may read another one at its entry but for `kept_at_entry`.
    pub arguments: Parts,
    /// The general ones among them that carry the arguments of C functions with integers and pointers only.
    pub integer_arguments: Parts,
    /// What else a function may find at its entry: what it preserves, the stack pointer, the return address.
    pub kept_at_entry: Parts,
    /// Registers that carry neither arguments nor results: not live after a call.
    pub scratch: Vec<Reg>,
    /// Registers that could carry results, but do not: after a call no instruction uses them, unless it is another call.
    pub no_results: Vec<Reg>,
    /// What is live when a function returns.
    pub live_at_return: Parts,
    /// `sp` at entry is at the CFA plus this.
    pub entry_sp: i64,
    /// The pseudo-register of the caller's return address: `x30`, or a cell at entry.
    pub return_address: Reg,
}

impl Abi {
    /// The facts of `isa`.
    pub fn new(isa: Isa) -> Self {
        let all = |regs: &[Reg]| regs.iter().fold(Parts::NONE, |parts, reg| parts | Parts::all(*reg));
        let (sp, saved, arguments, scratch, results, entry_sp, return_address): (_, _, Vec<Reg>, Vec<Reg>, _, _, _);
        let (integers, no_results): (Vec<Reg>, Vec<Reg>);
        match isa {
            Isa::X86_64 => {
                sp = RSP;
                saved = x86_64::dwarf::CALLEE_SAVED;
                // rdx, rcx, rsi, rdi, r8, r9, xmm0-7; rax never, for no function has variable arguments any more.
                integers = [1u8, 2, 4, 5, 8, 9].map(Reg::gpr).to_vec();
                arguments = integers.iter().copied().chain((0..8).flat_map(|n| [Reg::lo(n), Reg::hi(n)])).collect();
                no_results = vec![];
                scratch = vec![Reg::gpr(10), Reg::gpr(11)];
                results = vec![Reg::gpr(0), Reg::gpr(1), Reg::lo(0), Reg::lo(1), Reg::hi(0), Reg::hi(1)];
                entry_sp = -8;
                return_address = Reg::gpr(16);
            }
            Isa::Aarch64 => {
                sp = Reg::gpr(SP);
                saved = aarch64::dwarf::CALLEE_SAVED;
                let vectors = || (0..8).flat_map(|n| [Reg::lo(n), Reg::hi(n)]);
                // Not x8: no function returns through a hidden pointer any more.
                integers = (0..8).map(Reg::gpr).collect();
                arguments = integers.iter().copied().chain(vectors()).collect();
                // The neutral ABI returns at most two general registers.
                no_results = (2..8).map(Reg::gpr).collect();
                scratch = (9..18).map(Reg::gpr).collect();
                results = [0u8, 1].map(Reg::gpr).into_iter().chain(vectors()).collect();
                entry_sp = 0;
                return_address = Reg::gpr(30);
            }
        }
        let callee_saved: Vec<Reg> = saved.iter().filter_map(|reg| from_dwarf(isa, *reg)).collect();
        let clobbered: RegSet = (0..Reg::COUNT as u8)
            .map(Reg)
            .filter(|reg| !callee_saved.contains(reg) && *reg != sp && !(isa == Isa::X86_64 && *reg == return_address))
            .collect();
        Self {
            isa,
            sp,
            clobbered_parts: clobbered.iter().fold(Parts::NONE, |parts, reg| parts | Parts::all(reg)),
            clobbered,
            arguments: all(&arguments),
            kept_at_entry: all(&callee_saved) | Parts::all(sp) | Parts::all(return_address),
            integer_arguments: all(&integers),
            live_at_return: all(&callee_saved) | all(&results) | Parts::all(sp) | Parts::all(return_address),
            scratch,
            no_results,
            callee_saved,
            entry_sp,
            return_address,
        }
    }

    /// The decoder for its code.
    pub fn decoder(&self) -> Result<Box<dyn Decoder>, capstone::Error> {
        Ok(match self.isa {
            Isa::X86_64 => Box::new(X86_64::new()?),
            Isa::Aarch64 => Box::new(Aarch64::new()?),
        })
    }

    /// Alignment of its instructions.
    pub fn insn_align(&self) -> u64 {
        match self.isa {
            Isa::X86_64 => 1,
            Isa::Aarch64 => 4,
        }
    }

    /// The DWARF number of a callee-saved register, or of the return address.
    pub fn dwarf(&self, reg: Reg) -> DwarfReg {
        match (self.isa, reg.is_gpr()) {
            (_, true) => DwarfReg(reg.0.into()),
            (Isa::X86_64, false) => DwarfReg(17 + u16::from(reg.0 & 31)),
            (Isa::Aarch64, false) => DwarfReg(64 + u16::from(reg.0 & 31)),
        }
    }

    /// An assembler name.
    pub fn name(&self, reg: Reg) -> String {
        match (self.isa, reg.0) {
            (Isa::X86_64, n @ 0..=16) => x86_64::dwarf::NAMES[usize::from(n)].to_owned(),
            (Isa::X86_64, n) => format!("xmm{}", n & 31),
            (Isa::Aarch64, SP) => "sp".to_owned(),
            (Isa::Aarch64, n @ 0..=31) => format!("x{n}"),
            (Isa::Aarch64, n @ 32..=63) => format!("d{}", n & 31),
            (Isa::Aarch64, n) => format!("v{}.d[1]", n & 31),
        }
    }
}

/// The unit of a DWARF register number, if the analyses follow it.
pub fn from_dwarf(isa: Isa, reg: DwarfReg) -> Option<Reg> {
    match (isa, reg.0) {
        (Isa::X86_64, n @ 0..=16) | (Isa::Aarch64, n @ 0..=31) => Some(Reg::gpr(n as u8)),
        (Isa::Aarch64, n @ 64..=95) => Some(Reg::lo((n - 64) as u8)),
        _ => None,
    }
}
