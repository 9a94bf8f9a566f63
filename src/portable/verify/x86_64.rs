//! x86_64: from capstone's operands to the model, by the mnemonics that portable code consists of.
//!
//! Capstone decodes; what an instruction reads, writes and copies comes from the table here, by
//! mnemonic. A mnemonic that is not in it is not modelled. Registers that capstone names as read or
//! written must be among ours, so a slip in either description shows.
use super::insn::{Address, Decoder, Expr, Flow, Insn, NotModelled, Op, Operand, Parts, Reg, UNBOUNDED};
use super::simd_x86_64;
use capstone::arch::x86::{X86Operand, X86OperandType};
use capstone::prelude::*;

const RAX: Reg = Reg::gpr(0);
const RDX: Reg = Reg::gpr(1);
const RCX: Reg = Reg::gpr(2);
const RSI: Reg = Reg::gpr(4);
const RDI: Reg = Reg::gpr(5);
const RBP: Reg = Reg::gpr(6);
/// DWARF's number of the return address.
const RIP: Reg = Reg::gpr(16);
/// The stack pointer.
pub const RSP: Reg = Reg::gpr(7);

/// What a register name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The low bytes of a general register.
    Low(Reg, u8),
    /// Bits 8..16 of a general register.
    SecondByte(Reg),
    /// An `xmm` register.
    Vector(u8),
    /// The instruction pointer.
    Rip,
    /// `fs`
    Fs,
    /// Flags, `mxcsr`: not followed.
    Flags,
    /// Anything else.
    Other,
}

/// The x86_64 decoder.
pub struct X86_64 {
    capstone: Capstone,
    names: Vec<Name>,
}

impl X86_64 {
    /// A decoder.
    pub fn new() -> Result<Self, capstone::Error> {
        let capstone = Capstone::new().x86().mode(arch::x86::ArchMode::Mode64).detail(true).build()?;
        let names = (0..300).map(|id| named(&capstone.reg_name(RegId(id)).unwrap_or_default())).collect();
        Ok(Self { capstone, names })
    }

    fn name(&self, id: RegId) -> Name {
        self.names.get(usize::from(id.0)).copied().unwrap_or(Name::Other)
    }
}

/// A register by its assembler name; numbers are DWARF's.
fn named(name: &str) -> Name {
    const QUADS: [&str; 8] = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"];
    match name {
        "rip" => return Name::Rip,
        "fs" => return Name::Fs,
        "rflags" | "eflags" | "mxcsr" | "fpsw" | "fpcw" => return Name::Flags,
        _ => {}
    }
    if let Some(n) = name.strip_prefix("xmm").and_then(|n| n.parse().ok()) {
        return if n < 16 { Name::Vector(n) } else { Name::Other };
    }
    for (n, quad) in QUADS.iter().enumerate() {
        let reg = Reg::gpr(n as u8);
        let word = &quad[1..];
        if name == *quad {
            return Name::Low(reg, 8);
        }
        if name == word {
            return Name::Low(reg, 2);
        }
        if name.strip_prefix('e') == Some(word) {
            return Name::Low(reg, 4);
        }
        // al, bl; sil, dil, bpl, spl
        if name == format!("{}l", word.trim_end_matches('x')) {
            return Name::Low(reg, 1);
        }
        if word.ends_with('x') && name == format!("{}h", word.trim_end_matches('x')) {
            return Name::SecondByte(reg);
        }
    }
    if let Some(rest) = name.strip_prefix('r') {
        let digits = rest.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let bytes = match &rest[digits.len()..] {
            "" => 8,
            "d" => 4,
            "w" => 2,
            "b" => 1,
            _ => return Name::Other,
        };
        if let Ok(n @ 8..=15) = digits.parse() {
            return Name::Low(Reg::gpr(n), bytes);
        }
    }
    Name::Other
}

/// An operand, in the model's terms.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A general register.
    Reg(Reg, u8),
    /// `ah`, `bh`, `ch`, `dh`
    SecondByte(Reg),
    /// An `xmm` register.
    Vector(u8),
    /// A number, sign-extended.
    Imm(u64),
    /// Memory and its size in bytes.
    Mem(Address, u8),
}

impl Decoder for X86_64 {
    fn decode(&self, code: &[u8], addr: u64) -> Result<Insn, NotModelled> {
        let fail = |why| NotModelled { addr, text: self.text(code, addr), why };
        let mut iter =
            self.capstone.disasm_iter(&code[..code.len().min(15)], addr).map_err(|_| fail("capstone failed"))?;
        let raw = iter.next().ok_or_else(|| fail("capstone cannot decode it"))?;
        let detail = self.capstone.insn_detail(&raw).map_err(|_| fail("capstone has no detail"))?;
        let arch = detail.arch_detail();
        let arch = arch.x86().ok_or_else(|| fail("capstone has no detail"))?;
        let mut insn = Insn::new(addr, raw.len() as u8);
        let mut args = [None; 4];
        let mut count = 0;
        for (slot, operand) in args.iter_mut().zip(arch.operands()) {
            *slot = Some(self.arg(&operand, &insn).ok_or_else(|| fail("an operand of a kind that is not modelled"))?);
            count += 1;
        }
        let mnemonic = raw.mnemonic().unwrap_or("");
        if arch.addr_size() != 8 && !mnemonic.starts_with("lea") {
            return Err(fail("32-bit addressing"));
        }
        let args: Vec<Arg> = args[..count].iter().flatten().copied().collect();
        model(&mut insn, mnemonic, &args).ok_or_else(|| fail("not modelled"))?;
        // The operand of a long nop is no operand.
        if mnemonic == "nop" {
            return Ok(insn);
        }
        // capstone 5 calls the first operand of `test` with a number written.
        // So it does with the source of `cdq` and its like.
        let compares = matches!(mnemonic, "cmp" | "test" | "bt" | "cdq" | "cqo" | "cwd");
        for (ids, written) in [(detail.regs_read(), false), (detail.regs_write(), true)] {
            for id in ids.iter().filter(|_| !(written && compares)) {
                self.agree(&insn, self.name(*id), written).map_err(fail)?;
            }
        }
        Ok(insn)
    }

    fn flow(&self, code: &[u8], addr: u64) -> Result<(u8, Flow), NotModelled> {
        let fail = |why| NotModelled { addr, text: self.text(code, addr), why };
        let mut iter =
            self.capstone.disasm_iter(&code[..code.len().min(15)], addr).map_err(|_| fail("capstone failed"))?;
        let raw = iter.next().ok_or_else(|| fail("capstone cannot decode it"))?;
        let len = raw.len() as u8;
        let detail = self.capstone.insn_detail(&raw).map_err(|_| fail("capstone has no detail"))?;
        // Groups are the disassembler's own: jump 1, call 2, return 3, interrupt 4, return from interrupt 5.
        let controls = detail.groups().iter().any(|group| (1..=5).contains(&group.0));
        let mnemonic = raw.mnemonic().unwrap_or("").trim_start_matches("bnd ").trim_start_matches("notrack ");
        if !controls && !matches!(mnemonic, "syscall" | "sysenter" | "ud2") {
            return Ok((len, Flow::Next));
        }
        let arch = detail.arch_detail();
        let arch = arch.x86().ok_or_else(|| fail("capstone has no detail"))?;
        let mut insn = Insn::new(addr, len);
        let args: Option<Vec<Arg>> = arch.operands().map(|operand| self.arg(&operand, &insn)).collect();
        let args = args.ok_or_else(|| fail("an operand of a kind that is not modelled"))?;
        match flow(&mut insn, mnemonic, &args) {
            Some(true) => Ok((len, insn.flow)),
            _ => Err(fail("not modelled")),
        }
    }

    fn text(&self, code: &[u8], addr: u64) -> String {
        let code = &code[..code.len().min(15)];
        let Ok(mut iter) = self.capstone.disasm_iter(code, addr) else { return String::new() };
        match iter.next() {
            Some(raw) => format!("{} {}", raw.mnemonic().unwrap_or(""), raw.op_str().unwrap_or("")).trim().to_owned(),
            None => format!("{code:02x?}"),
        }
    }
}

impl X86_64 {
    fn arg(&self, operand: &X86Operand, insn: &Insn) -> Option<Arg> {
        Some(match &operand.op_type {
            X86OperandType::Reg(id) => match self.name(*id) {
                Name::Low(reg, bytes) => Arg::Reg(reg, bytes),
                Name::SecondByte(reg) => Arg::SecondByte(reg),
                Name::Vector(n) => Arg::Vector(n),
                _ => return None,
            },
            X86OperandType::Imm(value) => Arg::Imm(value.cast_unsigned()),
            X86OperandType::Mem(mem) => {
                let mut addr = Address { disp: mem.disp(), ..Address::default() };
                match self.name(mem.segment()) {
                    Name::Fs => addr.thread = true,
                    _ if mem.segment() == RegId::INVALID_REG => {}
                    // `cs`, `ds`, `es`, `ss` have base 0; string instructions name them.
                    _ if self.capstone.reg_name(mem.segment()).is_some_and(|n| n != "gs") => {}
                    _ => return None,
                }
                if mem.base() != RegId::INVALID_REG {
                    match self.name(mem.base()) {
                        Name::Rip => addr.disp = insn.end().cast_signed().wrapping_add(addr.disp),
                        Name::Low(reg, 8) => addr.base = Some(reg),
                        _ => return None,
                    }
                }
                if mem.index() != RegId::INVALID_REG
                    && self.capstone.reg_name(mem.index()).is_none_or(|n| n != "riz" && n != "eiz")
                {
                    let Name::Low(reg, 8) = self.name(mem.index()) else { return None };
                    addr.index = Some(reg);
                    addr.shift = u8::try_from(mem.scale()).ok()?.trailing_zeros() as u8;
                }
                Arg::Mem(addr, operand.size)
            }
            X86OperandType::Invalid => return None,
        })
    }

    fn agree(&self, insn: &Insn, name: Name, written: bool) -> Result<(), &'static str> {
        let reg = match name {
            Name::Low(reg, _) | Name::SecondByte(reg) if written || reg != RSP => reg,
            _ => return Ok(()),
        };
        if matches!(insn.flow, Flow::Call(_) | Flow::SystemCall | Flow::Return) {
            return Ok(());
        }
        if written && !insn.clobbers.has(reg) {
            return Err("capstone names a written register that the model does not");
        }
        if !written && insn.reads.extent(reg) == 0 && !insn.clobbers.has(reg) {
            return Err("capstone names a read register that the model does not");
        }
        Ok(())
    }
}

/// Bytes of an operand.
pub fn width(arg: &Arg) -> u8 {
    match arg {
        Arg::Reg(_, bytes) | Arg::Mem(_, bytes) => *bytes,
        Arg::SecondByte(_) => 1,
        Arg::Vector(_) => 16,
        Arg::Imm(_) => 8,
    }
}

/// An operand is read by a computation that is not modelled.
pub fn read(insn: &mut Insn, arg: &Arg) {
    match *arg {
        Arg::Reg(reg, bytes) => insn.uses(reg, bytes),
        Arg::SecondByte(reg) => {
            insn.uses_parts(reg, Parts::second_byte(reg));
        }
        Arg::Vector(n) => {
            insn.uses(Reg::lo(n), 8);
            insn.uses(Reg::hi(n), 8);
        }
        Arg::Imm(_) => {}
        Arg::Mem(addr, size) => insn.reads_memory(addr, size),
    }
}

/// An operand is overwritten by a computation that is not modelled.
pub fn write(insn: &mut Insn, arg: &Arg) -> Option<()> {
    match *arg {
        Arg::Reg(reg, bytes) => insn.writes(reg, bytes),
        Arg::SecondByte(reg) => {
            insn.kills |= Parts::second_byte(reg);
            insn.clobbers.add(reg);
        }
        Arg::Vector(n) => {
            insn.writes(Reg::lo(n), 8);
            insn.writes(Reg::hi(n), 8);
        }
        Arg::Imm(_) => return None,
        Arg::Mem(addr, size) => insn.writes_memory(addr, size),
    }
    Some(())
}

fn change(insn: &mut Insn, arg: &Arg) -> Option<()> {
    read(insn, arg);
    write(insn, arg)
}

fn operand(arg: &Arg) -> Option<(Operand, u8)> {
    match *arg {
        Arg::Reg(reg, bytes) => Some((Operand::Reg(reg), bytes)),
        Arg::Imm(value) => Some((Operand::Imm(value), 8)),
        _ => None,
    }
}

fn model(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<()> {
    let mnemonic = mnemonic.strip_prefix("lock ").unwrap_or(mnemonic);
    if let Some(string) = mnemonic.strip_prefix("rep ").or_else(|| mnemonic.strip_prefix("repne ")) {
        return string_instruction(insn, string, true);
    }
    if flow(insn, mnemonic, args)? {
        return Some(());
    }
    if moves(insn, mnemonic, args)? || arithmetic(insn, mnemonic, args)? {
        return Some(());
    }
    if args.is_empty() && string_instruction(insn, mnemonic, false).is_some() {
        return Some(());
    }
    if matches!(mnemonic, "movsb" | "movsw" | "movsq" | "stosb" | "stosw" | "stosd" | "stosq") {
        return string_instruction(insn, mnemonic, false);
    }
    simd_x86_64::model(insn, mnemonic, args)
}

/// Control flow, and what does nothing.
fn flow(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<bool> {
    let target = match args {
        [Arg::Imm(target)] => Some(*target),
        _ => None,
    };
    insn.flow = match mnemonic {
        "jmp" => match target {
            Some(target) => Flow::Jump(target),
            None => {
                read(insn, args.first()?);
                Flow::IndirectJump
            }
        },
        "call" => {
            if target.is_none() {
                read(insn, args.first()?);
            }
            Flow::Call(target)
        }
        "ret" if args.is_empty() => {
            // The return address goes through a pseudo-register, as it does on aarch64 through `x30`.
            insn.load(RIP, 8, Address { base: Some(RSP), ..Address::default() }, 8, false);
            insn.set(RSP, 8, Expr::Binary(Op::Add, Operand::Reg(RSP), Operand::Imm(8)));
            Flow::Return
        }
        "ud2" | "int3" => Flow::Trap,
        "syscall" | "sysenter" | "int" => Flow::SystemCall,
        "nop" | "endbr64" | "pause" | "mfence" | "lfence" | "sfence" => {
            insn.pure = true;
            return Some(true);
        }
        // No access that counts, but the address is computed.
        _ if mnemonic.starts_with("prefetch") => {
            if let [Arg::Mem(addr, _)] = args {
                insn.addresses(*addr);
            }
            return Some(true);
        }
        _ if mnemonic.starts_with('j') && mnemonic != "jrcxz" && mnemonic != "jecxz" => Flow::Branch(target?),
        _ => return Some(false),
    };
    Some(true)
}

/// Instructions that only copy.
fn moves(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<bool> {
    insn.pure = true;
    match (mnemonic, args) {
        ("mov" | "movabs", [dst, src]) => match (*dst, *src) {
            (Arg::Reg(dst, bytes), Arg::Reg(src, _)) => insn.copy(dst, bytes, src),
            (Arg::Reg(dst, bytes), Arg::Imm(value)) => insn.set_imm(dst, bytes, value),
            (Arg::Reg(dst, 8), Arg::Mem(Address { base: None, index: None, disp: 0, thread: true, .. }, 8)) => {
                // The word at the thread pointer points to itself (ELF TLS, variant II).
                insn.set(dst, 8, Expr::ThreadPointer);
            }
            (Arg::Reg(dst, bytes), Arg::Mem(addr, size)) => insn.load(dst, bytes, addr, size, false),
            (Arg::Mem(addr, size), src) => match operand(&src) {
                Some((src, _)) => insn.store(addr, size, src),
                None => {
                    read(insn, &src);
                    insn.writes_memory(addr, size);
                }
            },
            (dst, src) => {
                read(insn, &src);
                write(insn, &dst)?;
            }
        },
        ("movzx" | "movsx" | "movsxd", [Arg::Reg(dst, bytes), src]) => {
            let signed = mnemonic != "movzx";
            match *src {
                Arg::Reg(src, from) => {
                    insn.set(*dst, *bytes, Expr::Extend { src: Operand::Reg(src), from, signed });
                }
                Arg::Mem(addr, size) => insn.load(*dst, *bytes, addr, size, signed),
                _ => {
                    read(insn, src);
                    insn.writes(*dst, *bytes);
                }
            }
        }
        ("lea", [Arg::Reg(dst, bytes), Arg::Mem(addr, _)]) => insn.set(*dst, *bytes, Expr::Address(*addr)),
        ("push", [src]) => {
            let top = Address { base: Some(RSP), disp: -8, ..Address::default() };
            match operand(src) {
                Some((src, 8)) => insn.store(top, 8, src),
                None if width(src) == 8 => {
                    read(insn, src);
                    insn.writes_memory(top, 8);
                }
                _ => return None,
            }
            insn.set(RSP, 8, Expr::Binary(Op::Sub, Operand::Reg(RSP), Operand::Imm(8)));
        }
        ("pop", [Arg::Reg(dst, 8)]) if *dst != RSP => {
            insn.load(*dst, 8, Address { base: Some(RSP), ..Address::default() }, 8, false);
            insn.set(RSP, 8, Expr::Binary(Op::Add, Operand::Reg(RSP), Operand::Imm(8)));
        }
        ("leave", []) => {
            insn.load(RBP, 8, Address { base: Some(RBP), ..Address::default() }, 8, false);
            insn.set(RSP, 8, Expr::Binary(Op::Add, Operand::Reg(RBP), Operand::Imm(8)));
        }
        ("cdqe", _) => insn.set(RAX, 8, Expr::Extend { src: Operand::Reg(RAX), from: 4, signed: true }),
        ("cwde", _) => insn.set(RAX, 4, Expr::Extend { src: Operand::Reg(RAX), from: 2, signed: true }),
        ("cbw", _) => insn.set(RAX, 2, Expr::Extend { src: Operand::Reg(RAX), from: 1, signed: true }),
        _ => {
            insn.pure = false;
            return Some(false);
        }
    }
    Some(true)
}

/// Instructions on general registers that compute.
fn arithmetic(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<bool> {
    let op = match mnemonic {
        "add" | "inc" => Some(Op::Add),
        "sub" | "dec" => Some(Op::Sub),
        "and" => Some(Op::And),
        "or" => Some(Op::Or),
        "xor" => Some(Op::Xor),
        "shl" => Some(Op::Shl),
        "shr" => Some(Op::Shr),
        _ => None,
    };
    match (mnemonic, args) {
        // The result does not depend on the register.
        ("xor" | "sub", [Arg::Reg(a, bytes @ (4 | 8)), Arg::Reg(b, _)]) if a == b => insn.set_imm(*a, *bytes, 0),
        ("or", [Arg::Reg(a, bytes @ (4 | 8)), Arg::Imm(u64::MAX)]) => insn.set_imm(*a, *bytes, u64::MAX),
        ("and", [Arg::Reg(a, bytes @ (4 | 8)), Arg::Imm(0)]) => insn.set_imm(*a, *bytes, 0),
        // It depends on the carry only.
        ("sbb", [Arg::Reg(a, bytes @ (4 | 8)), Arg::Reg(b, _)]) if a == b => insn.writes(*a, *bytes),
        // A fence: with `lock`, it changes nothing but flags, often below the stack pointer.
        ("or", [Arg::Mem(..), Arg::Imm(0)]) => {}
        ("inc" | "dec", [Arg::Reg(a, bytes)]) => {
            insn.set(*a, *bytes, Expr::Binary(op?, Operand::Reg(*a), Operand::Imm(1)));
        }
        (
            "add" | "sub" | "and" | "or" | "xor" | "shl" | "shr",
            [Arg::Reg(a, bytes), src @ (Arg::Reg(..) | Arg::Imm(_))],
        ) => {
            insn.set(*a, *bytes, Expr::Binary(op?, Operand::Reg(*a), operand(src)?.0));
        }
        ("cmp" | "test" | "bt", [a, b]) => {
            read(insn, a);
            read(insn, b);
            bit_string(insn, mnemonic, a, b)?;
        }
        (
            "add" | "sub" | "and" | "or" | "xor" | "shl" | "shr" | "sar" | "rol" | "ror" | "rcl" | "rcr" | "adc"
            | "sbb" | "imul" | "shld" | "shrd" | "bts" | "btr" | "btc" | "bsf" | "bsr" | "tzcnt",
            [a, rest @ ..],
        ) if !rest.is_empty() || matches!(mnemonic, "shl" | "shr" | "sar" | "rol" | "ror" | "rcl" | "rcr") => {
            rest.iter().for_each(|arg| read(insn, arg));
            if let [b] = rest {
                bit_string(insn, mnemonic, a, b)?;
            }
            // `bsf`, also as `rep bsf` (`tzcnt` to newer machines), leaves its result as it was if the source is zero.
            // imul r, r/m, imm only writes its first operand.
            if mnemonic != "imul" || rest.len() == 1 {
                read(insn, a);
            }
            write(insn, a)?;
        }
        ("inc" | "dec" | "not" | "neg" | "bswap", [a]) => change(insn, a)?,
        ("mul" | "imul" | "div" | "idiv", [a]) => {
            let bytes = width(a);
            read(insn, a);
            insn.uses(RAX, if bytes == 1 { 2 } else { bytes });
            if bytes == 1 {
                insn.writes(RAX, 2);
            } else {
                if mnemonic.ends_with("div") {
                    insn.uses(RDX, bytes);
                }
                insn.writes(RAX, bytes);
                insn.writes(RDX, bytes);
            }
        }
        ("cdq" | "cqo" | "cwd", _) => {
            let bytes = match mnemonic {
                "cdq" => 4,
                "cqo" => 8,
                _ => 2,
            };
            insn.uses(RAX, bytes);
            insn.writes(RDX, bytes);
        }
        ("xchg" | "xadd", [a, b]) => {
            change(insn, a)?;
            change(insn, b)?;
        }
        ("cmpxchg", [a, b]) => {
            change(insn, a)?;
            read(insn, b);
            insn.uses(RAX, width(a));
            insn.clobbers.add(RAX);
        }
        ("cmpxchg16b", [a]) => {
            change(insn, a)?;
            for reg in [RAX, RDX, RCX, Reg::gpr(3)] {
                insn.uses(reg, 8);
            }
            insn.clobbers.add(RAX);
            insn.clobbers.add(RDX);
        }
        _ if mnemonic.starts_with("set") => match args {
            [Arg::Reg(dst, 1)] => insn.set(*dst, 1, Expr::Either(Operand::Imm(0), Operand::Imm(1))),
            [dst] => write(insn, dst)?,
            _ => return None,
        },
        _ if mnemonic.starts_with("cmov") => {
            let [dst @ Arg::Reg(reg, bytes), src] = args else { return None };
            if let Arg::Reg(other, _) = src {
                insn.pure = true;
                insn.set(*reg, *bytes, Expr::Either(Operand::Reg(*reg), Operand::Reg(*other)));
            } else {
                read(insn, src);
                change(insn, dst)?;
            }
        }
        _ => return Some(false),
    }
    Some(true)
}

/// `bt` and its like address a bit string by a register: any distance from their memory operand.
fn bit_string(insn: &mut Insn, mnemonic: &str, a: &Arg, b: &Arg) -> Option<()> {
    if let (true, Arg::Mem(addr, _), Arg::Reg(..)) = (mnemonic.starts_with("bt"), a, b) {
        insn.writes_memory(*addr, UNBOUNDED);
    }
    Some(())
}

/// movs, stos, with or without a count; without the direction flag, which portable code never sets.
fn string_instruction(insn: &mut Insn, mnemonic: &str, counted: bool) -> Option<()> {
    let size = match mnemonic.as_bytes().last()? {
        b'b' => 1,
        b'w' => 2,
        b'd' => 4,
        b'q' => 8,
        _ => return None,
    };
    let at = |reg| Address { base: Some(reg), ..Address::default() };
    let size = if counted { UNBOUNDED } else { size };
    match &mnemonic[..mnemonic.len() - 1] {
        "movs" => {
            insn.reads_memory(at(RSI), size);
            insn.writes_memory(at(RDI), size);
            insn.changes(RSI);
        }
        "stos" => {
            insn.uses(RAX, 8);
            insn.writes_memory(at(RDI), size);
        }
        _ => return None,
    }
    insn.changes(RDI);
    if counted {
        insn.changes(RCX);
    }
    Some(())
}
