//! The instruction sets, by all the names the field has for them.
use core::fmt;
use core::str::FromStr;

/// An instruction set that a process can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// AMD64, Intel 64; System V psABI.
    X86_64,
    /// Arm A64, little endian; AAPCS64.
    Aarch64,
}

impl Isa {
    /// Every instruction set.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one this program was compiled for, if it is one of ours.
    #[must_use]
    pub const fn host() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// The name that `uname -m`, `--arch` and image trees use: `x86_64`, `aarch64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The suffix of an executable of a pair (criu-het's naming): `x86-64`, `aarch64`.
    #[must_use]
    pub const fn pair_suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `e_machine` of its ELF files (`EM_X86_64`, `EM_AARCH64`).
    #[must_use]
    pub const fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// The instruction set of an ELF `e_machine` value.
    #[must_use]
    pub const fn from_elf_machine(machine: u16) -> Option<Self> {
        match machine {
            62 => Some(Self::X86_64),
            183 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The other member of a pair.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::X86_64 => Self::Aarch64,
            Self::Aarch64 => Self::X86_64,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of an instruction set that isamorph knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an instruction set that isamorph knows (x86_64, aarch64)")
    }
}

impl core::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        match name {
            "x86_64" | "x86-64" | "amd64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            _ => Err(UnknownIsa),
        }
    }
}
