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

/// The external symbols that an object defines; none if it is no object (archives may hold text files).
fn defined(data: &[u8]) -> Vec<String> {
    let Ok(header) = elf::FileHeader64::<LE>::parse(data) else { return Vec::new() };
    let symbols = header.sections(LE, data).and_then(|s| s.symbols(LE, data, elf::SHT_SYMTAB));
    let Ok(symbols) = symbols else { return Vec::new() };
    let external = symbols.iter().filter(|s| !s.is_undefined(LE) && s.st_bind() != elf::STB_LOCAL);
    external.filter_map(|s| String::from_utf8(symbols.symbol_name(LE, s).ok()?.to_vec()).ok()).collect()
}
