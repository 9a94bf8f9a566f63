//! That the symbols of two relocatables are the same, and the addresses that their data hold.
use std::collections::{BTreeMap, BTreeSet};

use isamorph_arch::Isa;

use super::elf::{Place, Relocatable, Relocation, Symbol};
use super::{Origin, PairError};
use crate::leaves;

type Pairs = [(usize, usize)];

/// Compares defined and undefined symbols.
pub fn compare(x: &Relocatable, a: &Relocatable, pairs: &Pairs, origin: Origin) -> Result<(), PairError> {
    let (dx, da) = (defined(x, origin)?, defined(a, origin)?);
    for (isa, here, there) in [(Isa::X86_64, &dx, &da), (Isa::Aarch64, &da, &dx)] {
        if let Some(symbol) = here.keys().find(|name| !there.contains_key(*name)) {
            return Err(PairError::OneSided { symbol: (*symbol).to_owned(), what: "defined", isa });
        }
    }
    for (name, sx) in &dx {
        let sa = da[name];
        let differ = |field, x86_64: String, aarch64: String| {
            if x86_64 == aarch64 {
                return Ok(());
            }
            Err(PairError::Symbol { symbol: (*name).to_owned(), field, x86_64, aarch64 })
        };
        differ("binding", sx.binding.to_string(), sa.binding.to_string())?;
        differ("type", sx.kind.to_string(), sa.kind.to_string())?;
        let same_place = match (sx.place, sa.place) {
            (Place::Section(i), Place::Section(j)) => {
                // Both per-ISA: native code's own tables.
                pairs.contains(&(i, j)) || !pairs.iter().any(|&(p, q)| p == i || q == j)
            }
            (p, q) => p == q,
        };
        if !same_place {
            differ("section", section_name(x, sx), section_name(a, sa) + " (not its counterpart)")?;
        }
        if sx.is_entity() && pairs.iter().any(|&(p, _)| sx.place == Place::Section(p)) || sx.place == Place::Absolute {
            differ("offset", format!("{:#x}", sx.value), format!("{:#x}", sa.value))?;
        }
        if sx.kind == object::elf::STT_OBJECT.0 || sx.kind == object::elf::STT_TLS.0 {
            differ("size", sx.size.to_string(), sa.size.to_string())?;
        }
    }
    if origin != Origin::Module {
        // What hand-written code of one ISA needs, both executables link.
        return Ok(());
    }
    let (ux, ua) = (undefined(x), undefined(a));
    for (isa, here, there) in [(Isa::X86_64, &ux, &ua), (Isa::Aarch64, &ua, &ux)] {
        if let Some(symbol) = here.difference(there).find(|name| !leaves::is_leaf(name)) {
            return Err(PairError::OneSided { symbol: (*symbol).to_owned(), what: "undefined", isa });
        }
    }
    Ok(())
}

/// Compares the addresses that a paired data section holds.
pub fn compare_relocations(
    x: &Relocatable,
    a: &Relocatable,
    (i, j): (usize, usize),
    pairs: &Pairs,
) -> Result<(), PairError> {
    let section = &x.sections[i].name;
    let elf = |isa| move |source| PairError::Elf { isa, source };
    let (mut rx, mut ra) = (x.relocations(i).map_err(elf(Isa::X86_64))?, a.relocations(j).map_err(elf(Isa::Aarch64))?);
    rx.sort_by_key(|r| r.offset);
    ra.sort_by_key(|r| r.offset);
    for ordinal in 0..rx.len().max(ra.len()) {
        let (r, s) = (rx.get(ordinal), ra.get(ordinal));
        let offset = r.or(s).map_or(0, |r| r.offset);
        let refuse = |what: String| Err(PairError::Address { section: section.clone(), offset, what });
        let (Some(r), Some(s)) = (r, s) else {
            return refuse("holds an address on one ISA only".to_owned());
        };
        let (tx, ta) = (target(x, r), target(a, s));
        match (tx, ta) {
            _ if r.offset != s.offset => return refuse("holds an address on one ISA only".to_owned()),
            (Some(Target::Symbol(n, p)), Some(Target::Symbol(m, q))) if n == m && p == q => {}
            (Some(Target::Section(p, v)), Some(Target::Section(q, w))) if pairs.contains(&(p, q)) => {
                // The start of a function is the start of its section; anything else in it is a label.
                if v != w || (x.sections[p].is_code() && v != 0) {
                    return refuse(format!(
                        "the address of a label in {} differs by ISA: no computed goto here",
                        x.sections[p].name
                    ));
                }
            }
            (tx, ta) => {
                return refuse(format!(
                    "points to {} on x86_64, to {} on aarch64",
                    describe(x, tx.as_ref()),
                    describe(a, ta.as_ref())
                ));
            }
        }
    }
    Ok(())
}

/// What a relocation refers to: by name, or by place if it goes through a local symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Symbol(String, i64),
    Section(usize, i64),
}

fn target(object: &Relocatable, relocation: &Relocation) -> Option<Target> {
    let symbol = object.symbols.get(relocation.symbol)?;
    Some(match symbol.place {
        // x86_64 goes through a local symbol where aarch64 goes through its section, and the other way round.
        Place::Section(section) if !symbol.is_external() => {
            Target::Section(section, relocation.addend.checked_add_unsigned(symbol.value)?)
        }
        _ => Target::Symbol(symbol.name.clone(), relocation.addend),
    })
}

fn describe(object: &Relocatable, target: Option<&Target>) -> String {
    match target {
        Some(Target::Symbol(name, addend)) => format!("{name}+{addend:#x}"),
        Some(Target::Section(section, offset)) => format!("{}+{offset:#x}", object.sections[*section].name),
        None => "nothing".to_owned(),
    }
}

/// What both must define: every external symbol, and every local function, object and thread-local variable.
fn defined(object: &Relocatable, origin: Origin) -> Result<BTreeMap<&str, &Symbol>, PairError> {
    let mut found = BTreeMap::new();
    for symbol in &object.symbols {
        let wanted = match origin {
            Origin::Module => symbol.is_external() || symbol.is_entity(),
            // Helpers and tables of one ISA's code have no name on the other.
            Origin::Assembly | Origin::Native => symbol.is_external(),
        };
        match symbol.place {
            Place::Undefined => continue,
            Place::Common => {
                return Err(PairError::Unsupported {
                    section: "COMMON".to_owned(),
                    reason: "common symbols have no fixed order: compile with -fno-common",
                });
            }
            Place::Section(_) | Place::Absolute | Place::Reserved(_) => {}
        }
        if wanted && !symbol.name.is_empty() {
            found.insert(symbol.name.as_str(), symbol);
        }
    }
    Ok(found)
}

fn undefined(object: &Relocatable) -> BTreeSet<&str> {
    let external = object.symbols.iter().filter(|s| s.place == Place::Undefined && s.is_external());
    external.map(|s| s.name.as_str()).collect()
}

fn section_name(object: &Relocatable, symbol: &Symbol) -> String {
    match symbol.place {
        Place::Section(index) => object.sections[index].name.clone(),
        other => format!("{other:?}"),
    }
}
