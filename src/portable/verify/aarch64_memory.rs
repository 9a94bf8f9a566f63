//! Loads and stores of aarch64 (Arm ARM, C4.1.66): their addresses, sizes, pairs, write-back and exclusives.
use super::aarch64::{based, bits, gpr, gpr_sp, operand, signed};
use super::insn::{Address, Expr, Insn, Op, Operand, Reg};
use super::simd_aarch64;

/// C4.1.95 (loads and stores).
pub(super) fn load_store(insn: &mut Insn, word: u32) -> Option<()> {
    let vector = bits(word, 26, 26) != 0;
    match (bits(word, 29, 28), bits(word, 24, 23)) {
        (0b00, _) if vector => simd_aarch64::structures(insn, word),
        (0b00, 0b00 | 0b01) => exclusive(insn, word),
        // ldr (literal)
        (0b01, 0b00 | 0b01) => {
            let disp = insn.addr.wrapping_add_signed(signed(word, 23, 5) << 2).cast_signed();
            let addr = Address { disp, ..Address::default() };
            transfer(
                insn,
                word,
                vector,
                true,
                addr,
                [(4, false), (8, false), (4, true)].get(word as usize >> 30).copied(),
            )
        }
        (0b10, _) => pair(insn, word, vector),
        (0b11, 0b10 | 0b11) => {
            let (size, load, sign) = kind(word, vector)?;
            let scaled = i64::from(bits(word, 21, 10)) * i64::from(size);
            transfer(insn, word, vector, load, based(bits(word, 9, 5), scaled), Some((size, sign)))
        }
        (0b11, _) => {
            let (size, load, sign) = kind(word, vector)?;
            let rn = bits(word, 9, 5);
            let imm = signed(word, 20, 12);
            match (bits(word, 21, 21), bits(word, 11, 10)) {
                // unscaled
                (0, 0b00) => transfer(insn, word, vector, load, based(rn, imm), Some((size, sign))),
                // post- and pre-indexed
                (0, 0b01) => {
                    transfer(insn, word, vector, load, based(rn, 0), Some((size, sign)))?;
                    write_back(insn, rn, imm)
                }
                (0, 0b11) => {
                    transfer(insn, word, vector, load, based(rn, imm), Some((size, sign)))?;
                    write_back(insn, rn, imm)
                }
                // register offset
                (1, 0b10) => {
                    let whole = bits(word, 14, 13) == 0b11;
                    let addr = Address {
                        base: Some(gpr_sp(rn)),
                        index: gpr(bits(word, 20, 16)),
                        shift: if bits(word, 12, 12) != 0 { size.trailing_zeros() as u8 } else { 0 },
                        index_extended: !whole,
                        ..Address::default()
                    };
                    transfer(insn, word, vector, load, addr, Some((size, sign)))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Bytes, whether it loads, whether it sign-extends: `size` and `opc` of a load or store of one register.
fn kind(word: u32, vector: bool) -> Option<(u8, bool, bool)> {
    let (size, opc) = (bits(word, 31, 30), bits(word, 23, 22));
    if vector {
        return match (size, opc) {
            (_, 0b00 | 0b01) => Some((1 << size, opc == 1, false)),
            (0, 0b10 | 0b11) => Some((16, opc == 3, false)),
            _ => None,
        };
    }
    match (size, opc) {
        (_, 0b00) => Some((1 << size, false, false)),
        (_, 0b01) => Some((1 << size, true, false)),
        // prfm: no access that counts
        (3, 0b10) => Some((0, true, false)),
        (0..=2, 0b10) | (0..=1, 0b11) => Some((1 << size, true, true)),
        _ => None,
    }
}

/// A load or store of one register, `Rt`.
fn transfer(
    insn: &mut Insn,
    word: u32,
    vector: bool,
    load: bool,
    addr: Address,
    kind: Option<(u8, bool)>,
) -> Option<()> {
    let (size, sign) = kind?;
    let rt = bits(word, 4, 0);
    if size == 0 {
        insn.addresses(addr);
        return Some(());
    }
    if vector {
        let size = if bits(word, 29, 28) == 0b01 { 4 << (word >> 30) } else { size };
        return vector_unit(insn, rt as u8, load, addr, size);
    }
    insn.pure = true;
    match (load, gpr(rt)) {
        // `ldrsb w` clears the upper half, `ldrsb x` fills it: only the latter is modelled as signed.
        (true, Some(rt)) => {
            let narrow = sign && bits(word, 22, 22) != 0 && bits(word, 29, 28) == 0b11;
            insn.load(rt, if narrow { 4 } else { 8 }, addr, size, sign);
        }
        (true, None) => insn.reads_memory(addr, size),
        (false, rt) => insn.store(addr, size, operand(rt)),
    }
    Some(())
}

/// A load or store of one vector register of 1, 2, 4, 8 or 16 bytes; a load clears what it does not fill.
pub fn vector_unit(insn: &mut Insn, rt: u8, load: bool, addr: Address, size: u8) -> Option<()> {
    insn.pure = true;
    let (lo, hi) = (Reg::lo(rt), Reg::hi(rt));
    let upper = Address { disp: addr.disp.wrapping_add(8), ..addr };
    match (load, size) {
        (true, 16) => {
            insn.load(lo, 8, addr, 8, false);
            insn.load(hi, 8, upper, 8, false);
        }
        (true, 1 | 2 | 4 | 8) => {
            insn.load(lo, 8, addr, size, false);
            insn.set_imm(hi, 8, 0);
        }
        (false, 16) => {
            insn.store(addr, 8, Operand::Reg(lo));
            insn.store(upper, 8, Operand::Reg(hi));
        }
        (false, 1 | 2 | 4 | 8) => insn.store(addr, size, Operand::Reg(lo)),
        _ => return None,
    }
    Some(())
}

fn pair(insn: &mut Insn, word: u32, vector: bool) -> Option<()> {
    let opc = bits(word, 31, 30);
    let load = bits(word, 22, 22) != 0;
    let mode = bits(word, 24, 23);
    let (size, sign) = match (vector, opc) {
        (true, 0..=2) => (4u8 << opc, false),
        (false, 0) => (4, false),
        // ldpsw
        (false, 1) if load => (4, true),
        (false, 2) => (8, false),
        _ => return None,
    };
    let (rn, imm) = (bits(word, 9, 5), signed(word, 21, 15) * i64::from(size));
    let first = based(rn, if mode == 0b01 { 0 } else { imm });
    let second = Address { disp: first.disp + i64::from(size), ..first };
    for (rt, addr) in [(bits(word, 4, 0), first), (bits(word, 14, 10), second)] {
        if vector {
            vector_pair_unit(insn, rt as u8, load, addr, size)?;
            continue;
        }
        match (load, gpr(rt)) {
            (true, Some(rt)) => insn.load(rt, 8, addr, size, sign),
            (true, None) => insn.reads_memory(addr, size),
            (false, rt) => insn.store(addr, size, operand(rt)),
        }
    }
    insn.pure = true;
    if mode & 1 != 0 { write_back(insn, rn, imm) } else { Some(()) }
}

/// As [`vector_unit`], without modelling that a narrow load clears the upper half: two registers of it
/// would not fit one instruction's effects.
fn vector_pair_unit(insn: &mut Insn, rt: u8, load: bool, addr: Address, size: u8) -> Option<()> {
    if load && size < 16 {
        insn.load(Reg::lo(rt), 8, addr, size, false);
        insn.writes(Reg::hi(rt), 8);
        return Some(());
    }
    vector_unit(insn, rt, load, addr, size)
}

fn write_back(insn: &mut Insn, rn: u32, imm: i64) -> Option<()> {
    let base = gpr_sp(rn);
    insn.set(base, 8, Expr::Binary(Op::Add, Operand::Reg(base), Operand::Imm(imm.cast_unsigned())));
    Some(())
}

/// Exclusive and ordered accesses: ldxr, stxr, ldaxr, stlxr, ldxp, stxp, ldar, stlr.
fn exclusive(insn: &mut Insn, word: u32) -> Option<()> {
    let size = 1u8 << (word >> 30);
    let (ordered, load, two) = (bits(word, 23, 23), bits(word, 22, 22) != 0, bits(word, 21, 21) != 0);
    let addr = based(bits(word, 9, 5), 0);
    let rs = gpr(bits(word, 20, 16));
    let registers = [gpr(bits(word, 4, 0)), if two { gpr(bits(word, 14, 10)) } else { None }];
    // casp, cas: Armv8.1; the exclusive pair has 4 or 8 bytes each.
    if two && (ordered == 1 || size < 4) {
        return None;
    }
    let upper = Address { disp: i64::from(size), ..addr };
    for (index, addr) in [addr, upper].into_iter().take(1 + usize::from(two)).enumerate() {
        match (load, registers[index]) {
            (true, Some(rt)) => insn.load(rt, 8, addr, size, false),
            (true, None) => insn.reads_memory(addr, size),
            // A store-exclusive may fail: what was there may remain.
            (false, rt) => {
                if let Some(rt) = rt {
                    insn.uses(rt, size);
                }
                insn.writes_memory(addr, size);
                if ordered == 0 {
                    insn.reads_memory(addr, size);
                }
            }
        }
    }
    if !load
        && ordered == 0
        && let Some(rs) = rs
    {
        insn.writes(rs, 4);
    }
    Some(())
}
