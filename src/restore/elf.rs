//! Whether a file is still the one that the process had mapped.
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use isamorph_arch::Isa;
use object::read::{Object as _, ReadCache};

use super::{Error, Result};

fn error(path: &Path, what: String) -> Error {
    Error::File { path: path.to_owned(), what }
}

/// Compares the GNU build ID of a file with the one in the images: four bytes per word, in memory order.
///
/// # Errors
/// They differ, or the file has none.
pub fn check_build_id(file: &File, path: &Path, words: &[u32]) -> Result<()> {
    let want: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let cache = ReadCache::new(file);
    let found = object::File::parse(&cache).ok().and_then(|f| f.build_id().ok().flatten().map(<[u8]>::to_vec));
    let mut padded = found.clone().unwrap_or_default();
    padded.resize(padded.len().next_multiple_of(4), 0);
    if padded == want {
        return Ok(());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let here = found.map_or_else(|| "no build ID".to_owned(), |id| format!("build ID {}", hex(&id)));
    Err(error(
        path,
        format!("has {here} here, {} in the images; bring along the file that the process ran", hex(&want)),
    ))
}

/// Refuses an executable of another instruction set.
///
/// # Errors
/// It is one, or no ELF file.
pub fn check_machine(file: &File, path: &Path) -> Result<()> {
    let mut head = [0; 20];
    let read = file.read_exact_at(&mut head, 0);
    if read.is_err() || head[..4] != *b"\x7fELF" {
        return Err(error(path, "is no ELF executable".into()));
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    match Isa::from_elf_machine(machine) {
        isa if isa == Isa::host() => Ok(()),
        Some(isa) => Err(error(path, format!("is an executable for {isa}, which this machine is not"))),
        None => Err(error(path, format!("is an executable for ELF machine {machine}, which this machine is not"))),
    }
}
