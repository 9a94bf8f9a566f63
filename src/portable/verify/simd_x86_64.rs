//! x86_64: SSE and SSE2, as far as general registers and memory are concerned.
//!
//! All `xmm` registers are caller-saved, so nothing is in them at a site. Their values matter only
//! on their way through spill cells.
use super::insn::{Address, Insn, Operand, Reg};
use super::x86_64::{Arg, read, width, write};

/// Moves that copy all of a vector, or its low 4 or 8 bytes from or to memory.
const WHOLE: &[&str] = &["movaps", "movups", "movapd", "movupd", "movdqa", "movdqu"];
const SCALAR: &[&str] = &["movss", "movsd", "movd", "movq"];
/// Moves that load or store half a vector.
const HALF: &[&str] = &["movlps", "movhps", "movlpd", "movhpd"];
/// Stores only.
const NON_TEMPORAL: &[&str] = &["movntps", "movntpd", "movntdq", "movnti"];
/// Instructions whose result is a general register.
const TO_GENERAL: &[&str] =
    &["cvttsd2si", "cvttss2si", "cvtsd2si", "cvtss2si", "movmskps", "movmskpd", "pmovmskb", "pextrw"];
/// Comparisons: no result but flags.
const FLAGS: &[&str] = &["ucomisd", "ucomiss", "comisd", "comiss"];
/// Packed instructions: 16 bytes of memory.
const PACKED: &[&str] = &[
    "addps",
    "addpd",
    "subps",
    "subpd",
    "mulps",
    "mulpd",
    "divps",
    "divpd",
    "minps",
    "minpd",
    "maxps",
    "maxpd",
    "sqrtps",
    "sqrtpd",
    "andps",
    "andpd",
    "andnps",
    "andnpd",
    "orps",
    "orpd",
    "xorps",
    "xorpd",
    "shufps",
    "shufpd",
    "unpcklps",
    "unpcklpd",
    "unpckhps",
    "unpckhpd",
    "movlhps",
    "movhlps",
    "cvtdq2ps",
    "cvtps2dq",
    "cvttps2dq",
    "cvtpd2ps",
    "cvtpd2dq",
    "cvttpd2dq",
    "cvtdq2pd",
    "cvtps2pd",
    "paddb",
    "paddw",
    "paddd",
    "paddq",
    "psubb",
    "psubw",
    "psubd",
    "psubq",
    "paddusb",
    "paddusw",
    "paddsb",
    "paddsw",
    "psubusb",
    "psubusw",
    "psubsb",
    "psubsw",
    "pmullw",
    "pmulhw",
    "pmulhuw",
    "pmuludq",
    "pmaddwd",
    "pand",
    "pandn",
    "por",
    "pxor",
    "pcmpeqb",
    "pcmpeqw",
    "pcmpeqd",
    "pcmpgtb",
    "pcmpgtw",
    "pcmpgtd",
    "pminub",
    "pminsw",
    "pmaxub",
    "pmaxsw",
    "pavgb",
    "pavgw",
    "psadbw",
    "pshufd",
    "pshuflw",
    "pshufhw",
    "punpcklbw",
    "punpcklwd",
    "punpckldq",
    "punpcklqdq",
    "punpckhbw",
    "punpckhwd",
    "punpckhdq",
    "punpckhqdq",
    "packsswb",
    "packssdw",
    "packuswb",
    "psllw",
    "pslld",
    "psllq",
    "pslldq",
    "psrlw",
    "psrld",
    "psrlq",
    "psrldq",
    "psraw",
    "psrad",
    "rcpps",
    "rsqrtps",
    "cmpps",
    "cmppd",
];
/// Scalar instructions and the bytes of a memory operand; 0 where it has an own size.
const SCALARS: &[(&str, u8)] = &[
    ("addss", 4),
    ("addsd", 8),
    ("subss", 4),
    ("subsd", 8),
    ("mulss", 4),
    ("mulsd", 8),
    ("divss", 4),
    ("divsd", 8),
    ("minss", 4),
    ("minsd", 8),
    ("maxss", 4),
    ("maxsd", 8),
    ("sqrtss", 4),
    ("sqrtsd", 8),
    ("cvtss2sd", 4),
    ("cvtsd2ss", 8),
    ("cvtsi2sd", 0),
    ("cvtsi2ss", 0),
    ("pinsrw", 0),
    ("cmpss", 4),
    ("cmpsd", 8),
];

/// Models an SSE instruction; `None` if it is not one of the table.
pub fn model(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<()> {
    if WHOLE.contains(&mnemonic) {
        return whole(insn, args);
    }
    if SCALAR.contains(&mnemonic) {
        return scalar(insn, mnemonic, args);
    }
    if NON_TEMPORAL.contains(&mnemonic) {
        let [Arg::Mem(addr, size), src] = args else { return None };
        read(insn, src);
        insn.writes_memory(*addr, *size);
        return Some(());
    }
    if HALF.contains(&mnemonic) {
        return match args {
            [Arg::Mem(addr, _), Arg::Vector(src)] => {
                let half = if mnemonic.starts_with("movh") { Reg::hi(*src) } else { Reg::lo(*src) };
                insn.store(*addr, 8, Operand::Reg(half));
                Some(())
            }
            [dst @ Arg::Vector(_), Arg::Mem(addr, _)] => {
                insn.reads_memory(*addr, 8);
                read(insn, dst);
                write(insn, dst)
            }
            _ => None,
        };
    }
    if matches!(mnemonic, "stmxcsr" | "ldmxcsr") {
        let [Arg::Mem(addr, _)] = args else { return None };
        if mnemonic == "stmxcsr" {
            insn.writes_memory(*addr, 4);
        } else {
            insn.reads_memory(*addr, 4);
        }
        return Some(());
    }
    let (dst, sources) = args.split_first()?;
    let size = memory_size(mnemonic)?;
    for source in sources {
        match source {
            // The larger of two opinions: reading too much only asks for more.
            Arg::Mem(addr, theirs) => insn.reads_memory(*addr, size.max(*theirs)),
            _ => read(insn, source),
        }
    }
    if FLAGS.contains(&mnemonic) {
        read(insn, dst);
        return Some(());
    }
    if TO_GENERAL.contains(&mnemonic) {
        let Arg::Reg(dst, bytes) = dst else { return None };
        insn.writes(*dst, *bytes);
        return Some(());
    }
    let Arg::Vector(n) = dst else { return None };
    // The result does not depend on the register.
    if let [Arg::Vector(other)] = sources
        && other == n
        && matches!(mnemonic, "xorps" | "xorpd" | "pxor" | "pcmpeqd")
    {
        let value = if mnemonic == "pcmpeqd" { u64::MAX } else { 0 };
        let (addr, len) = (insn.addr, insn.len);
        *insn = Insn::new(addr, len);
        insn.set_imm(Reg::lo(*n), 8, value);
        insn.set_imm(Reg::hi(*n), 8, value);
        return Some(());
    }
    read(insn, dst);
    write(insn, dst)
}

fn memory_size(mnemonic: &str) -> Option<u8> {
    if PACKED.contains(&mnemonic) || packed_comparison(mnemonic, ["ps", "pd"]) {
        return Some(16);
    }
    if FLAGS.contains(&mnemonic) || packed_comparison(mnemonic, ["ss", "sd"]) {
        return Some(if mnemonic.ends_with('d') { 8 } else { 4 });
    }
    if TO_GENERAL.contains(&mnemonic) {
        return Some(0);
    }
    SCALARS.iter().find(|(name, _)| *name == mnemonic).map(|(_, size)| *size)
}

/// `cmpneqsd` and its like.
fn packed_comparison(mnemonic: &str, suffixes: [&str; 2]) -> bool {
    let Some(rest) = mnemonic.strip_prefix("cmp") else { return false };
    let Some(predicate) = suffixes.iter().find_map(|suffix| rest.strip_suffix(suffix)) else { return false };
    matches!(predicate, "eq" | "lt" | "le" | "unord" | "neq" | "nlt" | "nle" | "ord")
}

fn upper(addr: Address) -> Address {
    Address { disp: addr.disp.wrapping_add(8), ..addr }
}

fn whole(insn: &mut Insn, args: &[Arg]) -> Option<()> {
    insn.pure = true;
    match *args {
        [Arg::Vector(dst), Arg::Vector(src)] => {
            insn.copy(Reg::lo(dst), 8, Reg::lo(src));
            insn.copy(Reg::hi(dst), 8, Reg::hi(src));
        }
        [Arg::Vector(dst), Arg::Mem(addr, 16)] => {
            insn.load(Reg::lo(dst), 8, addr, 8, false);
            insn.load(Reg::hi(dst), 8, upper(addr), 8, false);
        }
        [Arg::Mem(addr, 16), Arg::Vector(src)] => {
            insn.store(addr, 8, Operand::Reg(Reg::lo(src)));
            insn.store(upper(addr), 8, Operand::Reg(Reg::hi(src)));
        }
        _ => return None,
    }
    Some(())
}

fn scalar(insn: &mut Insn, mnemonic: &str, args: &[Arg]) -> Option<()> {
    let bytes = if matches!(mnemonic, "movss" | "movd") { 4 } else { 8 };
    insn.pure = true;
    match args {
        [Arg::Vector(dst), Arg::Mem(addr, _)] => {
            insn.load(Reg::lo(*dst), 8, *addr, bytes, false);
            insn.set_imm(Reg::hi(*dst), 8, 0);
        }
        [Arg::Mem(addr, _), Arg::Vector(src)] => insn.store(*addr, bytes, Operand::Reg(Reg::lo(*src))),
        [Arg::Reg(dst, _), Arg::Vector(src)] => insn.copy(*dst, bytes, Reg::lo(*src)),
        [Arg::Vector(dst), Arg::Reg(src, _)] => {
            insn.set(
                Reg::lo(*dst),
                8,
                super::insn::Expr::Extend { src: Operand::Reg(*src), from: bytes, signed: false },
            );
            insn.set_imm(Reg::hi(*dst), 8, 0);
        }
        // movq clears the upper half; movss and movsd between registers change the low part.
        [Arg::Vector(dst), Arg::Vector(src)] if mnemonic == "movq" => {
            insn.copy(Reg::lo(*dst), 8, Reg::lo(*src));
            insn.set_imm(Reg::hi(*dst), 8, 0);
        }
        [dst @ Arg::Vector(_), src @ Arg::Vector(_)] => {
            insn.pure = false;
            debug_assert_eq!(width(src), 16);
            read(insn, src);
            read(insn, dst);
            write(insn, dst)?;
        }
        _ => return None,
    }
    Some(())
}
