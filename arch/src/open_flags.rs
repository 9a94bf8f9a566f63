//! File status flags: four bits of them mean different things on the two instruction sets.
use crate::{Isa, aarch64, x86_64};

/// The flags whose bits differ. Everything else in `f_flags` is asm-generic on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags {
    /// `O_DIRECT`
    pub direct: u32,
    /// `O_LARGEFILE`, which a 64-bit kernel sets by itself
    pub largefile: u32,
    /// `O_DIRECTORY`, also a part of `O_TMPFILE`
    pub directory: u32,
    /// `O_NOFOLLOW`
    pub nofollow: u32,
}

impl OpenFlags {
    /// The bits of an instruction set.
    #[must_use]
    pub const fn of(isa: Isa) -> Self {
        match isa {
            Isa::X86_64 => x86_64::open_flags::OPEN_FLAGS,
            Isa::Aarch64 => aarch64::open_flags::OPEN_FLAGS,
        }
    }

    const fn bits(self) -> [u32; 4] {
        [self.direct, self.largefile, self.directory, self.nofollow]
    }
}

/// The flags of `from` as `to` writes them.
#[must_use]
pub fn convert(flags: u32, from: Isa, to: Isa) -> u32 {
    let (from, to) = (OpenFlags::of(from).bits(), OpenFlags::of(to).bits());
    let mut converted = flags & !from.iter().fold(0, |all, bit| all | bit);
    for (old, new) in from.into_iter().zip(to) {
        if flags & old != 0 {
            converted |= new;
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_meaning() {
        // O_RDONLY | O_DIRECTORY | O_LARGEFILE | O_CLOEXEC
        assert_eq!(convert(0o2_300_000, Isa::X86_64, Isa::Aarch64), 0o2_440_000);
        assert_eq!(convert(0o2_440_000, Isa::Aarch64, Isa::X86_64), 0o2_300_000);
    }

    #[test]
    fn is_a_bijection() {
        for flags in (0..1 << 12).map(|bits: u32| bits << 11) {
            let there = convert(flags, Isa::X86_64, Isa::Aarch64);
            assert_eq!(convert(there, Isa::Aarch64, Isa::X86_64), flags);
            assert_eq!(there.count_ones(), flags.count_ones());
        }
    }
}
