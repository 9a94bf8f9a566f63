//! `.isamorph.manifest`: where the parts of a portable executable are (`docs/architecture.md` §4.6).
use super::Error;
use super::bytes::Cursor;
use isamorph_arch::Isa;
use std::ops::Range;

/// First bytes of a manifest.
pub const MAGIC: [u8; 8] = *b"ISAMPAIR";
/// The only version.
pub const VERSION: u32 = 1;
/// Bytes of a manifest.
pub const LEN: usize = 320;
/// Offset of the two words that say where the sites are; written after verification.
pub const SITES_AT: usize = 240;
/// Offset of `own_id`, which `peer_id` follows.
pub const OWN_ID_AT: usize = 256;

/// The manifest; all values are addresses, ranges without their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose executable this is.
    pub isa: Isa,
    /// Paired text of the stubs.
    pub stubs: Range<u64>,
    /// Paired text of the leaves.
    pub leaves: Range<u64>,
    /// All paired text.
    pub text: Range<u64>,
    /// Per-ISA text: the compiler's runtime library.
    pub native: Range<u64>,
    /// `__isam_syscall`
    pub syscall_entry: u64,
    /// `__isam_syscall_restart`
    pub syscall_restart: u64,
    /// `__isam_syscall_insn`
    pub syscall_insn: u64,
    /// `__isam_gate_insn`
    pub gate_insn: u64,
    /// `__isam_safepoint`
    pub safepoint: u64,
    /// `__isam_restore_rt`
    pub restore_rt: u64,
    /// Return addresses of outermost frames; 0 where there is none.
    pub root_ret: [u64; 3],
    /// `__isam_tls`, which says where a thread keeps the bounds of its stack; 0 if there is none.
    pub tls_info: u64,
    /// Poll records.
    pub polls: Range<u64>,
    /// Basic-block address map.
    pub bbmap: Range<u64>,
    /// Stack maps.
    pub stackmaps: Range<u64>,
    /// Call-frame information.
    pub eh_frame: Range<u64>,
    /// `__isam_syscall_cp`, 0 if there is none.
    pub syscall_cp_entry: u64,
    /// `__isam_setjmp`, 0 if there is none.
    pub setjmp_entry: u64,
    /// The site table; empty before verification.
    pub sites: Range<u64>,
    /// This executable's ID (see [`super::pair::id`]); zeros before linking ends.
    pub own_id: [u8; 32],
    /// The ID of the other member of the pair.
    pub peer_id: [u8; 32],
}

impl Manifest {
    /// Reads a manifest from its first byte on.
    ///
    /// # Errors
    /// If it is truncated, of another version or ISA, or a range is reversed.
    pub fn parse(bytes: &[u8], isa: Isa) -> Result<Self, Error> {
        let mut c = Cursor::new("manifest", bytes);
        let magic = c.array::<8>()?;
        if magic != MAGIC {
            return Err(c.field("magic", u64::from_le_bytes(magic), 0));
        }
        let version = c.u32()?;
        if version != VERSION {
            return Err(Error::Version { what: "manifest", found: version, expected: VERSION });
        }
        let machine = c.u32()?;
        if machine != u32::from(isa.elf_machine()) {
            return Err(Error::Machine { what: "manifest", found: machine, isa });
        }
        let manifest = Self {
            isa,
            stubs: range(&mut c)?,
            leaves: range(&mut c)?,
            text: range(&mut c)?,
            native: range(&mut c)?,
            syscall_entry: c.u64()?,
            syscall_restart: c.u64()?,
            syscall_insn: c.u64()?,
            gate_insn: c.u64()?,
            safepoint: c.u64()?,
            restore_rt: c.u64()?,
            root_ret: [c.u64()?, c.u64()?, c.u64()?],
            tls_info: c.u64()?,
            polls: range(&mut c)?,
            bbmap: range(&mut c)?,
            stackmaps: range(&mut c)?,
            eh_frame: range(&mut c)?,
            syscall_cp_entry: c.u64()?,
            setjmp_entry: c.u64()?,
            sites: range(&mut c)?,
            own_id: c.array()?,
            peer_id: c.array()?,
        };
        debug_assert_eq!(c.at(), LEN);
        Ok(manifest)
    }
}

fn range(c: &mut Cursor<'_>) -> Result<Range<u64>, Error> {
    let at = c.at();
    let (start, end) = (c.u64()?, c.u64()?);
    if start > end {
        return Err(c.field("end of a range before its start", end, at + 8));
    }
    Ok(start..end)
}
