//! The auxiliary vector: the kernel's copy, and the one on the stack that the program reads.
//!
//! ```text
//!   start_stack ──▶ argc  argv[0] … NULL  envp[0] … NULL  (type, value) … (AT_NULL, 0)
//! ```
//!
//! On the stack entries keep their places; one that means nothing elsewhere becomes `AT_IGNORE`. The kernel's copy is
//! closed up, for other kernels (and CRIU) have less room for it.
use super::memory::ImageMemory;
use super::unwind::{Memory as _, MemoryError};
use isamorph_arch::auxv::{AT_IGNORE, AT_NULL, AT_PAGESZ, AuxKind, Baseline, kind};
use isamorph_arch::{Isa, RemoteAddr};

/// Entries at most; the kernel's vector has about 25.
const MAX_ENTRIES: usize = 64;
/// Arguments and environment variables at most (`MAX_ARG_STRINGS` is larger, the stack's limit is not).
const MAX_STRINGS: u64 = 1 << 21;

/// Why the vector on the stack cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuxvError {
    /// It is not where the kernel puts it.
    #[error("no auxiliary vector above argc, argv and envp at {at}")]
    NotFound {
        /// Where argc should be.
        at: RemoteAddr,
    },
    /// Not an address space of 4 KiB pages.
    #[error("the process has pages of {0} bytes; only 4096 can be moved")]
    PageSize(u64),
    /// Memory that is not stored.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The entries up to and including `AT_NULL`; words after it are the kernel's unused room.
#[must_use]
pub fn trim(words: &[u64]) -> Vec<(u64, u64)> {
    let mut entries: Vec<_> =
        words.chunks_exact(2).map(|pair| (pair[0], pair[1])).take_while(|(entry, _)| *entry != AT_NULL).collect();
    entries.push((AT_NULL, 0));
    entries
}

/// Address and entries of the vector on the stack; `start_stack` is where the kernel put `argc`.
///
/// # Errors
/// There is none there.
pub fn find(memory: &mut ImageMemory<'_>, start_stack: RemoteAddr) -> Result<(RemoteAddr, Vec<(u64, u64)>), AuxvError> {
    let missing = || AuxvError::NotFound { at: start_stack };
    let argc = memory.word(start_stack)?;
    let mut at = start_stack.checked_add(8).ok_or_else(missing)?;
    if argc > MAX_STRINGS {
        return Err(missing());
    }
    at = at.checked_add(8 * argc).ok_or_else(missing)?;
    if memory.word(at)? != 0 {
        return Err(missing());
    }
    at = at.checked_add(8).ok_or_else(missing)?;
    for _ in 0..MAX_STRINGS {
        let variable = memory.word(at)?;
        at = at.checked_add(8).ok_or_else(missing)?;
        if variable == 0 {
            let mut entries = Vec::new();
            for index in 0..MAX_ENTRIES as u64 {
                let entry = at.checked_add(16 * index).ok_or_else(missing)?;
                let value = entry.checked_add(8).ok_or_else(missing)?;
                entries.push((memory.word(entry)?, memory.word(value)?));
                if entries.last().is_some_and(|(entry, _)| *entry == AT_NULL) {
                    return Ok((at, entries));
                }
            }
            return Err(missing());
        }
    }
    Err(missing())
}

/// Refuses page sizes other than 4096.
///
/// # Errors
/// The page size.
pub fn check_page_size(entries: &[(u64, u64)]) -> Result<(), AuxvError> {
    match entries.iter().find(|(entry, _)| *entry == AT_PAGESZ) {
        Some((_, 4096)) | None => Ok(()),
        Some((_, size)) => Err(AuxvError::PageSize(*size)),
    }
}

/// Converts entries to what holds on every machine of the target. `platform` is the address of its name, if there
/// is room for it.
pub fn convert(entries: &mut [(u64, u64)], to: Isa, platform: Option<RemoteAddr>) {
    let baseline = Baseline::of(to);
    for (entry, value) in entries {
        match kind(*entry) {
            AuxKind::Neutral => {}
            AuxKind::Hwcap => *value = baseline.hwcap,
            AuxKind::Hwcap2 => *value = baseline.hwcap2,
            AuxKind::MinSigStack => *value = (*value).max(baseline.min_sig_stack),
            AuxKind::Platform => match platform {
                Some(at) => *value = at.0,
                None => (*entry, *value) = (AT_IGNORE, 0),
            },
            AuxKind::Local => (*entry, *value) = (AT_IGNORE, 0),
        }
    }
}

/// Removes the entries that say nothing.
pub fn close_up(entries: &mut Vec<(u64, u64)>) {
    entries.retain(|(entry, _)| *entry != AT_IGNORE);
}

/// Puts the target's platform name where the source's is; `None` if there is none or it does not fit.
///
/// The kernel aligns the end of the string to 16 bytes and puts the arguments' strings above; a longer name may
/// only take the gap in between.
///
/// # Errors
/// The string's memory is not stored.
pub fn rewrite_platform(
    memory: &mut ImageMemory<'_>,
    entries: &[(u64, u64)],
    from: Isa,
    to: Isa,
    arg_start: u64,
) -> Result<Option<RemoteAddr>, MemoryError> {
    let (old, new) = (Baseline::of(from).platform, Baseline::of(to).platform);
    let at = entries.iter().find(|(entry, _)| kind(*entry) == AuxKind::Platform).map(|(_, value)| RemoteAddr(*value));
    let Some(at) = at else { return Ok(None) };
    let mut found = vec![0; old.len()];
    memory.read(at, &mut found)?;
    let room = arg_start.checked_sub(at.0);
    if found != old || (new.len() > old.len() && room.is_none_or(|room| room < new.len() as u64)) {
        return Ok(None);
    }
    memory.write(at, new)?;
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_entries_are_ignored_and_places_kept() {
        // SYSINFO_EHDR, HWCAP, PAGESZ, PLATFORM, RSEQ_ALIGN, MINSIGSTKSZ, RANDOM
        let mut entries =
            [(33, 0x7fff_0000), (16, 0xbfeb_fbff), (6, 4096), (15, 0x1000), (28, 32), (51, 3632), (25, 0x2000), (0, 0)];
        check_page_size(&entries).unwrap();
        convert(&mut entries, Isa::Aarch64, None);
        assert_eq!(entries, [(1, 0), (16, 3), (6, 4096), (1, 0), (1, 0), (51, 4720), (25, 0x2000), (0, 0)]);
        let mut saved = entries.to_vec();
        close_up(&mut saved);
        assert_eq!(saved, [(16, 3), (6, 4096), (51, 4720), (25, 0x2000), (0, 0)]);
        convert(&mut entries, Isa::X86_64, Some(RemoteAddr(8)));
        assert_eq!(entries[5], (51, 4720), "a signal stack that once sufficed still does");
    }

    #[test]
    fn other_page_sizes_are_refused() {
        assert!(check_page_size(&[(6, 65536)]).is_err());
    }

    #[test]
    fn the_kernels_unused_room_is_cut() {
        assert_eq!(trim(&[6, 4096, 0, 0, 0, 0, 7]), [(6, 4096), (0, 0)]);
        assert_eq!(trim(&[]), [(0, 0)]);
    }
}
