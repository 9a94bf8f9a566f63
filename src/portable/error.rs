//! Why an executable or one of its tables is refused.
use isamorph_arch::Isa;
use std::path::PathBuf;

/// Why an executable or one of its tables cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ELF file, or a damaged one.
    #[error("not a usable ELF file: {0}")]
    Elf(String),
    /// An ELF file of a kind that no pair has.
    #[error("not a portable executable: {0}")]
    NotPortable(&'static str),
    /// No manifest: an ordinary executable, not linked by `isamorph-cc`.
    #[error("no isamorph manifest in it: an ordinary executable (portable ones are linked by isamorph-cc)")]
    NoManifest,
    /// More than one manifest.
    #[error("two isamorph manifests, at {0:#x} and {1:#x}")]
    TwoManifests(u64, u64),
    /// The manifest or a table has a version this program does not know.
    #[error("{what} has version {found}, this program reads version {expected}; relink with a matching isamorph-cc")]
    Version {
        /// Which structure.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The version this program knows.
        expected: u32,
    },
    /// A structure is for the other ISA.
    #[error("{what} is for e_machine {found}, the executable is {isa}")]
    Machine {
        /// Which structure.
        what: &'static str,
        /// What it says.
        found: u32,
        /// What the ELF header says.
        isa: Isa,
    },
    /// A range of the manifest does not lie in the file part of one PT_LOAD segment.
    #[error("{what} {start:#x}..{end:#x} is not in one segment of the file")]
    Range {
        /// Which range.
        what: &'static str,
        /// First address.
        start: u64,
        /// Address behind the last.
        end: u64,
    },
    /// A table ends in the middle of an entry, or declares more than it has.
    #[error("{what}: truncated at byte {at:#x} of {len:#x}")]
    Truncated {
        /// Which table.
        what: &'static str,
        /// Offset in it.
        at: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A field has a value it must not have.
    #[error("{what}: {field} is {value:#x} at byte {at:#x}")]
    Field {
        /// Which table.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Offset in the table.
        at: u64,
    },
    /// The executable was linked but not verified.
    #[error("no site table: this executable was not verified; link it again with isamorph-cc")]
    NoSites,
    /// A file of a pair cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of a pair is refused.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<Error>,
    },
    /// The name of an executable tells neither member of a pair.
    #[error(
        "{path} is not named NAME_x86-64 or NAME_aarch64 (nor a link to one), so its peer cannot be found beside it",
        path = path.display()
    )]
    NotNamedAsPair {
        /// The executable.
        path: PathBuf,
    },
    /// A file named for one ISA is of the other.
    #[error("{path} is named for {named} but is {isa}", path = path.display())]
    WrongIsa {
        /// The file.
        path: PathBuf,
        /// What its name says.
        named: Isa,
        /// What it is.
        isa: Isa,
    },
    /// Two executables that were not linked together.
    #[error(
        "{a} and {b} were not linked together: their pair IDs differ; take both from one link",
        a = a.display(),
        b = b.display()
    )]
    NotAPair {
        /// One file.
        a: PathBuf,
        /// The other.
        b: PathBuf,
    },
    /// An executable whose content is not what was linked.
    #[error("{path} was changed after it was linked (its content does not match its ID)", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}
