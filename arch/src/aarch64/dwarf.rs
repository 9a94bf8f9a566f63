//! DWARF register numbers (AADWARF64 section 4.1) and the callee-saved set (AAPCS64 section 6.1.1).
use super::Regs;
use crate::DwarfReg;

/// `x29`
pub const FP: DwarfReg = DwarfReg(29);
/// `sp`
pub const SP: DwarfReg = DwarfReg(31);
/// `x30`, the link register and return address column.
pub const RA: DwarfReg = DwarfReg(30);

/// Registers whose value a call preserves: `x19`..`x29`, and the low halves of `v8`..`v15`.
pub const CALLEE_SAVED: &[DwarfReg] = &[
    DwarfReg(19),
    DwarfReg(20),
    DwarfReg(21),
    DwarfReg(22),
    DwarfReg(23),
    DwarfReg(24),
    DwarfReg(25),
    DwarfReg(26),
    DwarfReg(27),
    DwarfReg(28),
    DwarfReg(29),
    DwarfReg(72),
    DwarfReg(73),
    DwarfReg(74),
    DwarfReg(75),
    DwarfReg(76),
    DwarfReg(77),
    DwarfReg(78),
    DwarfReg(79),
];

/// The register's value, for `x0`..`x30`, `sp` (31) and `pc` (32).
#[must_use]
pub fn get(regs: &Regs, reg: DwarfReg) -> Option<u64> {
    let mut copy = *regs;
    field(&mut copy, reg).map(|value| *value)
}

/// Sets the register; `false` for a number that is none of `x0`..`x30`, `sp`, `pc`.
pub fn set(regs: &mut Regs, reg: DwarfReg, value: u64) -> bool {
    field(regs, reg).map(|place| *place = value).is_some()
}

fn field(regs: &mut Regs, reg: DwarfReg) -> Option<&mut u64> {
    Some(match reg.0 {
        n @ 0..=30 => &mut regs.x[usize::from(n)],
        31 => &mut regs.sp,
        32 => &mut regs.pc,
        _ => return None,
    })
}
