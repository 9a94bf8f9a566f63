//! Pairing, on relocatables made by hand.
use super::elf::{Place, Relocatable};
use super::fat::{FatError, FatObject, ModuleInfo};
use super::*;

/// A section of a test object: name, type, flags, bytes.
pub(crate) type Part<'a> = (&'a str, u32, u64, &'a [u8]);

const CODE: u64 = 6;
const DATA: u64 = 3;
const CONST: u64 = 2;

/// A minimal relocatable: the given sections, a symbol table with one global symbol at the start of each section that
/// `symbols` names (function in code, object elsewhere), and the given undefined symbols.
pub(crate) fn object(isa: Isa, parts: &[Part<'_>], symbols: &[(&str, usize)], undefined: &[&str]) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut name = |text: &str| {
        let at = u32::try_from(names.len()).unwrap();
        names.extend(text.bytes().chain([0]));
        at
    };
    let mut symtab = vec![0u8; 24];
    for (symbol, part) in symbols {
        let kind = if parts[*part].2 & o::SHF_EXECINSTR.0 != 0 { 2 } else { 1 };
        symtab.extend(name(symbol).to_le_bytes());
        symtab.extend([0x10 | kind, 0]);
        symtab.extend(u16::try_from(part + 1).unwrap().to_le_bytes());
        symtab.extend(0u64.to_le_bytes());
        symtab.extend((parts[*part].3.len() as u64).to_le_bytes());
    }
    for symbol in undefined {
        symtab.extend(name(symbol).to_le_bytes());
        symtab.extend([0x10, 0, 0, 0]);
        symtab.extend([0; 16]);
    }
    let strtab = parts.len() + 2;
    let mut headers: Vec<(u32, u32, u64, Vec<u8>, u32, u64)> = vec![(0, 0, 0, vec![], 0, 0)];
    for (section, kind, flags, data) in parts {
        headers.push((name(section), *kind, *flags, data.to_vec(), 0, 0));
    }
    headers.push((name(".symtab"), 2, 0, symtab, u32::try_from(strtab).unwrap(), 24));
    let own = name(".strtab");
    headers.push((own, 3, 0, names, 0, 0));
    let mut out = vec![0u8; 64];
    let mut table = Vec::new();
    for (name, kind, flags, data, link, entsize) in headers {
        table.extend(name.to_le_bytes());
        table.extend(kind.to_le_bytes());
        for value in [flags, 0, out.len() as u64, data.len() as u64] {
            table.extend(value.to_le_bytes());
        }
        table.extend(link.to_le_bytes());
        table.extend(u32::from(kind == 2).to_le_bytes());
        table.extend(1u64.to_le_bytes());
        table.extend(entsize.to_le_bytes());
        out.extend(data);
    }
    let shoff = out.len() as u64;
    out.extend(table);
    out[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out[16..18].copy_from_slice(&1u16.to_le_bytes());
    out[18..20].copy_from_slice(&isa.elf_machine().to_le_bytes());
    out[20..24].copy_from_slice(&1u32.to_le_bytes());
    out[40..48].copy_from_slice(&shoff.to_le_bytes());
    for (at, value) in [(52, 64), (58, 64), (60, strtab + 1), (62, strtab)] {
        out[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_le_bytes());
    }
    out
}

const F: Part<'_> = (".text.f", 1, CODE, &[0x90; 5]);
const G: Part<'_> = (".text.g", 1, CODE, &[0xc3]);
const V: Part<'_> = (".data.v", 1, DATA, &[1, 2, 3, 4]);

fn both(x: &[Part<'_>], a: &[Part<'_>]) -> Result<Paired, PairError> {
    // Every section has a symbol named after it, as code generation gives data of the program.
    let named = |parts: &[Part<'_>]| {
        let name = |p: &Part<'_>| p.0.rsplit('.').next().unwrap_or_default().to_owned();
        parts.iter().map(name).collect::<Vec<_>>()
    };
    let (nx, na) = (named(x), named(a));
    let index = |names: &[String]| names.iter().enumerate().map(|(i, n)| (n.clone(), i)).collect::<Vec<_>>();
    let (ix, ia) = (index(&nx), index(&na));
    let refs = |v: &[(String, usize)]| v.iter().map(|(n, i)| (n.clone(), *i)).collect::<Vec<_>>();
    let (rx, ra) = (refs(&ix), refs(&ia));
    let sx: Vec<(&str, usize)> = rx.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let sa: Vec<(&str, usize)> = ra.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    pair(&object(Isa::X86_64, x, &sx, &[]), &object(Isa::Aarch64, a, &sa, &[]), Origin::Module)
}

/// A fat object of one function per name, which needs the given symbols (on x86_64 also `x_only`).
pub(crate) fn fat_object(functions: &[&str], undefined: &[&str], x_only: &[&str], info: ModuleInfo) -> Vec<u8> {
    let names: Vec<String> = functions.iter().map(|f| format!(".text.{f}")).collect();
    let parts: Vec<Part<'_>> = names.iter().map(|n| (n.as_str(), 1, CODE, &[0xc3u8][..])).collect();
    let symbols: Vec<(&str, usize)> = functions.iter().enumerate().map(|(i, f)| (*f, i)).collect();
    let on_x: Vec<&str> = undefined.iter().chain(x_only).copied().collect();
    let x = object(Isa::X86_64, &parts, &symbols, &on_x);
    let a = object(Isa::Aarch64, &parts, &symbols, undefined);
    fat::write(pair(&x, &a, Origin::Native).unwrap(), &ModuleInfo { version: 1, ..info }).unwrap()
}

#[test]
fn corresponding_sections_get_one_size_and_the_right_fill() {
    let longer: Part<'_> = (".text.f", 1, CODE, &[0x1f; 12]);
    let paired = both(&[F, V], &[longer, V]).unwrap();
    let find = |object: &Relocatable| object.sections.iter().find(|s| s.name == ".h.text.f").cloned().unwrap();
    let (x, a) = (find(&paired.x86_64), find(&paired.aarch64));
    assert_eq!((x.size, a.size), (12, 12));
    assert_eq!(x.data, [[0x90; 5].as_slice(), &[0xcc; 7]].concat());
    let shorter = both(&[(".text.f", 1, CODE, &[0x90; 16])], &[(".text.f", 1, CODE, &[0xaa; 8])]).unwrap();
    assert_eq!(find(&shorter.aarch64).data[8..], [0x1f, 0x20, 3, 0xd5, 0x1f, 0x20, 3, 0xd5]);
}

#[test]
fn names_are_appended_and_survive_a_write() {
    let paired = both(&[F, V], &[F, V]).unwrap();
    let again = Relocatable::parse(&paired.x86_64.write()).unwrap();
    let names: Vec<_> = again.sections.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["", ".h.text.f", ".h.data.v", ".symtab", ".strtab"]);
    assert_eq!(again.symbols[1].name, "f");
    assert_eq!(again.symbols[2].place, Place::Section(2));
}

#[test]
fn another_order_is_refused() {
    match both(&[F, G], &[G, F]) {
        Err(PairError::Order { ordinal: 0, x86_64: Some(x), aarch64: Some(a) }) => {
            assert_eq!((x.as_str(), a.as_str()), (".text.f", ".text.g"));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(both(&[F, G], &[F]), Err(PairError::Order { ordinal: 1, aarch64: None, .. })));
}

#[test]
fn data_of_another_size_type_flags_or_content_is_refused() {
    let field = |a| match both(&[V], &[a]) {
        Err(PairError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field((".data.v", 1, DATA, &[1, 2, 3])), "size");
    assert_eq!(field((".data.v", 14, DATA, &[1, 2, 3, 4])), "type");
    assert_eq!(field((".data.v", 1, DATA | 0x400, &[1, 2, 3, 4])), "flags");
    match both(&[V], &[(".data.v", 1, DATA, &[1, 2, 9, 4])]) {
        Err(PairError::Data { offset: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_jump_table_stays_per_isa() {
    let table: Part<'_> = (".rodata.f", 1, CONST, &[7; 16]);
    let x = object(Isa::X86_64, &[F, table], &[("f", 0)], &[]);
    let a = object(Isa::Aarch64, &[F], &[("f", 0)], &[]);
    let paired = pair(&x, &a, Origin::Module).unwrap();
    assert!(paired.x86_64.sections.iter().any(|s| s.name == ".rodata.f"));
    // The same with a name is data of the program, and then it must be there on both.
    let x = object(Isa::X86_64, &[F, table], &[("f", 0), ("t", 1)], &[]);
    assert!(matches!(pair(&x, &a, Origin::Module), Err(PairError::Order { ordinal: 1, .. })));
}

#[test]
fn symbols_must_be_the_same() {
    let make = |isa, symbols: &[(&str, usize)], undefined: &[&str]| object(isa, &[F, G], symbols, undefined);
    let fg = [("f", 0), ("g", 1)];
    let x = make(Isa::X86_64, &fg, &["puts", "memcpy"]);
    // A leaf may be needed on one ISA only, nothing else may.
    assert!(pair(&x, &make(Isa::Aarch64, &fg, &["puts"]), Origin::Module).is_ok());
    match pair(&x, &make(Isa::Aarch64, &fg, &["memcpy"]), Origin::Module) {
        Err(PairError::OneSided { symbol, what: "undefined", isa: Isa::X86_64 }) => assert_eq!(symbol, "puts"),
        other => panic!("{other:?}"),
    }
    match pair(&x, &make(Isa::Aarch64, &[("f", 0)], &["puts"]), Origin::Module) {
        Err(PairError::OneSided { symbol, what: "defined", isa: Isa::X86_64 }) => assert_eq!(symbol, "g"),
        other => panic!("{other:?}"),
    }
    match pair(&x, &make(Isa::Aarch64, &[("f", 1), ("g", 0)], &["puts"]), Origin::Module) {
        Err(PairError::Symbol { field: "section", .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn unnamed_strings_writable_code_and_pairs_of_pairs_are_refused() {
    let strings: Part<'_> = (".rodata.str1.1", 1, CONST | 0x30, b"a\0");
    let x = object(Isa::X86_64, &[strings], &[], &[]);
    let a = object(Isa::Aarch64, &[strings], &[], &[]);
    assert!(matches!(pair(&x, &a, Origin::Module), Err(PairError::Unsupported { .. })));
    let both_ways: Part<'_> = (".text.f", 1, CODE | DATA, &[0]);
    assert!(matches!(both(&[both_ways], &[both_ways]), Err(PairError::Unsupported { .. })));
    let paired: Part<'_> = (".h.text.f", 1, CODE, &[0]);
    assert!(matches!(both(&[paired], &[paired]), Err(PairError::Unsupported { .. })));
}

#[test]
fn native_code_is_a_leaf_without_state() {
    let x = object(Isa::X86_64, &[F], &[("f", 0)], &["abort"]);
    let a = object(Isa::Aarch64, &[F], &[("f", 0)], &[]);
    let paired = pair(&x, &a, Origin::Native).unwrap();
    assert!(paired.aarch64.sections.iter().any(|s| s.name == ".h.text.isam.leaf.f"));
    let x = object(Isa::X86_64, &[F, V], &[("f", 0)], &[]);
    assert!(matches!(pair(&x, &a, Origin::Native), Err(PairError::Unsupported { .. })));
}

#[test]
fn the_wrong_machine_is_refused() {
    let x = object(Isa::X86_64, &[F], &[("f", 0)], &[]);
    assert!(matches!(pair(&x, &x, Origin::Module), Err(PairError::Machine { isa: Isa::Aarch64, machine: 62 })));
}

#[test]
fn fat_objects_carry_both() {
    let info =
        ModuleInfo { version: 1, source: "f.c".into(), variadic_defined: vec!["f".into()], ..Default::default() };
    let fat = fat::write(both(&[F, V], &[F, V]).unwrap(), &info).unwrap();
    let read = FatObject::parse(&fat).unwrap();
    assert_eq!(read.info, info);
    assert_eq!(read.aarch64.machine(), 183);
    assert!(read.aarch64.sections.iter().any(|s| s.name == ".h.data.v"));
    assert!(matches!(FatObject::parse(&object(Isa::X86_64, &[F], &[], &[])), Err(FatError::NotFat)));
    let newer = fat::write(both(&[F], &[F]).unwrap(), &ModuleInfo { version: 9, ..info }).unwrap();
    assert!(matches!(FatObject::parse(&newer), Err(FatError::Version(9))));
}

#[test]
fn no_damaged_object_panics() {
    let whole = fat::write(both(&[F, V], &[F, V]).unwrap(), &ModuleInfo { version: 1, ..Default::default() }).unwrap();
    for length in 0..whole.len() {
        assert!(FatObject::parse(&whole[..length]).is_err());
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let _ = FatObject::parse(&damaged).map(|fat| pair(&fat.x86_64.write(), &fat.aarch64_bytes, Origin::Module));
    }
}
