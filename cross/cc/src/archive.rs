//! Archives of fat objects (`ar`'s GNU format), and of each ISA's own objects (`libgcc.a`).
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use object::LittleEndian as LE;
use object::elf;
use object::read::archive::ArchiveFile;
use object::read::elf::{FileHeader as _, Sym as _};

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The archive.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It is no archive, or a damaged one.
    #[error("{path}: {source}")]
    Malformed {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        source: object::read::Error,
    },
    /// `ar rcT`: it only names its members.
    #[error("{0}: thin archives are not supported; make it without ar's T modifier")]
    Thin(PathBuf),
}

/// One file of an archive.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name in the archive.
    pub name: String,
    start: usize,
    end: usize,
}

/// An archive in memory, with what each member defines.
#[derive(Debug)]
pub struct Archive {
    /// Where it came from.
    pub path: PathBuf,
    /// In the order of the file.
    pub members: Vec<Member>,
    /// Index in `members` of the first member that defines a symbol.
    pub defines: HashMap<String, usize>,
    bytes: Vec<u8>,
}

impl Archive {
    /// Reads the archive at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is not an archive with its members inside.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let bytes = std::fs::read(path).map_err(|source| ArchiveError::Read { path: path.to_owned(), source })?;
        Self::parse(path, bytes)
    }

    /// Reads an archive from memory; `path` is for messages.
    ///
    /// # Errors
    /// If it is not an archive with its members inside.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, ArchiveError> {
        let malformed = |source| ArchiveError::Malformed { path: path.to_owned(), source };
        let file = ArchiveFile::parse(&*bytes).map_err(malformed)?;
        if file.is_thin() {
            return Err(ArchiveError::Thin(path.to_owned()));
        }
        let mut members = Vec::new();
        let mut defines = HashMap::new();
        for member in file.members() {
            let member = member.map_err(malformed)?;
            // Not the archive's own index: it is there only if `ranlib` ran, and lists nothing more than this.
            let data = member.data(&*bytes).map_err(malformed)?;
            for symbol in defined(data) {
                defines.entry(symbol).or_insert(members.len());
            }
            let (start, size) = member.file_range();
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            members.push(Member {
                name: String::from_utf8_lossy(member.name()).into_owned(),
                start,
                end: start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)),
            });
        }
        Ok(Self { path: path.to_owned(), members, defines, bytes })
    }

    /// The bytes of a member.
    #[must_use]
    pub fn data(&self, member: usize) -> &[u8] {
        self.members.get(member).and_then(|m| self.bytes.get(m.start..m.end)).unwrap_or_default()
    }

    /// `libx.a(y.o)`, as linkers print it.
    #[must_use]
    pub fn label(&self, member: usize) -> String {
        let name = self.members.get(member).map_or("?", |m| &m.name);
        format!("{}({name})", self.path.display())
    }
}

/// Writes an archive in GNU's format with an index of symbols, without times or owners.
#[must_use]
pub fn write(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    // "!<arch>\n", "/" (index: count, offsets, names; big endian), "//" (names over 15 bytes), members.
    let header = |name: &str, size: usize| format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
    let mut names = String::new();
    let short: Vec<String> = members
        .iter()
        .map(|(name, _)| {
            if name.len() < 16 {
                return format!("{name}/");
            }
            let at = names.len();
            names += &format!("{name}/\n");
            format!("/{at}")
        })
        .collect();
    if names.len() % 2 == 1 {
        names.push('\n');
    }
    let symbols: Vec<(usize, String)> =
        members.iter().enumerate().flat_map(|(i, (_, data))| defined(data).into_iter().map(move |s| (i, s))).collect();
    let strings: usize = symbols.iter().map(|(_, s)| s.len() + 1).sum();
    let index_size = (4 + 4 * symbols.len() + strings).next_multiple_of(2);
    let mut at = 8 + 60 + index_size + if names.is_empty() { 0 } else { 60 + names.len() };
    let offsets: Vec<u32> = members
        .iter()
        .map(|(_, data)| {
            let here = at;
            at += 60 + data.len().next_multiple_of(2);
            u32::try_from(here).unwrap_or(u32::MAX)
        })
        .collect();
    let mut out = b"!<arch>\n".to_vec();
    out.extend(header("/", index_size).bytes());
    out.extend(u32::try_from(symbols.len()).unwrap_or(u32::MAX).to_be_bytes());
    symbols.iter().for_each(|(member, _)| out.extend(offsets[*member].to_be_bytes()));
    symbols.iter().for_each(|(_, name)| out.extend(name.bytes().chain([0])));
    out.resize(8 + 60 + index_size, 0);
    if !names.is_empty() {
        out.extend(header("//", names.len()).bytes().chain(names.bytes()));
    }
    for (name, (_, data)) in short.iter().zip(members) {
        out.extend(header(name, data.len()).bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

/// The external symbols that an object defines; none if it is no object (archives may hold text files).
fn defined(data: &[u8]) -> Vec<String> {
    let Ok(header) = elf::FileHeader64::<LE>::parse(data) else { return Vec::new() };
    let symbols = header.sections(LE, data).and_then(|s| s.symbols(LE, data, elf::SHT_SYMTAB));
    let Ok(symbols) = symbols else { return Vec::new() };
    let external = symbols.iter().filter(|s| !s.is_undefined(LE) && s.st_bind() != elf::STB_LOCAL);
    external.filter_map(|s| String::from_utf8(symbols.symbol_name(LE, s).ok()?.to_vec()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let members = [("short.o".to_owned(), b"odd".to_vec()), ("a-rather-long-name.o".to_owned(), b"even".to_vec())];
        let archive = Archive::parse(Path::new("x.a"), write(&members)).unwrap();
        let names: Vec<_> = archive.members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["short.o", "a-rather-long-name.o"]);
        assert_eq!((archive.data(0), archive.data(1)), (&b"odd"[..], &b"even"[..]));
        assert_eq!(archive.label(1), "x.a(a-rather-long-name.o)");
    }

    #[test]
    fn thin_and_damaged_archives_are_refused() {
        let parse = |bytes: &[u8]| Archive::parse(Path::new("x.a"), bytes.to_vec());
        assert!(matches!(parse(b"!<thin>\n"), Err(ArchiveError::Thin(_))));
        assert!(matches!(parse(b"!<arch>\nnonsense"), Err(ArchiveError::Malformed { .. })));
    }
}
