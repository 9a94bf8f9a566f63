//! A relocatable ELF file whose sections can be renamed, grown and added to, everything else kept bit by bit.
//!
//! Sections keep their indices and symbols their offsets into the string table: LLVM has one `.strtab` for
//! the names of both, so a new name is appended, and nothing that is there ever moves within it.
use object::LittleEndian as LE;
use object::elf;
use object::pod::{bytes_of, slice_from_all_bytes};
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};

/// Why a file is not a relocatable that pairs can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The bytes are not well-formed ELF.
    #[error("not a well-formed ELF file: {0}")]
    Malformed(#[from] object::read::Error),
    /// An ELF file, but none of type ET_REL.
    #[error("ELF file of type {0}, not a relocatable object")]
    NotRelocatable(u16),
    /// There is no section name table.
    #[error("no section name table")]
    NoNames,
    /// A name is not UTF-8.
    #[error("a section or symbol name is not UTF-8: {0:?}")]
    Name(Vec<u8>),
    /// A symbol's section does not exist.
    #[error("symbol {symbol} is in section {section}, which does not exist")]
    NoSection {
        /// Index of the symbol.
        symbol: usize,
        /// The index of its section.
        section: usize,
    },
    /// The size of a relocation section is no whole number of entries.
    #[error("relocation section {0}: not a whole number of entries")]
    Relocations(String),
    /// The name table would pass 4 GiB.
    #[error("name table of more than 4 GiB")]
    TooManyNames,
}

/// One section: header fields as in the file, and the bytes (empty for SHT_NOBITS).
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_size` in bytes; `data.len()` unless the section is SHT_NOBITS.
    pub size: u64,
    /// `sh_link`.
    pub link: u32,
    /// `sh_info`.
    pub info: u32,
    /// `sh_addralign` in bytes.
    pub align: u64,
    /// `sh_entsize` in bytes.
    pub entsize: u64,
    /// The content.
    pub data: Vec<u8>,
    name_offset: u32,
}

impl Section {
    /// Whether the section takes memory in a process.
    #[must_use]
    pub fn is_alloc(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }

    /// Whether a process may write to it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags & elf::SHF_WRITE.0 != 0
    }

    /// Whether it holds instructions.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.flags & elf::SHF_EXECINSTR.0 != 0
    }
}

/// Where a symbol lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not in this object.
    Undefined,
    /// In the section of this index.
    Section(usize),
    /// Its value is no address.
    Absolute,
    /// A tentative definition (`-fcommon`).
    Common,
    /// One of the reserved indices that relocatables of C have no use for.
    Reserved(u16),
}

/// A symbol of a relocatable.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Its name; empty for section symbols.
    pub name: String,
    /// `STB_*`.
    pub binding: u8,
    /// `STT_*`.
    pub kind: u8,
    /// Where it is defined.
    pub place: Place,
    /// Offset in its section (bytes), or the value of an absolute one.
    pub value: u64,
    /// `st_size` in bytes.
    pub size: u64,
}

impl Symbol {
    /// Weak or global, that is, visible to other objects.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.binding != elf::STB_LOCAL.0
    }

    /// Weak.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.binding == elf::STB_WEAK.0
    }

    /// A function, an object or a thread-local variable that somebody named; not a label, not a section.
    #[must_use]
    pub fn is_entity(&self) -> bool {
        !self.name.is_empty()
            && !self.is_mapping()
            && [elf::STT_FUNC.0, elf::STT_OBJECT.0, elf::STT_TLS.0].contains(&self.kind)
    }

    /// One of AAELF64's marks of code (`$x`) and data (`$d`), which carry no name of the program.
    #[must_use]
    pub fn is_mapping(&self) -> bool {
        matches!(self.name.as_bytes(), [b'$', b'x' | b'd'] | [b'$', b'x' | b'd', b'.', ..])
    }
}

/// A relocation with addend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the place in its section.
    pub offset: u64,
    /// `R_<ISA>_*`.
    pub kind: u32,
    /// Index in the symbol table.
    pub symbol: usize,
    /// `r_addend`.
    pub addend: i64,
}

/// A 64-bit little-endian ET_REL file.
#[derive(Clone, Debug)]
pub struct Relocatable {
    header: elf::FileHeader64<LE>,
    /// By section index; index 0 is the null section.
    pub sections: Vec<Section>,
    /// By symbol index.
    pub symbols: Vec<Symbol>,
    names: usize,
}

impl Relocatable {
    /// Reads the file.
    ///
    /// # Errors
    /// If the bytes are not a 64-bit little-endian relocatable.
    pub fn parse(bytes: &[u8]) -> Result<Self, ElfError> {
        let header = elf::FileHeader64::<LE>::parse(bytes)?;
        if header.e_type(LE) != elf::ET_REL {
            return Err(ElfError::NotRelocatable(header.e_type(LE).0));
        }
        let table = header.sections(LE, bytes)?;
        let names = header.shstrndx(LE, bytes)? as usize;
        let mut sections = Vec::with_capacity(table.len());
        for raw in table.iter() {
            let nobits = raw.sh_type(LE) == elf::SHT_NOBITS;
            let data = if nobits { &[][..] } else { raw.data(LE, bytes)? };
            sections.push(Section {
                name: utf8(table.section_name(LE, raw)?)?,
                kind: raw.sh_type(LE).0,
                flags: raw.sh_flags(LE).0,
                size: if nobits { raw.sh_size(LE) } else { data.len() as u64 },
                link: raw.sh_link(LE),
                info: raw.sh_info(LE),
                align: raw.sh_addralign(LE),
                entsize: raw.sh_entsize(LE),
                data: data.to_vec(),
                name_offset: raw.sh_name(LE),
            });
        }
        if sections.get(names).is_none_or(|s| s.kind != elf::SHT_STRTAB.0) {
            return Err(ElfError::NoNames);
        }
        let mut symbols = Vec::new();
        let symtab = table.symbols(LE, bytes, elf::SHT_SYMTAB)?;
        for (index, symbol) in symtab.enumerate() {
            let place = match (symtab.symbol_section(LE, symbol, index)?, symbol.st_shndx(LE)) {
                (Some(section), _) => Place::Section(section.0),
                (None, elf::SHN_UNDEF) => Place::Undefined,
                (None, elf::SHN_ABS) => Place::Absolute,
                (None, elf::SHN_COMMON) => Place::Common,
                (None, other) => Place::Reserved(other.0),
            };
            if let Place::Section(section) = place
                && section >= sections.len()
            {
                return Err(ElfError::NoSection { symbol: index.0, section });
            }
            symbols.push(Symbol {
                name: utf8(symtab.symbol_name(LE, symbol)?)?,
                binding: symbol.st_bind().0,
                kind: symbol.st_type().0,
                place,
                value: symbol.st_value(LE),
                size: symbol.st_size(LE),
            });
        }
        Ok(Self { header: *header, sections, symbols, names })
    }

    /// `e_machine`.
    #[must_use]
    pub fn machine(&self) -> u16 {
        self.header.e_machine.get(LE).0
    }

    /// The relocations that apply to the section of index `target`; empty if there are none.
    ///
    /// # Errors
    /// If a relocation section's size is not a whole number of entries.
    pub fn relocations(&self, target: usize) -> Result<Vec<Relocation>, ElfError> {
        let mut relocations = Vec::new();
        for section in &self.sections {
            if section.kind != elf::SHT_RELA.0 || section.info as usize != target {
                continue;
            }
            let raw = slice_from_all_bytes::<elf::Rela64<LE>>(&section.data)
                .map_err(|()| ElfError::Relocations(section.name.clone()))?;
            relocations.extend(raw.iter().map(|r| Relocation {
                offset: r.r_offset.get(LE),
                kind: r.r_type(LE, false).0,
                symbol: r.r_sym(LE, false) as usize,
                addend: r.r_addend.get(LE),
            }));
        }
        Ok(relocations)
    }

    /// Gives the section of index `index` a new name.
    ///
    /// # Errors
    /// If the name table would pass 4 GiB.
    pub fn rename(&mut self, index: usize, name: String) -> Result<(), ElfError> {
        let offset = self.append_name(&name)?;
        let section = &mut self.sections[index];
        section.name_offset = offset;
        section.name = name;
        Ok(())
    }

    /// Appends a section without address, relocations or links.
    ///
    /// # Errors
    /// If the name table would pass 4 GiB.
    pub fn append(&mut self, name: &str, kind: u32, flags: u64, data: Vec<u8>) -> Result<(), ElfError> {
        let name_offset = self.append_name(name)?;
        self.sections.push(Section {
            name: name.to_owned(),
            kind,
            flags,
            size: data.len() as u64,
            link: 0,
            info: 0,
            align: 8,
            entsize: 0,
            data,
            name_offset,
        });
        Ok(())
    }

    fn append_name(&mut self, name: &str) -> Result<u32, ElfError> {
        let table = &mut self.sections[self.names];
        let offset = u32::try_from(table.data.len()).map_err(|_| ElfError::TooManyNames)?;
        table.data.extend_from_slice(name.as_bytes());
        table.data.push(0);
        table.size = table.data.len() as u64;
        Ok(offset)
    }

    /// The file: header, sections in the order of their indices, section headers.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let total: usize = self.sections.iter().map(|s| s.data.len() + 64).sum();
        let mut out = vec![0; size_of::<elf::FileHeader64<LE>>()];
        out.reserve(total);
        let mut headers = Vec::with_capacity(self.sections.len() * 64);
        for section in &self.sections {
            let null = section.kind == elf::SHT_NULL.0;
            if !null {
                let align = usize::try_from(section.align).ok().filter(|a| a.is_power_of_two()).unwrap_or(1);
                out.resize(out.len().next_multiple_of(align.min(4096)), 0);
            }
            let raw = elf::SectionHeader64::<LE> {
                sh_name: object::U32::new(LE, section.name_offset),
                sh_type: object::U32::new(LE, elf::SectionType(section.kind)),
                sh_flags: object::U64::new(LE, elf::SectionFlags(section.flags)),
                sh_addr: object::U64::new(LE, 0),
                sh_offset: object::U64::new(LE, if null { 0 } else { out.len() as u64 }),
                sh_size: object::U64::new(LE, section.size),
                sh_link: object::U32::new(LE, section.link),
                sh_info: object::U32::new(LE, section.info),
                sh_addralign: object::U64::new(LE, section.align),
                sh_entsize: object::U64::new(LE, section.entsize),
            };
            out.extend_from_slice(&section.data);
            headers.extend_from_slice(bytes_of(&raw));
        }
        out.resize(out.len().next_multiple_of(8), 0);
        let mut header = self.header;
        header.e_shoff = object::U64::new(LE, out.len() as u64);
        // gABI, "Extended numbering": counts from SHN_LORESERVE on live in the null section's `sh_size`.
        match u16::try_from(self.sections.len()) {
            Ok(count) if count < elf::SHN_LORESERVE => header.e_shnum = object::U16::new(LE, count),
            _ => {
                header.e_shnum = object::U16::new(LE, 0);
                headers[32..40].copy_from_slice(&(self.sections.len() as u64).to_le_bytes());
            }
        }
        out.extend_from_slice(&headers);
        out[..size_of::<elf::FileHeader64<LE>>()].copy_from_slice(bytes_of(&header));
        out
    }
}

fn utf8(name: &[u8]) -> Result<String, ElfError> {
    String::from_utf8(name.to_vec()).map_err(|e| ElfError::Name(e.into_bytes()))
}
