//! Pairing: the two relocatables of one module get the same sections, in the same order, of the same size.
//!
//! ```text
//!   x86_64            aarch64            both, after pairing
//!   .text.f   14      .text.f   28       .h.text.f   28 (28: 0xCC fill on x86_64)
//!   .rodata.f 48  ·   (none)             .rodata.f        on x86_64 only: a jump table
//!   .data.v   16      .data.v   16       .h.data.v   16
//! ```
//! One linker script that puts `.h*` first then gives every function and object one address on both.
pub mod elf;
pub mod fat;
mod symbols;
#[cfg(test)]
pub(crate) mod tests;

use elf::{ElfError, Relocatable, Section};
use isamorph_arch::Isa;
use object::elf as o;

/// What stands before the name of a paired section: `*(.rodata.*)` of a script would match `.rodata.cst8` too.
pub const PAIRED_PREFIX: &str = ".h";
/// The alloc section that keeps LLVM's basic-block address maps through `strip`.
pub const BBMAP_SECTION: &str = ".isamorph.bbmap";
/// Where the leaves go, after [`PAIRED_PREFIX`].
pub const LEAF_SECTION: &str = ".text.isam.leaf";
/// Not in `object`: `SHT_LLVM_BB_ADDR_MAP` (LLVM, `docs/Extensions.rst`).
const SHT_LLVM_BB_ADDR_MAP: u32 = 0x6fff_4c0a;

/// What the two relocatables were made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One neutral module: code of both must correspond symbol by symbol.
    Module,
    /// Per-ISA assembly: as a module, but labels without a type may lie anywhere.
    Assembly,
    /// Per-ISA C: a part of a stub, or a leaf (`memcpy`), in which case its code goes to [`LEAF_SECTION`]. What
    /// it calls and what tables it has is its own affair as long as nothing of that can be written to.
    Native,
}

/// Why two relocatables are no pair. `section` and `symbol` are names in the object files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// One of the files cannot be read.
    #[error("{isa} object: {source}")]
    Elf {
        /// Which of the two.
        isa: Isa,
        /// What is wrong with it.
        source: ElfError,
    },
    /// A file is for another machine.
    #[error("{isa} object: made for ELF machine {machine}")]
    Machine {
        /// What it should be for.
        isa: Isa,
        /// `e_machine`.
        machine: u16,
    },
    /// The n-th paired section differs in name, or one object has more of them.
    #[error("paired section {ordinal}: {x86_64:?} on x86_64, {aarch64:?} on aarch64")]
    Order {
        /// Position among the paired sections.
        ordinal: usize,
        /// Its name there, if there is one.
        x86_64: Option<String>,
        /// Its name there, if there is one.
        aarch64: Option<String>,
    },
    /// Same name, but another kind of section.
    #[error("section {section}: {field} is {x86_64:#x} on x86_64, {aarch64:#x} on aarch64")]
    Field {
        /// The section.
        section: String,
        /// `type`, `flags`, `size`, `entry size`.
        field: &'static str,
        /// The value there.
        x86_64: u64,
        /// The value there.
        aarch64: u64,
    },
    /// The same bytes would not be in the same place: the data of the two differ.
    #[error("section {section}: data differ from offset {offset:#x} on")]
    Data {
        /// The section.
        section: String,
        /// First byte that differs.
        offset: usize,
    },
    /// A kind of section that has no place in a pair.
    #[error("section {section}: {reason}")]
    Unsupported {
        /// The section.
        section: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A symbol is on one ISA only.
    #[error("symbol {symbol}: {what} on {isa} only")]
    OneSided {
        /// Its name.
        symbol: String,
        /// `defined`, `undefined`.
        what: &'static str,
        /// Where it is.
        isa: Isa,
    },
    /// A symbol is elsewhere, or something else, on the other ISA.
    #[error("symbol {symbol}: {field} is {x86_64} on x86_64, {aarch64} on aarch64")]
    Symbol {
        /// Its name.
        symbol: String,
        /// What differs.
        field: &'static str,
        /// The value there.
        x86_64: String,
        /// The value there.
        aarch64: String,
    },
    /// Data hold an address that is not the same on both ISAs.
    #[error("section {section}+{offset:#x}: {what}")]
    Address {
        /// The section that holds the address.
        section: String,
        /// Offset of it.
        offset: u64,
        /// What it points to, and why that cannot be.
        what: String,
    },
}

/// Two relocatables of equal layout.
#[derive(Debug)]
pub struct Paired {
    /// For x86_64.
    pub x86_64: Relocatable,
    /// For aarch64.
    pub aarch64: Relocatable,
}

/// Makes a pair of two relocatables.
///
/// # Errors
/// If they do not correspond: [`PairError`] says where.
pub fn pair(x86_64: &[u8], aarch64: &[u8], origin: Origin) -> Result<Paired, PairError> {
    let mut x = parse(x86_64, Isa::X86_64)?;
    let mut a = parse(aarch64, Isa::Aarch64)?;
    let (places_x, places_a) = (classify(&x, origin)?, classify(&a, origin)?);
    let (xs, mut as_) = (paired(&places_x), paired(&places_a));
    if origin == Origin::Native {
        // Two compilers' worth of optimisation apart: only the names of the functions are common.
        as_.sort_by_key(|&i| xs.iter().position(|&j| x.sections[j].name == a.sections[i].name));
    }
    let name = |o: &Relocatable, i: Option<&usize>| i.map(|&i| o.sections[i].name.clone());
    for ordinal in 0..xs.len().max(as_.len()) {
        let (n, m) = (name(&x, xs.get(ordinal)), name(&a, as_.get(ordinal)));
        if n != m {
            return Err(PairError::Order { ordinal, x86_64: n, aarch64: m });
        }
    }
    let pairs: Vec<(usize, usize)> = xs.iter().copied().zip(as_.iter().copied()).collect();
    for &(i, j) in &pairs {
        compare_sections(&x.sections[i], &a.sections[j])?;
    }
    symbols::compare(&x, &a, &pairs, origin)?;
    for &(i, j) in &pairs {
        if !x.sections[i].is_code() {
            symbols::compare_relocations(&x, &a, (i, j), &pairs)?;
        }
    }
    for &(i, j) in &pairs {
        let align = x.sections[i].align.max(a.sections[j].align).max(1);
        let mut size = x.sections[i].size.max(a.sections[j].size);
        if x.sections[i].is_code() {
            // No gap for the linker to fill: all padding between functions is the one that is known here. And A64
            // code has whole words: else its fill would end within an instruction.
            size = size.next_multiple_of(align.clamp(4, 4096));
        }
        grow(&mut x.sections[i], Isa::X86_64, size, align);
        grow(&mut a.sections[j], Isa::Aarch64, size, align);
        let base = &x.sections[i].name;
        let name = match (origin, base.strip_prefix(".text.")) {
            (Origin::Native, Some(function)) if !function.starts_with("isam.") => {
                format!("{PAIRED_PREFIX}{LEAF_SECTION}.{function}")
            }
            _ => format!("{PAIRED_PREFIX}{base}"),
        };
        x.rename(i, name.clone()).map_err(|source| PairError::Elf { isa: Isa::X86_64, source })?;
        a.rename(j, name).map_err(|source| PairError::Elf { isa: Isa::Aarch64, source })?;
    }
    keep_block_maps(&mut x, Isa::X86_64)?;
    keep_block_maps(&mut a, Isa::Aarch64)?;
    Ok(Paired { x86_64: x, aarch64: a })
}

/// Where a section goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Area {
    /// Corresponds to one of the other ISA.
    Paired,
    /// Has no writable state and an address that only code of its own ISA knows.
    PerIsa,
    /// Takes no memory.
    File,
}

fn parse(bytes: &[u8], isa: Isa) -> Result<Relocatable, PairError> {
    let object = Relocatable::parse(bytes).map_err(|source| PairError::Elf { isa, source })?;
    if object.machine() != isa.elf_machine() {
        return Err(PairError::Machine { isa, machine: object.machine() });
    }
    Ok(object)
}

fn classify(object: &Relocatable, origin: Origin) -> Result<Vec<Area>, PairError> {
    let mut named = vec![false; object.sections.len()];
    for symbol in &object.symbols {
        if let elf::Place::Section(section) = symbol.place
            && symbol.is_entity()
        {
            named[section] = true;
        }
    }
    object.sections.iter().zip(named).map(|(section, named)| area(section, named, origin)).collect()
}

fn area(section: &Section, named: bool, origin: Origin) -> Result<Area, PairError> {
    let refuse = |reason| Err(PairError::Unsupported { section: section.name.clone(), reason });
    if section.kind == o::SHT_GROUP.0 {
        return refuse("section groups are not supported");
    }
    if !section.is_alloc() {
        return Ok(Area::File);
    }
    if section.name.starts_with(".h.") {
        return refuse("is paired already");
    }
    if section.is_code() || section.is_writable() {
        if section.is_code() && section.is_writable() {
            return refuse("is writable and executable");
        }
        if origin == Origin::Native {
            if section.is_writable() && section.size > 0 {
                return refuse("native code must not have writable state");
            }
            // Compilers write an empty `.text` even if every function has a section of its own.
            return Ok(if section.is_code() && section.size > 0 { Area::Paired } else { Area::PerIsa });
        }
        return Ok(Area::Paired);
    }
    let per_isa = ["eh_frame", "llvm_stackmaps", "isamorph.", "note.", "ARM."];
    if per_isa.iter().any(|name| section.name.strip_prefix('.').is_some_and(|n| n.starts_with(name)))
        || origin == Origin::Native
    {
        return Ok(Area::PerIsa);
    }
    if section.flags & o::SHF_STRINGS.0 != 0 && !named {
        return refuse("string constants without a symbol have no common address");
    }
    // What code generation made for itself: constant pools and jump tables. Data of the program has a name.
    Ok(if named { Area::Paired } else { Area::PerIsa })
}

fn paired(areas: &[Area]) -> Vec<usize> {
    areas.iter().enumerate().filter(|(_, area)| **area == Area::Paired).map(|(index, _)| index).collect()
}

fn compare_sections(x: &Section, a: &Section) -> Result<(), PairError> {
    let differ = |field, x86_64, aarch64| {
        if x86_64 == aarch64 {
            return Ok(());
        }
        Err(PairError::Field { section: x.name.clone(), field, x86_64, aarch64 })
    };
    differ("type", u64::from(x.kind), u64::from(a.kind))?;
    differ("flags", x.flags, a.flags)?;
    differ("entry size", x.entsize, a.entsize)?;
    if x.is_code() {
        return Ok(());
    }
    differ("size", x.size, a.size)?;
    match x.data.iter().zip(&a.data).position(|(x, a)| x != a) {
        Some(offset) => Err(PairError::Data { section: x.name.clone(), offset }),
        None => Ok(()),
    }
}

/// Grows a section; what is added to code traps (`int3`) on x86_64 and is a `nop` on aarch64.
fn grow(section: &mut Section, isa: Isa, size: u64, align: u64) {
    // Merging would move the content to an offset that depends on the other objects of the link.
    section.flags &= !(o::SHF_MERGE.0 | o::SHF_STRINGS.0);
    section.entsize = 0;
    section.align = align;
    section.size = size;
    if section.kind == o::SHT_NOBITS.0 {
        return;
    }
    let fill: &[u8] = match (section.is_code(), isa) {
        (true, Isa::X86_64) => &[0xcc],
        (true, Isa::Aarch64) => &[0x1f, 0x20, 0x03, 0xd5],
        (false, _) => &[0],
    };
    while (section.data.len() as u64) < size {
        // Position in the fill pattern by offset: a data island may end off an instruction boundary.
        section.data.push(fill[section.data.len() % fill.len()]);
    }
}

fn keep_block_maps(object: &mut Relocatable, isa: Isa) -> Result<(), PairError> {
    for index in 0..object.sections.len() {
        if object.sections[index].kind != SHT_LLVM_BB_ADDR_MAP {
            continue;
        }
        object.rename(index, BBMAP_SECTION.to_owned()).map_err(|source| PairError::Elf { isa, source })?;
        let section = &mut object.sections[index];
        section.kind = o::SHT_PROGBITS.0;
        section.flags = o::SHF_ALLOC.0;
        section.link = 0;
    }
    Ok(())
}
