//! Fat objects: an x86_64 relocatable that carries its aarch64 counterpart, so that `ar`, `nm` and `configure` see nothing new.
//!
//! `docs/architecture.md` §4.1. A plain x86_64 object, or one whose `.isamorph` sections were stripped, is none.
use object::elf as o;
use serde::{Deserialize, Serialize};

use super::Paired;
use super::elf::{ElfError, Relocatable};

/// The section with the whole aarch64 relocatable.
pub const AARCH64_SECTION: &str = ".isamorph.aarch64";
/// The section with [`ModuleInfo`] in JSON.
pub const MODULE_SECTION: &str = ".isamorph.module";
/// The version of [`ModuleInfo`] that this program reads and writes.
pub const MODULE_VERSION: u32 = 1;

/// What is known of a translation unit beyond its symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// [`MODULE_VERSION`].
    pub version: u32,
    /// The source file as the compiler was given it.
    pub source: String,
    /// Functions defined here that take variable arguments.
    #[serde(default)]
    pub variadic_defined: Vec<String>,
    /// Functions defined elsewhere that are called here as variadic ones.
    #[serde(default)]
    pub variadic_called: Vec<String>,
    /// Functions defined elsewhere that are called here by a type without `...`.
    #[serde(default)]
    pub fixed_called: Vec<String>,
}

/// Why an object file cannot be used in a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// Not a relocatable.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A relocatable, but not made by isamorph-cc.
    #[error("made by another compiler: it has no {AARCH64_SECTION} section; compile it with isamorph-cc")]
    NotFat,
    /// The JSON cannot be read.
    #[error("{MODULE_SECTION}: {0}")]
    Module(#[from] serde_json::Error),
    /// Made by another version of isamorph-cc.
    #[error("{MODULE_SECTION}: format version {0}, this isamorph-cc knows {MODULE_VERSION}; compile it again")]
    Version(u32),
}

/// Writes a fat object.
///
/// # Errors
/// If a name table overflows.
pub fn write(pair: Paired, info: &ModuleInfo) -> Result<Vec<u8>, FatError> {
    let Paired { mut x86_64, aarch64 } = pair;
    let exclude = o::SHF_EXCLUDE.0;
    x86_64.append(AARCH64_SECTION, o::SHT_PROGBITS.0, exclude, aarch64.write())?;
    x86_64.append(MODULE_SECTION, o::SHT_PROGBITS.0, exclude, serde_json::to_vec(info)?)?;
    Ok(x86_64.write())
}

/// A fat object, read.
#[derive(Debug)]
pub struct FatObject {
    /// The x86_64 half.
    pub x86_64: Relocatable,
    /// The aarch64 half.
    pub aarch64: Relocatable,
    /// The aarch64 half as it is to be linked. (The x86_64 one is the fat object itself.)
    pub aarch64_bytes: Vec<u8>,
    /// What is known of the translation unit.
    pub info: ModuleInfo,
}

impl FatObject {
    /// Reads a fat object.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, FatError> {
        let mut x86_64 = Relocatable::parse(bytes)?;
        let mut take = |name| {
            let section = x86_64.sections.iter_mut().find(|s| s.name == name);
            section.map(|s| std::mem::take(&mut s.data)).ok_or(FatError::NotFat)
        };
        let aarch64_bytes = take(AARCH64_SECTION)?;
        let info: ModuleInfo = serde_json::from_slice(&take(MODULE_SECTION)?)?;
        if info.version != MODULE_VERSION {
            return Err(FatError::Version(info.version));
        }
        let aarch64 = Relocatable::parse(&aarch64_bytes)?;
        Ok(Self { x86_64, aarch64, aarch64_bytes, info })
    }
}
