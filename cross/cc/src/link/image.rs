//! An executable of the pair, after linking: its segment table, its manifest, and the growth of its sites segment.
use isamorph_arch::Isa;
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

use super::LinkError;
use super::script::{SEGMENT_ALIGN, SITES_HEADER};

/// Name of the section that says what the pair consists of.
const MANIFEST: &str = ".isamorph.manifest";
/// Name of the section that the verifier's result goes to.
const SITES: &str = ".isamorph.sites";
/// Offsets in the manifest (`docs/architecture.md` §4.6).
const MANIFEST_SITES: usize = 240;
const MANIFEST_OWN_ID: usize = 256;
const MANIFEST_PEER_ID: usize = 288;
const MANIFEST_END: usize = 320;

/// A PT_LOAD: (address, file offset, file size, memory size, flags).
pub type Load = (u64, u64, u64, u64, u32);

/// A linked executable in memory.
#[derive(Debug)]
pub struct Image {
    /// What it runs on.
    pub isa: Isa,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A section as the headers have it.
#[derive(Clone, Copy, Debug)]
struct Span {
    address: u64,
    offset: usize,
    size: usize,
}

impl Image {
    fn damaged(&self, source: object::read::Error) -> LinkError {
        LinkError::Linker { isa: self.isa, message: format!("ld.lld wrote a damaged file: {source}") }
    }

    /// The PT_LOAD table.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn loads(&self) -> Result<Vec<Load>, LinkError> {
        let bytes = &*self.bytes;
        let header = elf::FileHeader64::<LE>::parse(bytes).map_err(|e| self.damaged(e))?;
        let segments = header.program_headers(LE, bytes).map_err(|e| self.damaged(e))?;
        let loads = segments.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD);
        let fields = |p: &elf::ProgramHeader64<LE>| {
            (p.p_vaddr(LE), p.p_offset(LE), p.p_filesz(LE), p.p_memsz(LE), p.p_flags(LE).0)
        };
        Ok(loads.map(fields).collect())
    }

    fn section(&self, name: &str) -> Result<Option<Span>, LinkError> {
        let bytes = &*self.bytes;
        let header = elf::FileHeader64::<LE>::parse(bytes).map_err(|e| self.damaged(e))?;
        let sections = header.sections(LE, bytes).map_err(|e| self.damaged(e))?;
        let Some((_, section)) = sections.section_by_name(LE, name.as_bytes()) else { return Ok(None) };
        let narrow = |value: u64| usize::try_from(value).ok().filter(|v| *v <= bytes.len());
        Ok(narrow(section.sh_offset(LE))
            .zip(narrow(section.sh_size(LE)))
            .filter(|(offset, size)| offset.saturating_add(*size) <= bytes.len())
            .map(|(offset, size)| Span { address: section.sh_addr(LE), offset, size }))
    }

    /// Whether the program has a manifest, without which it can be neither verified nor moved.
    ///
    /// # Errors
    /// If the file is damaged, or the manifest has another size than §4.6 says.
    pub fn has_manifest(&self) -> Result<bool, LinkError> {
        match self.section(MANIFEST)? {
            Some(span) if span.size == MANIFEST_END => Ok(true),
            Some(span) if span.size == 0 => Ok(false),
            None => Ok(false),
            Some(span) => Err(LinkError::Manifest { size: span.size, expected: MANIFEST_END }),
        }
    }

    /// Grows the sites segment to `size` bytes and puts `table` there, zeros after it.
    ///
    /// The segment is the last one and its section the last one with an address, so that only what has none
    /// (symbols, debug information, section headers) moves in the file.
    ///
    /// # Errors
    /// If the file has no sites segment where the script put it.
    pub fn put_sites(&mut self, table: &[u8], size: usize) -> Result<(), LinkError> {
        let broken = |what: &str| LinkError::Linker { isa: self.isa, message: format!("sites segment: {what}") };
        let span = self.section(SITES)?.ok_or_else(|| broken("missing"))?;
        let header = *elf::FileHeader64::<LE>::parse(&*self.bytes).map_err(|e| self.damaged(e))?;
        if span.size as u64 != SITES_HEADER || size < span.size || table.len() > size || !size.is_multiple_of(64) {
            return Err(broken("of unexpected size"));
        }
        let end = span.offset + span.size;
        let growth = size - span.size;
        let moved = |offset: u64| if offset >= end as u64 { offset + growth as u64 } else { offset };
        let (phoff, phnum) = (header.e_phoff(LE) as usize, usize::from(header.e_phnum(LE)));
        let mut found = false;
        for at in (0..phnum).map(|i| phoff + 56 * i) {
            // Elf64_Phdr: p_type 0, p_flags 4, p_offset 8, p_vaddr 16, p_paddr 24, p_filesz 32, p_memsz 40.
            let field = |o: usize| read_u64(&self.bytes, at + o);
            if field(16) == Some(span.address) && field(8) == Some(span.offset as u64) {
                write_u64(&mut self.bytes, at + 32, size as u64);
                write_u64(&mut self.bytes, at + 40, size as u64);
                found = true;
            }
        }
        if !found {
            return Err(broken("without program header"));
        }
        let (shoff, shnum) = (header.e_shoff(LE) as usize, usize::from(header.e_shnum.get(LE)));
        for at in (0..shnum).map(|i| shoff + 64 * i) {
            // Elf64_Shdr: sh_flags 8, sh_addr 16, sh_offset 24, sh_size 32.
            let offset = read_u64(&self.bytes, at + 24).ok_or_else(|| broken("section headers cut off"))?;
            write_u64(&mut self.bytes, at + 24, moved(offset));
            if read_u64(&self.bytes, at + 16) == Some(span.address) && offset == span.offset as u64 {
                // The linker gives a section without input the flags of the one before it.
                write_u64(&mut self.bytes, at + 8, elf::SHF_ALLOC.0);
                write_u64(&mut self.bytes, at + 32, size as u64);
            }
        }
        // Elf64_Ehdr: e_shoff 40.
        write_u64(&mut self.bytes, 40, moved(header.e_shoff(LE)));
        self.bytes.splice(end..end, std::iter::repeat_n(0, growth));
        self.bytes[span.offset..span.offset + table.len()].copy_from_slice(table);
        let manifest = self.section(MANIFEST)?.ok_or_else(|| broken("no manifest"))?;
        write_u64(&mut self.bytes, manifest.offset + MANIFEST_SITES, span.address);
        write_u64(&mut self.bytes, manifest.offset + MANIFEST_SITES + 8, span.address + table.len() as u64);
        Ok(())
    }

    /// The executable's ID, as whoever opens the pair computes it.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn identity(&self) -> Result<[u8; 32], LinkError> {
        let broken = |error: isamorph::portable::Error| LinkError::Linker { isa: self.isa, message: error.to_string() };
        let executable = isamorph::portable::Executable::parse(self.bytes.clone()).map_err(broken)?;
        isamorph::portable::pair::id(&executable).map_err(broken)
    }

    /// Writes both IDs to the manifest.
    ///
    /// # Errors
    /// If there is no manifest.
    pub fn put_identities(&mut self, own: &[u8; 32], peer: &[u8; 32]) -> Result<(), LinkError> {
        let manifest = self.section(MANIFEST)?.ok_or(LinkError::NoManifest)?;
        self.bytes[manifest.offset + MANIFEST_OWN_ID..][..32].copy_from_slice(own);
        self.bytes[manifest.offset + MANIFEST_PEER_ID..][..32].copy_from_slice(peer);
        Ok(())
    }
}

/// That both have the same PT_LOAD table, in 64 KiB aligned segments.
///
/// # Errors
/// Naming the first segment that differs.
pub fn compare_loads(x: &Image, a: &Image) -> Result<(), LinkError> {
    let (lx, la) = (x.loads()?, a.loads()?);
    for ordinal in 0..lx.len().max(la.len()) {
        let (p, q) = (lx.get(ordinal).copied(), la.get(ordinal).copied());
        if p != q || p.is_some_and(|p| p.0 % SEGMENT_ALIGN != 0 || p.1 % SEGMENT_ALIGN != 0) {
            return Err(LinkError::Segments { ordinal, x86_64: p, aarch64: q });
        }
    }
    Ok(())
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn write_u64(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(field) = bytes.get_mut(at..at + 8) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}
