//! A64: from instruction words to the model, by the encoding tables of the Arm ARM (DDI 0487, chapter C4).
//!
//! Words are decoded here, field by field; capstone must know each of them too, and the registers
//! it names as read or written must be among ours. So a slip in either description shows.
use super::aarch64_memory::load_store;
use super::insn::{Address, Decoder, Expr, Flow, Insn, NotModelled, Op, Operand, Reg, RegSet};
use super::simd_aarch64;
use capstone::prelude::*;

/// `sp` as an address or operand of `add`/`sub`.
pub const SP: u8 = 31;

/// The A64 decoder.
pub struct Aarch64 {
    capstone: Capstone,
    /// Units of a capstone register.
    names: Vec<RegSet>,
}

impl Aarch64 {
    /// A decoder.
    pub fn new() -> Result<Self, capstone::Error> {
        let capstone = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm).detail(true).build()?;
        let names = (0..512).map(|id| named(&capstone.reg_name(RegId(id)).unwrap_or_default())).collect();
        Ok(Self { capstone, names })
    }
}

/// The units of a register by its assembler name.
fn named(name: &str) -> RegSet {
    let mut set = RegSet::default();
    let (kind, number) = match name {
        "sp" | "wsp" => ("x", Ok(31)),
        "fp" => ("x", Ok(29)),
        "lr" => ("x", Ok(30)),
        _ if name.is_empty() => return set,
        _ => (&name[..1], name[1..].parse::<u8>()),
    };
    match (kind, number) {
        ("x" | "w", Ok(n @ 0..=31)) => set.add(Reg::gpr(n)),
        ("b" | "h" | "s" | "d", Ok(n @ 0..=31)) => set.add(Reg::lo(n)),
        ("q" | "v", Ok(n @ 0..=31)) => {
            set.add(Reg::lo(n));
        }
        _ => {}
    }
    set
}

impl Decoder for Aarch64 {
    fn decode(&self, code: &[u8], addr: u64) -> Result<Insn, NotModelled> {
        let Some(bytes) = code.first_chunk::<4>() else {
            return Err(NotModelled { addr, text: format!("{code:02x?}"), why: "the code ends in an instruction" });
        };
        let word = u32::from_le_bytes(*bytes);
        let fail = |why| NotModelled { addr, text: self.text(code, addr), why };
        let mut insn = Insn::new(addr, 4);
        let mut iter = self.capstone.disasm_iter(bytes, addr).map_err(|_| fail("capstone failed"))?;
        let raw = iter.next().ok_or_else(|| fail("capstone cannot decode it"))?;
        word_to_model(&mut insn, word, raw.mnemonic().unwrap_or("")).ok_or_else(|| fail("not modelled"))?;
        // System calls are refused or trusted, whatever they write.
        // `mrs` and `msr` have operands that capstone's binding cannot represent.
        if word >> 20 != 0xd53 && word >> 20 != 0xd51 && insn.flow != Flow::SystemCall {
            self.agree(&insn, &raw).map_err(fail)?;
        }
        Ok(insn)
    }

    fn flow(&self, code: &[u8], addr: u64) -> Result<(u8, Flow), NotModelled> {
        let fail = |why| NotModelled { addr, text: self.text(code, addr), why };
        let bytes = code.first_chunk::<4>().ok_or_else(|| fail("the code ends in an instruction"))?;
        let word = u32::from_le_bytes(*bytes);
        let mut iter = self.capstone.disasm_iter(bytes, addr).map_err(|_| fail("capstone failed"))?;
        iter.next().ok_or_else(|| fail("capstone cannot decode it"))?;
        let mut insn = Insn::new(addr, 4);
        if matches!(bits(word, 28, 25), 0b1010 | 0b1011) {
            branch(&mut insn, word).ok_or_else(|| fail("not modelled"))?;
        }
        Ok((4, insn.flow))
    }

    fn text(&self, code: &[u8], addr: u64) -> String {
        let code = &code[..code.len().min(4)];
        let Ok(mut iter) = self.capstone.disasm_iter(code, addr) else { return String::new() };
        match iter.next() {
            Some(raw) => format!("{} {}", raw.mnemonic().unwrap_or(""), raw.op_str().unwrap_or("")).trim().to_owned(),
            None => format!("{code:02x?}"),
        }
    }
}

impl Aarch64 {
    fn agree(&self, insn: &Insn, raw: &capstone::Insn<'_>) -> Result<(), &'static str> {
        let detail = self.capstone.insn_detail(raw).map_err(|_| "capstone has no detail")?;
        let reads = |set: RegSet| set.iter().all(|reg| insn.reads.extent(reg) > 0);
        // capstone 5 calls the first operand of these written: it is the destination of `subs`, `adds`
        // and `ands`, whose aliases they are, and there it is the zero register.
        let compares = matches!(raw.mnemonic(), Some("cmp" | "cmn" | "tst" | "ccmp" | "ccmn"));
        // So it does with the registers that `st1` to `st4` store.
        let stores = raw.mnemonic().is_some_and(|m| matches!(m, "st1" | "st2" | "st3" | "st4"));
        for id in detail.regs_write().iter().filter(|_| !compares && !stores) {
            let set = self.names.get(usize::from(id.0)).copied().unwrap_or_default();
            if set.0 & !insn.clobbers.0 != 0 && !matches!(insn.flow, Flow::Call(_)) {
                return Err("capstone names a written register that the model does not");
            }
        }
        for id in detail.regs_read() {
            let set = self.names.get(usize::from(id.0)).copied().unwrap_or_default();
            // capstone calls some registers read that are only written: those the model must write.
            if !reads(set) && set.0 & !insn.clobbers.0 != 0 && !matches!(insn.flow, Flow::Call(_)) {
                return Err("capstone names a read register that the model does not");
            }
        }
        Ok(())
    }
}

/// Bits `lo..=hi` of a word.
pub fn bits(word: u32, hi: u32, lo: u32) -> u32 {
    word >> lo & ((1u64 << (hi - lo + 1)) - 1) as u32
}

/// Bits `lo..=hi` of a word, sign-extended.
pub fn signed(word: u32, hi: u32, lo: u32) -> i64 {
    let width = hi - lo + 1;
    i64::from(bits(word, hi, lo)) << (64 - width) >> (64 - width)
}

/// The register in a field, `None` for the zero register.
pub(super) fn gpr(field: u32) -> Option<Reg> {
    (field != 31).then_some(Reg::gpr(field as u8))
}

/// The register in a field where 31 is `sp`.
pub(super) fn gpr_sp(field: u32) -> Reg {
    Reg::gpr(field as u8)
}

/// A base register with a displacement.
pub fn based(base: u32, disp: i64) -> Address {
    Address { base: Some(gpr_sp(base)), disp, ..Address::default() }
}

pub(super) fn operand(reg: Option<Reg>) -> Operand {
    reg.map_or(Operand::Imm(0), Operand::Reg)
}

fn word_to_model(insn: &mut Insn, word: u32, mnemonic: &str) -> Option<()> {
    match bits(word, 28, 25) {
        0b1000 | 0b1001 => immediate(insn, word),
        0b1010 | 0b1011 => branch(insn, word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => load_store(insn, word),
        0b0101 | 0b1101 => register(insn, word),
        0b0111 | 0b1111 => simd_aarch64::data_processing(insn, word, mnemonic),
        // `udf`
        0 if word >> 16 == 0 => {
            insn.flow = Flow::Trap;
            Some(())
        }
        _ => None,
    }
}

/// C4.1.93 (data processing -- immediate).
fn immediate(insn: &mut Insn, word: u32) -> Option<()> {
    let size = if word >> 31 != 0 { 8 } else { 4 };
    let (rd, rn) = (bits(word, 4, 0), bits(word, 9, 5));
    match bits(word, 25, 23) {
        // adr, adrp
        0b000 | 0b001 => {
            let imm = (signed(word, 23, 5) << 2) | i64::from(bits(word, 30, 29));
            let value = if word >> 31 != 0 {
                (insn.addr & !0xfff).wrapping_add_signed(imm << 12)
            } else {
                insn.addr.wrapping_add_signed(imm)
            };
            insn.pure = true;
            if let Some(rd) = gpr(rd) {
                insn.set_imm(rd, 8, value);
            }
        }
        // add, sub (immediate)
        0b010 => {
            let imm = u64::from(bits(word, 21, 10)) << (12 * bits(word, 22, 22));
            let op = if bits(word, 30, 30) != 0 { Op::Sub } else { Op::Add };
            let flags = bits(word, 29, 29) != 0;
            insn.pure = !flags;
            let dst = if flags { gpr(rd) } else { Some(gpr_sp(rd)) };
            match dst {
                Some(rd) => {
                    insn.set(rd, size, Expr::Binary(op, Operand::Reg(gpr_sp(rn)), Operand::Imm(imm)));
                }
                None => insn.uses(gpr_sp(rn), size),
            }
        }
        // and, orr, eor, ands (immediate)
        0b100 => {
            let imm = bitmask(word)?;
            let (op, flags) = match bits(word, 30, 29) {
                0 => (Op::And, false),
                1 => (Op::Or, false),
                2 => (Op::Xor, false),
                _ => (Op::And, true),
            };
            insn.pure = !flags;
            let dst = if flags { gpr(rd) } else { Some(gpr_sp(rd)) };
            match dst {
                Some(rd) => insn.set(rd, size, Expr::Binary(op, operand(gpr(rn)), Operand::Imm(imm))),
                None => {
                    if let Some(rn) = gpr(rn) {
                        insn.uses(rn, size);
                    }
                }
            }
        }
        // movn, movz, movk
        0b101 => {
            let shift = 16 * bits(word, 22, 21);
            let imm = u64::from(bits(word, 20, 5)) << shift;
            let rd = gpr(rd)?;
            insn.pure = true;
            match bits(word, 30, 29) {
                0 => insn.set_imm(rd, size, if size == 8 { !imm } else { u64::from(!(imm as u32)) }),
                2 => insn.set_imm(rd, size, imm),
                3 => {
                    insn.set(rd, size, Expr::Insert { src: rd, mask: 0xffff << shift, bits: imm });
                }
                _ => return None,
            }
        }
        // sbfm, bfm, ubfm
        0b110 => bitfield(insn, word, size)?,
        // extr
        0b111 => {
            for reg in [gpr(rn), gpr(bits(word, 20, 16))].into_iter().flatten() {
                insn.uses(reg, size);
            }
            insn.writes(gpr(rd)?, size);
        }
        _ => return None,
    }
    Some(())
}

fn bitfield(insn: &mut Insn, word: u32, size: u8) -> Option<()> {
    let (rd, rn) = (gpr(bits(word, 4, 0))?, gpr(bits(word, 9, 5)));
    let (immr, imms) = (bits(word, 21, 16), bits(word, 15, 10));
    let width = u32::from(size) * 8;
    let opc = bits(word, 30, 29);
    insn.pure = true;
    let Some(rn) = rn else {
        // bfc, or a shift of zero
        if opc == 1 {
            insn.changes(rd)
        } else {
            insn.writes(rd, size)
        }
        return Some(());
    };
    match (opc, immr, imms) {
        // sxtb, sxth, sxtw; uxtb, uxth
        (0 | 2, 0, 7 | 15 | 31) if opc == 0 && size == 8 || opc == 2 => {
            let from = ((imms + 1) / 8) as u8;
            insn.set(rd, size, Expr::Extend { src: Operand::Reg(rn), from, signed: opc == 0 });
        }
        // lsl
        (2, _, _) if imms + 1 == immr && imms + 1 < width => {
            insn.set(rd, size, Expr::Binary(Op::Shl, Operand::Reg(rn), Operand::Imm(u64::from(width - 1 - imms))));
        }
        // lsr
        (2, _, _) if imms == width - 1 => {
            insn.set(rd, size, Expr::Binary(Op::Shr, Operand::Reg(rn), Operand::Imm(u64::from(immr))));
        }
        // bfm leaves the other bits; its source's bits are imms..
        (1, _, _) => {
            insn.uses(rn, size);
            insn.changes(rd);
        }
        (0 | 2, _, _) => {
            insn.uses(rn, size);
            insn.writes(rd, size);
        }
        _ => return None,
    }
    Some(())
}

/// The immediate of a logical instruction: `DecodeBitMasks` of the Arm ARM.
fn bitmask(word: u32) -> Option<u64> {
    let (n, immr, imms) = (bits(word, 22, 22), bits(word, 21, 16), bits(word, 15, 10));
    let is64 = word >> 31 != 0;
    let len = (n << 6 | (!imms & 0x3f)).checked_ilog2()?;
    if len < 1 || !is64 && n != 0 {
        return None;
    }
    let size = 1u32 << len;
    let levels = size - 1;
    let (s, r) = (imms & levels, immr & levels);
    if s == levels {
        return None;
    }
    let element = u64::MAX >> (63 - s);
    let rotated = match r {
        0 => element,
        _ => (element >> r | element << (size - r)) & (u64::MAX >> (64 - size)),
    };
    let mut value = 0;
    for at in (0..64).step_by(size as usize) {
        value |= rotated << at;
    }
    Some(if is64 { value } else { value & 0xffff_ffff })
}

/// C4.1.94 (branches, exceptions, system instructions).
fn branch(insn: &mut Insn, word: u32) -> Option<()> {
    let target = |offset: i64| insn.addr.wrapping_add_signed(offset << 2);
    if bits(word, 30, 26) == 0b00101 {
        let target = target(signed(word, 25, 0));
        if word >> 31 != 0 {
            insn.flow = Flow::Call(Some(target));
            insn.clobbers.add(Reg::gpr(30));
        } else {
            insn.flow = Flow::Jump(target);
        }
        return Some(());
    }
    match word >> 24 {
        // b.cond; 14 and 15 are "always"
        0x54 if bits(word, 4, 4) == 0 => {
            let to = target(signed(word, 23, 5));
            insn.flow = if bits(word, 3, 1) == 7 { Flow::Jump(to) } else { Flow::Branch(to) };
        }
        // cbz, cbnz
        0x34 | 0x35 | 0xb4 | 0xb5 => {
            insn.flow = Flow::Branch(target(signed(word, 23, 5)));
            if let Some(rt) = gpr(bits(word, 4, 0)) {
                insn.uses(rt, if word >> 31 != 0 { 8 } else { 4 });
            }
        }
        // tbz, tbnz
        0x36 | 0x37 | 0xb6 | 0xb7 => {
            insn.flow = Flow::Branch(target(signed(word, 18, 5)));
            if let Some(rt) = gpr(bits(word, 4, 0)) {
                let bit = bits(word, 31, 31) << 5 | bits(word, 23, 19);
                insn.uses(rt, (bit / 8 + 1) as u8);
            }
        }
        0xd4 => match (bits(word, 23, 21), bits(word, 4, 0)) {
            (0, 1) => {
                insn.flow = Flow::SystemCall;
                insn.writes(Reg::gpr(0), 8);
            }
            (1, 0) => insn.flow = Flow::Trap,
            _ => return None,
        },
        0xd5 => return system(insn, word),
        // br, blr, ret without pointer authentication
        0xd6 if word & 0xff9f_fc1f == 0xd61f_0000 || word & 0xffff_fc1f == 0xd65f_0000 => {
            let rn = gpr(bits(word, 9, 5))?;
            insn.uses(rn, 8);
            insn.flow = match bits(word, 22, 21) {
                0 => Flow::IndirectJump,
                1 => {
                    insn.clobbers.add(Reg::gpr(30));
                    Flow::Call(None)
                }
                // Only through the link register is it a return.
                _ if rn == Reg::gpr(30) => Flow::Return,
                _ => return None,
            };
        }
        _ => return None,
    }
    Some(())
}

fn system(insn: &mut Insn, word: u32) -> Option<()> {
    // hints (nop, yield, bti, ...) but those that authenticate pointers; barriers
    let hint = word & 0xffff_f01f == 0xd503_201f;
    if hint {
        let number = bits(word, 11, 5);
        let plain = matches!(number, 0..=6 | 20 | 32 | 34 | 36 | 38);
        insn.pure = true;
        return plain.then_some(());
    }
    if word & 0xffff_f000 == 0xd503_3000 {
        return Some(());
    }
    let rt = gpr(bits(word, 4, 0));
    match word & 0xffff_ffe0 {
        // mrs xt, tpidr_el0
        0xd53b_d040 => {
            insn.pure = true;
            insn.set(rt?, 8, Expr::ThreadPointer);
        }
        // mrs xt, nzcv | fpcr | fpsr | dczid_el0 | ctr_el0 | cntvct_el0
        0xd53b_4200 | 0xd53b_4400 | 0xd53b_4420 | 0xd53b_00e0 | 0xd53b_0020 | 0xd53b_e040 => insn.writes(rt?, 8),
        // msr nzcv | fpcr | fpsr, xt
        0xd51b_4200 | 0xd51b_4400 | 0xd51b_4420 => {
            if let Some(rt) = rt {
                insn.uses(rt, 8);
            }
        }
        _ => return None,
    }
    Some(())
}

/// C4.1.96 (data processing -- register).
fn register(insn: &mut Insn, word: u32) -> Option<()> {
    let size = if word >> 31 != 0 { 8 } else { 4 };
    let (rd, rn, rm) = (gpr(bits(word, 4, 0)), gpr(bits(word, 9, 5)), gpr(bits(word, 20, 16)));
    let uses = |insn: &mut Insn, regs: &[Option<Reg>]| {
        regs.iter().flatten().for_each(|reg| insn.uses(*reg, size));
    };
    let writes = |insn: &mut Insn| {
        if let Some(rd) = rd {
            insn.writes(rd, size);
        }
    };
    match (bits(word, 28, 28), bits(word, 24, 21)) {
        // logical (shifted register); `orr rd, xzr, rm` is `mov`
        (0, 0b0000..=0b0111) => {
            let (opc, negate, shift) = (bits(word, 30, 29), bits(word, 21, 21), bits(word, 15, 10));
            insn.pure = opc != 3;
            let plain = negate == 0 && shift == 0 && opc != 3;
            match rd {
                Some(rd) if plain && (rn.is_some() || opc == 1) => {
                    let op = [Op::And, Op::Or, Op::Xor][opc as usize];
                    insn.set(rd, size, Expr::Binary(op, operand(rn), operand(rm)));
                }
                // mvn rd, xzr
                Some(rd) if opc == 1 && negate == 1 && rn.is_none() && rm.is_none() => {
                    insn.set_imm(rd, size, if size == 8 { u64::MAX } else { 0xffff_ffff });
                }
                _ => {
                    uses(insn, &[rn, rm]);
                    writes(insn);
                }
            }
        }
        // add, sub (shifted register)
        (0, 0b1000 | 0b1010 | 0b1100 | 0b1110) => {
            let flags = bits(word, 29, 29) != 0;
            insn.pure = !flags;
            let op = if bits(word, 30, 30) != 0 { Op::Sub } else { Op::Add };
            match rd {
                Some(rd) if bits(word, 15, 10) == 0 => {
                    insn.set(rd, size, Expr::Binary(op, operand(rn), operand(rm)));
                }
                _ => {
                    uses(insn, &[rn, rm]);
                    writes(insn);
                }
            }
        }
        // add, sub (extended register): rn and, without flags, rd may be sp
        (0, 0b1001 | 0b1011 | 0b1101 | 0b1111) => {
            let flags = bits(word, 29, 29) != 0;
            let rn = gpr_sp(bits(word, 9, 5));
            let rd = if flags { rd } else { Some(gpr_sp(bits(word, 4, 0))) };
            insn.pure = !flags;
            let op = if bits(word, 30, 30) != 0 { Op::Sub } else { Op::Add };
            let whole = size == 8 && bits(word, 15, 13) & 3 == 3 && bits(word, 12, 10) == 0;
            match rd {
                Some(rd) if whole => insn.set(rd, size, Expr::Binary(op, Operand::Reg(rn), operand(rm))),
                _ => {
                    insn.uses(rn, size);
                    uses(insn, &[rm]);
                    if let Some(rd) = rd {
                        insn.writes(rd, size);
                    }
                }
            }
        }
        // adc, sbc; csel, csinc, csinv, csneg; two sources (udiv, lslv, crc32, ...)
        (1, 0b0000) if bits(word, 15, 10) == 0 => {
            uses(insn, &[rn, rm]);
            writes(insn);
        }
        // csel
        (1, 0b0100) if bits(word, 30, 29) == 0 && bits(word, 11, 10) == 0 && rd.is_some() => {
            insn.pure = true;
            insn.set(rd?, size, Expr::Either(operand(rn), operand(rm)));
        }
        // cset: csinc rd, xzr, xzr
        (1, 0b0100) if bits(word, 30, 29) == 0 && bits(word, 11, 10) == 1 && rn.or(rm).is_none() && rd.is_some() => {
            insn.pure = true;
            insn.set(rd?, size, Expr::Either(Operand::Imm(0), Operand::Imm(1)));
        }
        (1, 0b0100) | (1, 0b0110) if bits(word, 30, 30) == 0 || bits(word, 24, 21) == 0b0100 => {
            uses(insn, &[rn, rm]);
            writes(insn);
        }
        // one source (rbit, rev, clz, cls)
        (1, 0b0110) if bits(word, 20, 16) == 0 => {
            uses(insn, &[rn]);
            writes(insn);
        }
        // ccmp, ccmn
        (1, 0b0010) => {
            uses(insn, &[rn]);
            if bits(word, 11, 11) == 0 {
                uses(insn, &[rm]);
            }
        }
        // madd, msub, smaddl, umulh, ...
        (1, 0b1000..=0b1111) => {
            uses(insn, &[rn, rm, gpr(bits(word, 14, 10))]);
            writes(insn);
        }
        _ => return None,
    }
    Some(())
}
