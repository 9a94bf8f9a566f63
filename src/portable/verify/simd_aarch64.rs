//! A64: floating point and Advanced SIMD (Arm ARM, C4.1.97), and its structure loads and stores.
use super::aarch64::{based, bits};
use super::insn::{Expr, Insn, Operand, Parts, Reg};

/// Advanced SIMD instructions that write all of `Vd` and do not read it. Any other is taken to read it.
const WRITE_ONLY: &[&str] = &[
    "abs", "add", "addp", "addv", "addhn", "and", "bic", "cls", "clz", "cmeq", "cmge", "cmgt", "cmhi", "cmhs", "cmle",
    "cmlt", "cmtst", "cnt", "dup", "eor", "ext", "fabd", "fabs", "fadd", "faddp", "fcmeq", "fcmge", "fcmgt", "fcmle",
    "fcmlt", "fcvtas", "fcvtau", "fcvtl", "fcvtl2", "fcvtms", "fcvtmu", "fcvtn", "fcvtns", "fcvtnu", "fcvtps",
    "fcvtpu", "fcvtzs", "fcvtzu", "fdiv", "fmax", "fmaxnm", "fmaxp", "fmaxv", "fmaxnmv", "fmin", "fminnm", "fminp",
    "fminv", "fminnmv", "fmov", "fmul", "fmulx", "fneg", "frecpe", "frecps", "frinta", "frinti", "frintm", "frintn",
    "frintp", "frintx", "frintz", "frsqrte", "frsqrts", "fsqrt", "fsub", "mov", "movi", "mul", "mvn", "mvni", "neg",
    "not", "orn", "rbit", "rev16", "rev32", "rev64", "sabd", "sabdl", "sabdl2", "saddl", "saddl2", "saddlp", "saddlv",
    "saddw", "saddw2", "scvtf", "shadd", "shl", "shll", "shll2", "shrn", "shsub", "smax", "smaxp", "smaxv", "smin",
    "sminp", "sminv", "smull", "smull2", "sqadd", "sqneg", "sqshl", "sqsub", "sqxtn", "sqxtun", "srhadd", "srshl",
    "srshr", "sshl", "sshll", "sshll2", "sshr", "ssubl", "ssubl2", "ssubw", "ssubw2", "sub", "subhn", "sxtl", "sxtl2",
    "tbl", "trn1", "trn2", "uabd", "uabdl", "uabdl2", "uaddl", "uaddl2", "uaddlp", "uaddlv", "uaddw", "uaddw2",
    "ucvtf", "uhadd", "uhsub", "umax", "umaxp", "umaxv", "umin", "uminp", "uminv", "umull", "umull2", "uqadd", "uqshl",
    "uqsub", "uqxtn", "urhadd", "urshl", "urshr", "ushl", "ushll", "ushll2", "ushr", "usubl", "usubl2", "usubw",
    "usubw2", "uxtl", "uxtl2", "uzp1", "uzp2", "xtn", "zip1", "zip2", "pmul", "pmull", "pmull2", "cmp",
];

fn uses(insn: &mut Insn, field: u32) {
    insn.uses(Reg::lo(field as u8), 8);
    insn.uses(Reg::hi(field as u8), 8);
}

fn uses_low(insn: &mut Insn, field: u32) {
    insn.uses(Reg::lo(field as u8), 8);
}

fn writes(insn: &mut Insn, field: u32) {
    insn.writes(Reg::lo(field as u8), 8);
    insn.writes(Reg::hi(field as u8), 8);
}

fn gpr(field: u32) -> Option<Reg> {
    (field != 31).then_some(Reg::gpr(field as u8))
}

/// Floating-point and Advanced SIMD data processing.
pub fn data_processing(insn: &mut Insn, word: u32, mnemonic: &str) -> Option<()> {
    // bit 30 and 28 tell scalar floating point (x0x1111x) from Advanced SIMD.
    if bits(word, 30, 30) == 0 && bits(word, 28, 28) == 1 && bits(word, 29, 29) == 0 {
        if bits(word, 24, 24) == 1 {
            // fmadd, fmsub, fnmadd, fnmsub
            for field in [bits(word, 9, 5), bits(word, 20, 16), bits(word, 14, 10)] {
                uses_low(insn, field);
            }
            writes(insn, bits(word, 4, 0));
            return Some(());
        }
        return scalar(insn, word);
    }
    if word >> 31 != 0 {
        return None;
    }
    vector(insn, word, mnemonic)
}

fn scalar(insn: &mut Insn, word: u32) -> Option<()> {
    let (rd, rn, rm) = (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16));
    let kind = bits(word, 23, 22);
    // conversions to and from fixed point and integers, fmov with general registers
    if bits(word, 21, 21) == 0 || bits(word, 15, 10) == 0 {
        return convert(insn, word);
    }
    if word >> 31 != 0 {
        return None;
    }
    match bits(word, 11, 10) {
        // fccmp
        0b01 => {
            uses_low(insn, rn);
            uses_low(insn, rm);
        }
        // fadd, fmul, ...; fcsel
        0b10 | 0b11 => {
            uses_low(insn, rn);
            uses_low(insn, rm);
            writes(insn, rd);
        }
        _ if bits(word, 12, 10) == 0b100 => {
            insn.pure = true;
            set_lo_hi(insn, rd, scalar_immediate(bits(word, 20, 13), kind)?);
        }
        // fcmp
        _ if bits(word, 13, 10) == 0b1000 => {
            uses_low(insn, rn);
            if bits(word, 3, 3) == 0 {
                uses_low(insn, rm);
            }
        }
        // fmov, fabs, fneg, fsqrt, fcvt, frint*
        _ if bits(word, 14, 10) == 0b10000 => {
            if bits(word, 20, 15) == 0 {
                insn.pure = true;
                let from = if kind == 1 { 8 } else { 4 };
                let expr = Expr::Extend { src: Operand::Reg(Reg::lo(rn as u8)), from, signed: false };
                insn.set(Reg::lo(rd as u8), 8, expr);
                insn.set_imm(Reg::hi(rd as u8), 8, 0);
            } else {
                uses_low(insn, rn);
                writes(insn, rd);
            }
        }
        _ => return None,
    }
    Some(())
}

fn set_lo_hi(insn: &mut Insn, rd: u32, value: u64) {
    insn.set_imm(Reg::lo(rd as u8), 8, value);
    insn.set_imm(Reg::hi(rd as u8), 8, 0);
}

/// `VFPExpandImm` of the Arm ARM, for single and double precision.
fn scalar_immediate(imm8: u32, kind: u32) -> Option<u64> {
    let imm = u64::from(imm8);
    let (sign, b, low) = (imm >> 7, imm >> 6 & 1, imm & 0x3f);
    match kind {
        0 => Some(sign << 31 | (b ^ 1) << 30 | (b * 0x1f) << 25 | low << 19),
        1 => Some(sign << 63 | (b ^ 1) << 62 | (b * 0xff) << 54 | low << 48),
        _ => None,
    }
}

fn convert(insn: &mut Insn, word: u32) -> Option<()> {
    let (rd, rn) = (bits(word, 4, 0), bits(word, 9, 5));
    let size = if word >> 31 != 0 { 8 } else { 4 };
    let (kind, rmode, opcode) = (bits(word, 23, 22), bits(word, 20, 19), bits(word, 18, 16));
    let integer = bits(word, 21, 21) == 1;
    if integer && opcode >= 0b110 && !matches!((rmode, kind), (0, 0 | 1 | 3) | (1, 2)) {
        return None;
    }
    match opcode {
        // fmov general <- vector
        0b110 if integer => {
            let half = if kind == 0b10 && rmode == 1 { Reg::hi(rn as u8) } else { Reg::lo(rn as u8) };
            insn.pure = true;
            insn.copy(gpr(rd)?, size, half);
        }
        // fmov vector <- general
        0b111 if integer => {
            insn.pure = true;
            let src = gpr(rn).map_or(Operand::Imm(0), Operand::Reg);
            let expr = Expr::Extend { src, from: size, signed: false };
            if kind == 0b10 && rmode == 1 {
                insn.set(Reg::hi(rd as u8), 8, expr);
            } else {
                insn.set(Reg::lo(rd as u8), 8, expr);
                insn.set_imm(Reg::hi(rd as u8), 8, 0);
            }
        }
        // scvtf, ucvtf
        0b010 | 0b011 => {
            if let Some(rn) = gpr(rn) {
                insn.uses(rn, size);
            }
            writes(insn, rd);
        }
        // fcvt*
        _ => {
            uses_low(insn, rn);
            insn.writes(gpr(rd)?, size);
        }
    }
    Some(())
}

fn vector(insn: &mut Insn, word: u32, mnemonic: &str) -> Option<()> {
    let (rd, rn, rm) = (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16));
    // Advanced SIMD copy
    if bits(word, 27, 21) == 0b111_0000 && bits(word, 15, 15) == 0 && bits(word, 10, 10) == 1 {
        match (bits(word, 29, 29), bits(word, 14, 11)) {
            // dup (general), ins (general)
            (0, 0b0001 | 0b0011) => {
                if let Some(rn) = gpr(rn) {
                    insn.uses(rn, 8);
                }
                if bits(word, 12, 12) != 0 {
                    uses(insn, rd);
                }
                writes(insn, rd);
            }
            // smov, umov
            (0, 0b0101 | 0b0111) => {
                uses(insn, rn);
                insn.writes(gpr(rd)?, 8);
            }
            (0, 0b0000) => {
                uses(insn, rn);
                writes(insn, rd);
            }
            (1, _) => {
                uses(insn, rn);
                uses(insn, rd);
                writes(insn, rd);
            }
            _ => return None,
        }
        return Some(());
    }
    // modified immediate: movi, mvni, fmov, orr, bic
    if bits(word, 28, 19) == 0b01_1110_0000 && bits(word, 10, 10) == 1 {
        return modified_immediate(insn, word);
    }
    // `orr vd, vn, vn` is a move
    if word & 0xbfe0_fc00 == 0x0ea0_1c00 && rn == rm {
        insn.pure = true;
        insn.copy(Reg::lo(rd as u8), 8, Reg::lo(rn as u8));
        match bits(word, 30, 30) {
            0 => insn.set_imm(Reg::hi(rd as u8), 8, 0),
            _ => insn.copy(Reg::hi(rd as u8), 8, Reg::hi(rn as u8)),
        }
        return Some(());
    }
    // Vn and the field of Vm are taken as read (the field may be an opcode: then too much is read).
    uses(insn, rn);
    if second_source(word) {
        uses(insn, rm);
        // An indexed element of 16 bits is in one of v0..v15: bit 20 belongs to its index.
        uses(insn, rm & 15);
    }
    // tbl, tbx: a list of up to four registers
    if word & 0xbfe0_8c00 == 0x0e00_0000 {
        for next in 1..=bits(word, 14, 13) {
            uses(insn, (rn + next) & 31);
        }
    }
    if !WRITE_ONLY.contains(&mnemonic) {
        uses(insn, rd);
    }
    writes(insn, rd);
    Some(())
}

/// Whether bits 16..=20 name a register: not in "two-register miscellaneous", "across lanes", "shift by
/// immediate" and scalar pairwise.
fn second_source(word: u32) -> bool {
    let across_or_misc = bits(word, 24, 24) == 0 && bits(word, 21, 17) == 0b10000 && bits(word, 11, 10) == 0b10
        || bits(word, 24, 24) == 0 && bits(word, 21, 17) == 0b11000 && bits(word, 11, 10) == 0b10;
    let shift = bits(word, 24, 23) == 0b10 && bits(word, 10, 10) == 1;
    !across_or_misc && !shift
}

fn modified_immediate(insn: &mut Insn, word: u32) -> Option<()> {
    let (rd, cmode, op) = (bits(word, 4, 0), bits(word, 15, 12), bits(word, 29, 29));
    let imm = u64::from(bits(word, 18, 16) << 5 | bits(word, 9, 5));
    let (lo, hi) = (Reg::lo(rd as u8), Reg::hi(rd as u8));
    // orr, bic (immediate) change what is there
    if cmode & 1 == 1 && cmode < 12 {
        insn.changes(lo);
        insn.changes(hi);
        return Some(());
    }
    let twice = |value: u64| value << 32 | value;
    let value = match (cmode, op) {
        (0 | 2 | 4 | 6, _) => Some(twice(imm << (8 * (cmode >> 1)))),
        (8 | 10, _) => Some(0x0001_0001_0001_0001 * (imm << (8 * (cmode >> 1 & 1)))),
        (14, 0) => Some(0x0101_0101_0101_0101 * imm),
        (14, 1) => {
            let byte = |n: u32| if imm >> n & 1 != 0 { 0xff << (8 * n) } else { 0u64 };
            Some((0..8).map(byte).sum())
        }
        (15, 0) => Some(twice(scalar_immediate(imm as u32, 0)?)),
        (15, 1) => scalar_immediate(imm as u32, 1),
        _ => None,
    };
    let Some(value) = value else {
        writes(insn, rd);
        return Some(());
    };
    let value = if op == 1 && cmode < 12 { !value } else { value };
    insn.pure = true;
    insn.set_imm(lo, 8, value);
    insn.set_imm(hi, 8, if bits(word, 30, 30) != 0 { value } else { 0 });
    Some(())
}

/// ld1..ld4, st1..st4: multiple and single structures.
pub fn structures(insn: &mut Insn, word: u32) -> Option<()> {
    let (rt, rn, rm) = (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16));
    let load = bits(word, 22, 22) != 0;
    if word >> 31 != 0 || bits(word, 29, 25) != 0b00110 {
        return None;
    }
    let single = bits(word, 24, 24) != 0;
    let wide = 8 << bits(word, 30, 30);
    let (registers, whole, size) = if single {
        let opcode = bits(word, 15, 13);
        // ld1r and its like fill all lanes; others change one.
        let element = match opcode >> 1 {
            0 => 1,
            1 => 2,
            2 => 4 << bits(word, 10, 10),
            _ => 1 << bits(word, 11, 10),
        };
        ((opcode & 1) * 2 + bits(word, 21, 21) + 1, opcode >= 6, element)
    } else {
        let registers = match bits(word, 15, 12) {
            0b0000 | 0b0010 => 4,
            0b0100 | 0b0110 => 3,
            0b0111 => 1,
            0b1000 | 0b1010 => 2,
            _ => return None,
        };
        (registers, true, wide)
    };
    for n in 0..registers {
        let field = (rt + n) & 31;
        if !load || !whole {
            uses(insn, field);
        }
        if load {
            writes(insn, field);
        }
    }
    let size = (registers * size) as u8;
    if load {
        insn.reads_memory(based(rn, 0), size);
    } else {
        insn.writes_memory(based(rn, 0), size);
    }
    if bits(word, 23, 23) != 0 {
        let base = Reg::gpr(rn as u8);
        if let Some(rm) = gpr(rm) {
            insn.reads |= Parts::all(rm);
        }
        insn.changes(base);
    }
    Some(())
}
