//! The auxiliary vector: which entries mean the same everywhere, and what each instruction set promises at least.
use crate::{Isa, aarch64, x86_64};

/// End of the vector.
pub const AT_NULL: u64 = 0;
/// An entry to skip; takes the place of one that does not apply.
pub const AT_IGNORE: u64 = 1;
/// Bytes of a page.
pub const AT_PAGESZ: u64 = 6;
/// Address of the platform's name.
pub const AT_PLATFORM: u64 = 15;
/// Processor features.
pub const AT_HWCAP: u64 = 16;
/// More processor features.
pub const AT_HWCAP2: u64 = 26;
/// Address of the vDSO's ELF header.
pub const AT_SYSINFO_EHDR: u64 = 33;
/// Bytes of the largest signal frame.
pub const AT_MINSIGSTKSZ: u64 = 51;

/// What an entry is to somebody who moves a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuxKind {
    /// The value holds on every instruction set (`AT_PHDR`, `AT_RANDOM`, `AT_UID`, …).
    Neutral,
    /// The value is [`Baseline`]'s on every machine of an instruction set.
    Hwcap,
    /// As [`AuxKind::Hwcap`].
    Hwcap2,
    /// The address of [`Baseline::platform`].
    Platform,
    /// A size that may only grow.
    MinSigStack,
    /// Means nothing elsewhere: the vDSO, caches, rseq, further feature words.
    Local,
}

/// Classifies an entry by its type (`include/uapi/linux/auxvec.h` and each `asm/auxvec.h`).
#[must_use]
pub const fn kind(entry: u64) -> AuxKind {
    match entry {
        AT_PLATFORM => AuxKind::Platform,
        AT_HWCAP => AuxKind::Hwcap,
        AT_HWCAP2 => AuxKind::Hwcap2,
        AT_MINSIGSTKSZ => AuxKind::MinSigStack,
        // NULL, IGNORE, EXECFD, PHDR, PHENT, PHNUM, PAGESZ, BASE, FLAGS, ENTRY, NOTELF, UID, EUID, GID, EGID
        0..=14 => AuxKind::Neutral,
        // CLKTCK (100 everywhere), SECURE, RANDOM, EXECFN
        17 | 23 | 25 | 31 => AuxKind::Neutral,
        _ => AuxKind::Local,
    }
}

/// What every machine of an instruction set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// `AT_HWCAP`
    pub hwcap: u64,
    /// `AT_HWCAP2`
    pub hwcap2: u64,
    /// The string at `AT_PLATFORM`, with its NUL.
    pub platform: &'static [u8],
    /// `AT_MINSIGSTKSZ` without optional register sets.
    pub min_sig_stack: u64,
}

impl Baseline {
    /// The baseline of an instruction set.
    #[must_use]
    pub const fn of(isa: Isa) -> Self {
        match isa {
            Isa::X86_64 => x86_64::auxv::BASELINE,
            Isa::Aarch64 => aarch64::auxv::BASELINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_entries_are_told_from_neutral_ones() {
        assert_eq!(kind(AT_SYSINFO_EHDR), AuxKind::Local);
        assert_eq!(kind(27), AuxKind::Local, "AT_RSEQ_FEATURE_SIZE");
        assert_eq!(kind(25), AuxKind::Neutral, "AT_RANDOM");
        assert_eq!(kind(AT_PAGESZ), AuxKind::Neutral);
    }
}
