//! One executable of a pair: its segments, TLS, build ID, manifest and the tables the manifest names.
use super::bytes::Cursor;
use super::manifest::{self, Manifest};
use super::{Error, Poll, SiteTable, bbmap, polls, stackmaps};
use isamorph_arch::{Isa, RemoteAddr, tls::TlsLayout};
use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use std::ops::Range;

type Header = elf::FileHeader64<Endianness>;

/// One PT_LOAD segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub vaddr: u64,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Bytes that come from the file.
    pub filesz: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
    /// Alignment.
    pub align: u64,
}

/// The PT_TLS segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Address of the initial image.
    pub vaddr: u64,
    /// Bytes of the initial image.
    pub filesz: u64,
    /// Size and alignment: what the thread-pointer formula needs.
    pub layout: TlsLayout,
}

/// A symbol: a name for messages, never a fact to rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its value.
    pub addr: u64,
    /// Its size in bytes, often 0.
    pub size: u64,
    /// Its name.
    pub name: String,
    /// Whether it is global or weak.
    pub global: bool,
    /// What it names.
    pub kind: SymbolKind,
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// A function.
    Function,
    /// An object.
    Object,
    /// A thread-local object: its address is an offset in the TLS block.
    Tls,
    /// A label, in assembly or of the linker.
    Label,
}

/// A portable executable of one ISA.
#[derive(Clone, Debug)]
pub struct Executable {
    bytes: Vec<u8>,
    /// Its instruction set.
    pub isa: Isa,
    /// Entry point.
    pub entry: RemoteAddr,
    /// GNU build ID, if there is one.
    pub build_id: Option<Vec<u8>>,
    /// PT_LOAD segments in the order of the program headers.
    pub segments: Vec<Segment>,
    /// Thread-local storage, if there is any.
    pub tls: Option<Tls>,
    /// Address of the manifest.
    pub manifest_addr: RemoteAddr,
    /// The manifest.
    pub manifest: Manifest,
    /// Polls, in the order of the file.
    pub polls: Vec<Poll>,
    /// Symbols sorted by address; empty if stripped.
    pub symbols: Vec<Symbol>,
}

impl Executable {
    /// Reads an executable: little-endian ELF64, ET_EXEC, with a manifest.
    ///
    /// # Errors
    /// If it is damaged, or an ordinary executable ([`Error::NoManifest`]).
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = bytes.into();
        let data = bytes.as_slice();
        let header = Header::parse(data).map_err(elf_error)?;
        let endian = header.endian().map_err(elf_error)?;
        if endian != Endianness::Little {
            return Err(Error::NotPortable("big-endian"));
        }
        let isa = Isa::from_elf_machine(header.e_machine(endian).0)
            .ok_or(Error::NotPortable("neither x86_64 nor aarch64"))?;
        if header.e_type(endian) != elf::ET_EXEC {
            return Err(Error::NotPortable("not a static executable at fixed addresses (ET_EXEC)"));
        }
        let mut segments = Vec::new();
        let mut tls = None;
        let mut build_id = None;
        for program in header.program_headers(endian, data).map_err(elf_error)? {
            match program.p_type(endian) {
                elf::PT_LOAD => segments.push(load(program, endian, data.len())?),
                elf::PT_TLS => {
                    tls = Some(Tls {
                        vaddr: program.p_vaddr(endian),
                        filesz: program.p_filesz(endian),
                        layout: TlsLayout { memsz: program.p_memsz(endian), align: program.p_align(endian) },
                    });
                }
                elf::PT_NOTE => {
                    let note = program.data(endian, data).unwrap_or_default();
                    build_id = build_id.or_else(|| gnu_build_id(note));
                }
                elf::PT_INTERP | elf::PT_DYNAMIC => return Err(Error::NotPortable("dynamically linked")),
                _ => {}
            }
        }
        if segments.windows(2).any(|w| w[0].vaddr + w[0].memsz > w[1].vaddr) {
            return Err(Error::Elf("PT_LOAD segments overlap or are not in order".into()));
        }
        let (manifest_addr, manifest) = find_manifest(data, &segments, isa)?;
        let mut executable = Self {
            isa,
            entry: RemoteAddr(header.e_entry(endian)),
            build_id,
            segments,
            tls,
            manifest_addr: RemoteAddr(manifest_addr),
            manifest,
            polls: Vec::new(),
            symbols: symbols(header, endian, data),
            bytes,
        };
        executable.polls = polls::parse(executable.range("polls", &executable.manifest.polls)?)?;
        Ok(executable)
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `len` bytes at `addr` as the file has them; `None` if they are not all in one segment's file part.
    #[must_use]
    pub fn read(&self, addr: RemoteAddr, len: u64) -> Option<&[u8]> {
        let at = self.file_offset(addr, len)?;
        self.bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
    }

    /// Offset in the file of `len` bytes at `addr`; `None` if they are not all in one segment's file part.
    #[must_use]
    pub fn file_offset(&self, addr: RemoteAddr, len: u64) -> Option<u64> {
        let end = addr.0.checked_add(len)?;
        let segment = self.segments.iter().find(|s| s.vaddr <= addr.0 && end <= s.vaddr + s.filesz)?;
        Some(segment.offset + (addr.0 - segment.vaddr))
    }

    /// The segment that covers `addr` in memory.
    #[must_use]
    pub fn segment_at(&self, addr: RemoteAddr) -> Option<&Segment> {
        self.segments.iter().find(|s| s.vaddr <= addr.0 && addr.0 < s.vaddr + s.memsz)
    }

    /// The bytes of a range of the manifest; empty for an empty range.
    ///
    /// # Errors
    /// If the range is not in the file part of one segment.
    pub fn range(&self, what: &'static str, range: &Range<u64>) -> Result<&[u8], Error> {
        if range.is_empty() {
            return Ok(&[]);
        }
        self.read(RemoteAddr(range.start), range.end - range.start).ok_or(Error::Range {
            what,
            start: range.start,
            end: range.end,
        })
    }

    /// What the verifier proved.
    ///
    /// # Errors
    /// If the executable was never verified, or the table is damaged.
    pub fn sites(&self) -> Result<SiteTable, Error> {
        if self.manifest.sites.is_empty() {
            return Err(Error::NoSites);
        }
        SiteTable::parse(self.range("sites", &self.manifest.sites)?, self.isa)
    }

    /// Stack-map records.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn stackmaps(&self) -> Result<stackmaps::StackMaps, Error> {
        stackmaps::parse(self.range("stack maps", &self.manifest.stackmaps)?)
    }

    /// Basic blocks of every function.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn bbmap(&self) -> Result<Vec<bbmap::Function>, Error> {
        bbmap::parse(self.range("basic-block map", &self.manifest.bbmap)?)
    }

    /// Call-frame information, as `.eh_frame` has it, and its address.
    ///
    /// # Errors
    /// If the range is not in the file.
    pub fn eh_frame(&self) -> Result<(&[u8], RemoteAddr), Error> {
        let range = &self.manifest.eh_frame;
        Ok((self.range("eh_frame", range)?, RemoteAddr(range.start)))
    }

    /// The symbol at or before `addr`, and the distance to it: for messages.
    #[must_use]
    pub fn symbol_at(&self, addr: RemoteAddr) -> Option<(&str, u64)> {
        let end = self.symbols.partition_point(|s| s.addr <= addr.0);
        let symbol = self.symbols[..end].iter().rev().find(|s| s.kind != SymbolKind::Tls)?;
        Some((&symbol.name, addr.0 - symbol.addr))
    }

    /// A name for `addr`: `main+0x1c`, or the number if there are no symbols.
    #[must_use]
    pub fn name(&self, addr: RemoteAddr) -> String {
        match self.symbol_at(addr) {
            Some((name, 0)) => name.to_owned(),
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => addr.to_string(),
        }
    }
}

fn elf_error(error: object::Error) -> Error {
    Error::Elf(error.to_string())
}

fn load(program: &elf::ProgramHeader64<Endianness>, endian: Endianness, file_len: usize) -> Result<Segment, Error> {
    let segment = Segment {
        vaddr: program.p_vaddr(endian),
        offset: program.p_offset(endian),
        filesz: program.p_filesz(endian),
        memsz: program.p_memsz(endian),
        flags: program.p_flags(endian).0,
        align: program.p_align(endian),
    };
    let in_file = segment.offset.checked_add(segment.filesz).is_some_and(|end| end <= file_len as u64);
    let in_memory = segment.vaddr.checked_add(segment.memsz).is_some_and(|end| end < 1 << 47);
    if !in_file || !in_memory || segment.filesz > segment.memsz {
        return Err(Error::Elf(format!(
            "the PT_LOAD segment at {:#x} is not in the file or above 2^47",
            segment.vaddr
        )));
    }
    Ok(segment)
}

/// Looks for the manifest in the read-only segments, at multiples of 8: section headers may be gone.
fn find_manifest(data: &[u8], segments: &[Segment], isa: Isa) -> Result<(u64, Manifest), Error> {
    let mut found: Option<(u64, Manifest)> = None;
    let mut refused = None;
    for segment in segments.iter().filter(|s| s.flags & (elf::PF_W | elf::PF_X).0 == 0) {
        let start = segment.offset as usize;
        let bytes = &data[start..start + segment.filesz as usize];
        let first = segment.vaddr.next_multiple_of(8) - segment.vaddr;
        for at in (first as usize..bytes.len().saturating_sub(manifest::LEN - 1)).step_by(8) {
            if bytes[at..at + 8] != manifest::MAGIC {
                continue;
            }
            let addr = segment.vaddr + at as u64;
            match Manifest::parse(&bytes[at..], isa) {
                Ok(manifest) => {
                    if let Some((other, _)) = found {
                        return Err(Error::TwoManifests(other, addr));
                    }
                    found = Some((addr, manifest));
                }
                Err(error) => refused = Some(error),
            }
        }
    }
    found.ok_or_else(|| refused.unwrap_or(Error::NoManifest))
}

/// The descriptor of the first `NT_GNU_BUILD_ID` note (type 3, name `GNU`).
fn gnu_build_id(notes: &[u8]) -> Option<Vec<u8>> {
    let mut c = Cursor::new("note", notes);
    loop {
        let (name_len, desc_len, kind) = (c.u32().ok()?, c.u32().ok()?, c.u32().ok()?);
        let name = c.take(name_len as usize).ok()?;
        c.align(4);
        let desc = c.take(desc_len as usize).ok()?;
        c.align(4);
        if kind == 3 && name == b"GNU\0" {
            return Some(desc.to_vec());
        }
    }
}

fn symbols(header: &Header, endian: Endianness, data: &[u8]) -> Vec<Symbol> {
    let Ok(sections) = header.sections(endian, data) else { return Vec::new() };
    let Ok(table) = sections.symbols(endian, data, elf::SHT_SYMTAB) else { return Vec::new() };
    let mut symbols = Vec::new();
    for symbol in table.iter() {
        let kind = match symbol.st_type() {
            elf::STT_FUNC => SymbolKind::Function,
            elf::STT_OBJECT => SymbolKind::Object,
            elf::STT_TLS => SymbolKind::Tls,
            elf::STT_NOTYPE => SymbolKind::Label,
            _ => continue,
        };
        let section = symbol.st_shndx(endian);
        if section == elf::SHN_UNDEF || section == elf::SHN_ABS {
            continue;
        }
        let Ok(name) = symbol.name(endian, table.strings()) else { continue };
        // `$x`, `$d`: AAELF64's mapping symbols, which name nothing.
        if name.is_empty() || name.starts_with(b"$") {
            continue;
        }
        symbols.push(Symbol {
            addr: symbol.st_value(endian),
            size: symbol.st_size(endian),
            name: String::from_utf8_lossy(name).into_owned(),
            global: symbol.st_bind() != elf::STB_LOCAL,
            kind,
        });
    }
    // Functions and objects after labels at the same address, so that they win when searched backwards.
    symbols.sort_by(|a, b| (a.addr, a.size, &a.name).cmp(&(b.addr, b.size, &b.name)));
    symbols
}
