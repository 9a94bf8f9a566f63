//! The kernel's code in every process: ours where the images have theirs, or theirs led to ours.
//!
//! A process may hold addresses inside its vDSO (libc resolves `clock_gettime` once). If the running
//! kernel's vDSO has the same functions at the same offsets, it is moved to the address of the old
//! one. Otherwise the old pages stay, as ordinary memory, and each function in them begins with a
//! jump to the running kernel's. Images without a vDSO (translated ones) get none.
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

use goblin::elf::Elf;

use super::program::{Arg, PAGE, Program};
use super::tree::Tree;
use super::{Error, Result, host, memory};
use crate::image::proto::VmaEntry;
use crate::image::vma;
use crate::tracee::{Backing, maps};

/// Largest vDSO that is read.
const MAX_LEN: u64 = 1 << 20;

/// What happens to the vDSO.
#[derive(Debug)]
pub enum Plan {
    /// The images have none.
    None,
    /// Ours is moved to the place of the images'.
    Move {
        /// Our mappings: start and length.
        ours: Vec<(u64, u64)>,
        /// Where the first one goes.
        to: u64,
    },
    /// Ours is moved to a hole, the images' jumps to it.
    Patch {
        /// Our mappings.
        ours: Vec<(u64, u64)>,
        /// The hole.
        to: u64,
        /// Address and contents of each patch.
        patches: Vec<(u64, Vec<u8>)>,
    },
}

/// Decides.
///
/// # Errors
/// A vDSO is no valid ELF file, or the images need functions that this kernel's lacks.
pub fn plan(tree: &Tree) -> Result<Plan> {
    let part = |bit| tree.mm.vmas.iter().filter(move |v| v.status & bit != 0);
    let Some(theirs) = part(vma::VDSO).next() else { return Ok(Plan::None) };
    if part(vma::VDSO).count() > 1 {
        return Err(tree.unsupported("two vDSOs", "this process was restored on another kernel before; not supported"));
    }
    let own: Vec<_> = maps::read(std::process::id().cast_signed())?
        .into_iter()
        .filter(|m| matches!(m.backing, Backing::Vdso | Backing::Vvar))
        .collect();
    let Some(code) = own.iter().find(|m| m.backing == Backing::Vdso) else {
        return Err(tree.unsupported("a vDSO", "this kernel gives processes none (booted with vdso=0?)"));
    };
    let ours: Vec<(u64, u64)> = own.iter().map(|m| (m.start.0, m.len())).collect();
    let first = ours.iter().map(|(start, _)| *start).min().unwrap_or(code.start.0);

    let len = theirs.end - theirs.start;
    if len > MAX_LEN || code.len() > MAX_LEN {
        return Err(tree.inconsistent(format!("a vDSO of {len} bytes")));
    }
    let mut their_bytes = vec![0; len as usize];
    tree.pages.read(theirs.start, &mut their_bytes)?;
    let mut our_bytes = vec![0; code.len() as usize];
    let own_memory = std::fs::File::open("/proc/self/mem").map_err(|e| Error::system("/proc/self/mem", e))?;
    own_memory.read_exact_at(&mut our_bytes, code.start.0).map_err(|e| Error::system("reading the vDSO", e))?;
    let broken = || tree.inconsistent("its vDSO is no valid ELF file");
    let their_symbols = symbols(&their_bytes).ok_or_else(broken)?;
    let our_symbols =
        symbols(&our_bytes).ok_or_else(|| tree.unsupported("a vDSO", "that of this kernel is no valid ELF file"))?;

    let their_first = part(vma::VVAR | vma::VDSO).map(|v| v.start).min().unwrap_or(theirs.start);
    let their_end = part(vma::VVAR | vma::VDSO).map(|v| v.end).max().unwrap_or(theirs.end);
    let our_end = ours.iter().map(|(start, len)| start + len).max().unwrap_or(0);
    // Code refers to its data by distance, so that must be the same, too.
    if their_symbols == our_symbols
        && theirs.start - their_first == code.start.0 - first
        && their_end - their_first == our_end - first
        && len == code.len()
    {
        return Ok(Plan::Move { ours, to: their_first });
    }
    if tree.threads().any(|thread| (theirs.start..theirs.end).contains(&thread.pc())) {
        return Err(tree.unsupported(
            "a thread inside the vDSO of another kernel",
            "restore it on the kernel it ran on, or dump it again",
        ));
    }
    let to = memory::find_hole(tree, &[], our_end - first)?;
    let code_at = to + (code.start.0 - first);
    let mut patches = Vec::new();
    for (name, &(offset, size)) in &their_symbols {
        let Some(&(target, _)) = our_symbols.get(name) else {
            return Err(tree.unsupported(format!("{name} of the vDSO"), "this kernel's has no such function"));
        };
        let jump = host::jump_to(code_at + target);
        if name == "__kernel_rt_sigreturn" {
            // The signal trampoline of aarch64: two instructions that are the same in every kernel.
            continue;
        }
        if size < jump.len() as u64 || offset + size > len {
            return Err(tree.unsupported(format!("{name} of the vDSO"), "it is too short for a jump to this kernel's"));
        }
        patches.push((theirs.start + offset, jump));
    }
    Ok(Plan::Patch { ours, to, patches })
}

/// Functions: name to offset and size.
fn symbols(bytes: &[u8]) -> Option<BTreeMap<String, (u64, u64)>> {
    let elf = Elf::parse(bytes).ok()?;
    let base = elf.program_headers.iter().find(|h| h.p_type == goblin::elf::program_header::PT_LOAD)?.p_vaddr;
    let defined = elf.dynsyms.iter().filter(|s| s.is_function() && s.st_shndx != 0);
    let named = defined.filter_map(|s| {
        let name = elf.dynstrtab.get_at(s.st_name)?;
        Some((name.to_owned(), (s.st_value.checked_sub(base)?, s.st_size)))
    });
    Some(named.collect())
}

impl Plan {
    /// Whether this mapping of the images is made as ordinary memory.
    #[must_use]
    pub fn keeps_pages_of(&self, v: &VmaEntry) -> bool {
        matches!(self, Self::Patch { .. }) && v.status & vma::VDSO != 0
    }

    /// Before our memory goes: moves our mappings out of the way.
    pub(super) fn park(&self, program: &mut Program) {
        let (Self::Move { ours, .. } | Self::Patch { ours, .. }) = self else { return };
        let first = ours.iter().map(|(start, _)| *start).min().unwrap_or(0);
        program.reserve_park(ours.iter().map(|(start, len)| start + len - first).max().unwrap_or(0));
        for &(start, len) in ours {
            move_to(program, start.into(), len, Arg::Park(start - first));
        }
    }

    /// After our memory has gone: moves them where they belong.
    pub(super) fn unpark(&self, program: &mut Program) {
        let (Self::Move { ours, to } | Self::Patch { ours, to, .. }) = self else { return };
        let first = ours.iter().map(|(start, _)| *start).min().unwrap_or(0);
        for &(start, len) in ours {
            move_to(program, Arg::Park(start - first), len, Arg::Value(to + (start - first)));
        }
    }

    /// Room that will be taken although the images do not say so: start and end.
    #[must_use]
    pub fn target(&self) -> Vec<(u64, u64)> {
        let (Self::Move { ours, to } | Self::Patch { ours, to, .. }) = self else { return Vec::new() };
        let first = ours.iter().map(|(start, _)| *start).min().unwrap_or(0);
        let end = ours.iter().map(|(start, len)| start + len).max().unwrap_or(0);
        vec![(*to, to + (end - first))]
    }

    /// What to write over the old pages, before the process runs: addresses and bytes.
    #[must_use]
    pub fn patches(&self) -> &[(u64, Vec<u8>)] {
        match self {
            Self::Patch { patches, .. } => patches,
            _ => &[],
        }
    }
}

fn move_to(program: &mut Program, from: Arg, len: u64, to: Arg) {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let args = [from, len.into(), len.into(), flags.into(), to];
    program.call("moving the vDSO", libc::SYS_mremap, args);
    debug_assert!(len.is_multiple_of(PAGE));
}
