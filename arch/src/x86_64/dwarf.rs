//! DWARF register numbers (psABI 1.0, table 3.36) and the callee-saved set (section 3.2.1).
use super::Regs;
use crate::DwarfReg;

/// `rbp`
pub const FP: DwarfReg = DwarfReg(6);
/// `rsp`
pub const SP: DwarfReg = DwarfReg(7);
/// The return address column.
pub const RA: DwarfReg = DwarfReg(16);

/// Registers whose value a call preserves: `rbx`, `rbp`, `r12`..`r15`.
pub const CALLEE_SAVED: &[DwarfReg] =
    &[DwarfReg(3), DwarfReg(6), DwarfReg(12), DwarfReg(13), DwarfReg(14), DwarfReg(15)];

/// Names in the order of their DWARF numbers, 0..=16.
pub const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
];

/// The register's value, for numbers 0..=16.
#[must_use]
pub fn get(regs: &Regs, reg: DwarfReg) -> Option<u64> {
    let mut copy = *regs;
    field(&mut copy, reg).map(|value| *value)
}

/// Sets the register; `false` for a number outside 0..=16.
pub fn set(regs: &mut Regs, reg: DwarfReg, value: u64) -> bool {
    field(regs, reg).map(|place| *place = value).is_some()
}

fn field(regs: &mut Regs, reg: DwarfReg) -> Option<&mut u64> {
    Some(match reg.0 {
        0 => &mut regs.rax,
        1 => &mut regs.rdx,
        2 => &mut regs.rcx,
        3 => &mut regs.rbx,
        4 => &mut regs.rsi,
        5 => &mut regs.rdi,
        6 => &mut regs.rbp,
        7 => &mut regs.rsp,
        8 => &mut regs.r8,
        9 => &mut regs.r9,
        10 => &mut regs.r10,
        11 => &mut regs.r11,
        12 => &mut regs.r12,
        13 => &mut regs.r13,
        14 => &mut regs.r14,
        15 => &mut regs.r15,
        16 => &mut regs.rip,
        _ => return None,
    })
}
