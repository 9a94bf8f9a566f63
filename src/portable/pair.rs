//! Both executables of a program, found beside each other and checked to be of one link.
use super::manifest::OWN_ID_AT;
use super::{Error, Executable};
use isamorph_arch::{Isa, RemoteAddr};
use std::path::{Path, PathBuf};

/// Bytes of an ELF64 header, which `strip` changes.
const ELF_HEADER_LEN: u64 = 64;

/// The two executables of one program.
#[derive(Clone, Debug)]
pub struct Pair {
    x86_64: Member,
    aarch64: Member,
}

/// One executable of a pair and where it was found.
#[derive(Clone, Debug)]
pub struct Member {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub executable: Executable,
}

impl Pair {
    /// Opens the pair that `path` belongs to: `NAME_x86-64`, `NAME_aarch64` or a link to one of them.
    /// Both files are looked for in `dir`, or beside `path`.
    ///
    /// # Errors
    /// If a file is missing, damaged, changed, misnamed, or the two are not of one link.
    pub fn open(path: &Path, dir: Option<&Path>) -> Result<Self, Error> {
        // With `dir` given, the program may have run on another machine: then its path is only a name.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let base = base_name(&real).ok_or_else(|| Error::NotNamedAsPair { path: real.clone() })?;
        let dir = dir.or_else(|| real.parent()).unwrap_or(Path::new("."));
        let member = |isa: Isa| Member::open(dir.join(format!("{base}_{}", isa.pair_suffix())), isa);
        let pair = Self { x86_64: member(Isa::X86_64)?, aarch64: member(Isa::Aarch64)? };
        for isa in Isa::ALL {
            let (own, peer) = (pair.get(isa), pair.get(isa.peer()));
            let (own_id, ids) = (&own.executable.manifest.own_id, &peer.executable.manifest.peer_id);
            if own_id != ids || *own_id == [0; 32] {
                return Err(Error::NotAPair { a: own.path.clone(), b: peer.path.clone() });
            }
            if id(&own.executable)? != *own_id {
                return Err(Error::Changed { path: own.path.clone() });
            }
        }
        Ok(pair)
    }

    /// The member for an ISA.
    #[must_use]
    pub fn get(&self, isa: Isa) -> &Member {
        match isa {
            Isa::X86_64 => &self.x86_64,
            Isa::Aarch64 => &self.aarch64,
        }
    }
}

impl Member {
    fn open(path: PathBuf, named: Isa) -> Result<Self, Error> {
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let executable =
            Executable::parse(bytes).map_err(|source| Error::File { path: path.clone(), source: Box::new(source) })?;
        if executable.isa != named {
            return Err(Error::WrongIsa { path, named, isa: executable.isa });
        }
        Ok(Self { path, executable })
    }
}

/// The name of the program that an executable of a pair belongs to: `app` of `app_aarch64`.
#[must_use]
pub fn base_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    Isa::ALL.iter().find_map(|isa| name.strip_suffix(isa.pair_suffix())?.strip_suffix('_')).filter(|s| !s.is_empty())
}

/// The ID of an executable: BLAKE3 of the file parts of its PT_LOAD segments, in order, with the ELF
/// header, the manifest's two IDs and the site table zeroed.
///
/// So the ID is the same before and after `strip` (which rewrites the ELF header and drops what no
/// segment covers) and can be computed once the sites' segment has its place and size.
///
/// # Errors
/// If the manifest's range of sites is not in the file.
pub fn id(executable: &Executable) -> Result<[u8; 32], Error> {
    let sites = &executable.manifest.sites;
    let ids = executable.manifest_addr.0 + OWN_ID_AT as u64;
    let mut blank = Vec::from([(0, ELF_HEADER_LEN)]);
    for (what, start, end) in [("pair IDs", ids, ids + 64), ("sites", sites.start, sites.end)] {
        if start < end {
            let offset = executable.file_offset(RemoteAddr(start), end - start);
            let offset = offset.ok_or(Error::Range { what, start, end })?;
            blank.push((offset, offset + (end - start)));
        }
    }
    let mut hasher = blake3::Hasher::new();
    for segment in &executable.segments {
        let file = segment.offset..segment.offset + segment.filesz;
        let mut bytes = executable.bytes()[file.start as usize..file.end as usize].to_vec();
        for (start, end) in &blank {
            let (start, end) = (file.start.max(*start), file.end.min(*end));
            if start < end {
                bytes[(start - file.start) as usize..(end - file.start) as usize].fill(0);
            }
        }
        hasher.update(&bytes);
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members() {
        assert_eq!(base_name(Path::new("/usr/bin/app_x86-64")), Some("app"));
        assert_eq!(base_name(Path::new("a_b_aarch64")), Some("a_b"));
        assert_eq!(base_name(Path::new("app")), None);
        assert_eq!(base_name(Path::new("_aarch64")), None);
    }
}
