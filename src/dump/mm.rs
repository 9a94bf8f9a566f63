//! Mappings and the memory descriptor: `mm-PID.img`.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use isamorph_arch::Isa;

use super::files::Files;
use super::self_report::SelfReport;
use super::{Error, Result};
use crate::image::{proto, vma};
use crate::tracee::maps::{self, PAGE};
use crate::tracee::proc::{self, Stat};
use crate::tracee::{Backing, Mapping};

/// AT_SYSINFO_EHDR: where the vDSO is.
const AT_SYSINFO_EHDR: u64 = 33;

/// Words of an auxiliary vector that CRIU 3.17 accepts on restoring.
fn auxv_words() -> usize {
    match crate::tracee::host::ISA {
        Isa::X86_64 => 44,
        Isa::Aarch64 => 40,
    }
}

/// Refuses a mapping that images cannot carry.
///
/// # Errors
/// The refusal.
pub fn check(pid: i32, mapping: &Mapping) -> Result<()> {
    let refuse = |what: &str, reason, remedy: &str| {
        Err(Error::Unsupported {
            pid,
            what: format!("{what} at {}-{}", mapping.start, mapping.end),
            reason,
            remedy: remedy.to_owned(),
        })
    };
    const NOT_YET: &str = "this version does not carry it";
    match &mapping.backing {
        Backing::Special { name } => {
            return refuse(&format!("the mapping {name}"), NOT_YET, "let it unmap that first");
        }
        Backing::File { path } if is_shared_anonymous(mapping) => {
            let _ = path;
        }
        Backing::File { path } if path.starts_with("/SYSV") => {
            return refuse("System V shared memory", NOT_YET, "let it detach the segment first");
        }
        Backing::File { path } if path.starts_with("/[aio]") => {
            return refuse("asynchronous I/O (io_setup)", NOT_YET, "let it call io_destroy first");
        }
        Backing::File { path } if path.starts_with("/memfd:") || has_no_name(pid, mapping, path) => {
            return refuse(
                &format!("a mapping of the deleted file {path}"),
                "there is nothing to map on restoring",
                "let it map a file with a name",
            );
        }
        Backing::File { path } if !path.starts_with('/') => {
            return refuse(&format!("a mapping of {path}"), NOT_YET, "let it unmap that first");
        }
        _ => {}
    }
    if matches!(mapping.backing, Backing::Vdso | Backing::Vvar | Backing::Vsyscall) {
        return Ok(());
    }
    for (flag, what) in [
        ("io", "device memory"),
        ("pf", "device memory"),
        ("ht", "huge pages (hugetlb)"),
        ("uf", "memory watched by userfaultfd"),
        ("um", "memory watched by userfaultfd"),
        ("uw", "memory watched by userfaultfd"),
        ("wf", "memory that forks wipe (MADV_WIPEONFORK)"),
        ("sl", "sealed memory (mseal)"),
        ("ss", "a shadow stack"),
        ("mt", "tagged memory (MTE)"),
    ] {
        if mapping.has(flag) {
            return refuse(what, NOT_YET, "run it without");
        }
    }
    Ok(())
}

/// Whether a mapped file was deleted; not if its file system merely forgot the name (NFS, FUSE).
fn has_no_name(pid: i32, mapping: &Mapping, path: &str) -> bool {
    let file = format!("map_files/{}", mapping.file_name());
    path.ends_with(" (deleted)") && fs::metadata(proc::path(pid, &file)).map_or(true, |stat| stat.nlink() == 0)
}

/// Shared anonymous memory shows as a deleted `/dev/zero`.
#[must_use]
pub fn is_shared_anonymous(mapping: &Mapping) -> bool {
    mapping.shared && matches!(&mapping.backing, Backing::File { path } if path == "/dev/zero (deleted)")
}

/// The mappings that images will have. A portable process needs no vDSO, and on another kernel or
/// instruction set it would be the wrong one: it is left out.
///
/// # Errors
/// One that cannot be carried.
pub fn collect(pid: i32, portable: bool) -> Result<Vec<Mapping>> {
    let mut mappings = maps::read(pid)?;
    for mapping in &mappings {
        check(pid, mapping)?;
    }
    if portable {
        mappings.retain(|m| !matches!(m.backing, Backing::Vdso | Backing::Vvar | Backing::Vsyscall));
    }
    Ok(mappings)
}

/// The memory descriptor.
///
/// # Errors
/// A mapped file cannot be carried.
pub fn entry(pid: i32, mappings: &[Mapping], own: &SelfReport, files: &mut Files) -> Result<proto::MmEntry> {
    let stat = Stat::read(pid)?;
    let mut vmas = Vec::with_capacity(mappings.len());
    let mut last_end = 0;
    for mapping in mappings {
        vmas.push(vma_entry(pid, mapping, last_end, files)?);
        last_end = mapping.end.0;
    }
    let portable = !mappings.iter().any(|m| m.backing == Backing::Vdso);
    let mut auxv = proc::auxv(pid)?;
    if portable && let Some(at) = auxv.chunks_exact(2).position(|pair| pair[0] == AT_SYSINFO_EHDR) {
        auxv.drain(2 * at..2 * at + 2);
    }
    // The kernel ends the vector with zeros itself, so its own end may go where space is short.
    if auxv.len() > auxv_words() && auxv.ends_with(&[0, 0]) {
        auxv.truncate(auxv.len() - 2);
    }
    Ok(proto::MmEntry {
        mm_start_code: stat.startcode,
        mm_end_code: stat.endcode,
        mm_start_data: stat.start_data,
        mm_end_data: stat.end_data,
        mm_start_stack: stat.startstack,
        mm_start_brk: stat.start_brk,
        mm_brk: own.brk,
        mm_arg_start: stat.arg_start,
        mm_arg_end: stat.arg_end,
        mm_env_start: stat.env_start,
        mm_env_end: stat.env_end,
        exe_file_id: files.special(pid, "exe")?,
        mm_saved_auxv: auxv,
        vmas,
        dumpable: Some(own.dumpable),
        aios: Vec::new(),
        thp_disabled: Some(own.thp_disabled),
    })
}

fn vma_entry(pid: i32, mapping: &Mapping, last_end: u64, files: &mut Files) -> Result<proto::VmaEntry> {
    let mut flags = if mapping.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE } as u32;
    for (name, flag) in [("gd", libc::MAP_GROWSDOWN), ("lo", libc::MAP_LOCKED), ("nr", libc::MAP_NORESERVE)] {
        if mapping.has(name) {
            flags |= flag as u32;
        }
    }
    let mut madvice = 0u64;
    for (name, advice) in [("sr", 2), ("rr", 1), ("dc", 10), ("mg", 12), ("hg", 14), ("nh", 15), ("dd", 16)] {
        if mapping.has(name) && !matches!(mapping.backing, Backing::Vvar | Backing::Vdso) {
            madvice |= 1 << advice;
        }
    }
    let anonymous = if mapping.shared { vma::ANON_SHARED } else { vma::ANON_PRIVATE };
    let (status, shmid, fdflags) = match &mapping.backing {
        _ if is_shared_anonymous(mapping) => (vma::REGULAR | vma::ANON_SHARED, mapping.inode, None),
        Backing::File { .. } => {
            let status = if mapping.shared { vma::FILE_SHARED } else { vma::FILE_PRIVATE };
            let name = format!("map_files/{}", mapping.file_name());
            let link = proc::path(pid, &name);
            let mode = fs::symlink_metadata(&link)
                .map_err(|source| Error::System { what: format!("looking at {}", link.display()), source })?
                .permissions()
                .mode();
            let access = match mode & 0o600 {
                0o600 => libc::O_RDWR,
                0o200 => libc::O_WRONLY,
                _ => libc::O_RDONLY,
            };
            (vma::REGULAR | status, u64::from(files.special(pid, &name)?), Some(access as u32))
        }
        Backing::Heap => (vma::REGULAR | vma::HEAP | anonymous, 0, None),
        Backing::Vdso => (vma::REGULAR | vma::VDSO | anonymous, 0, None),
        Backing::Vvar => (vma::REGULAR | vma::VVAR | anonymous, 0, None),
        Backing::Vsyscall => (vma::VSYSCALL | anonymous, 0, None),
        Backing::Anonymous | Backing::Stack | Backing::Special { .. } => (vma::REGULAR | anonymous, 0, None),
    };
    if status & (vma::ANON_PRIVATE | vma::ANON_SHARED) != 0 {
        flags |= libc::MAP_ANONYMOUS as u32;
    }
    // CRIU's images count the guard page below a growing mapping as its first one.
    let guard = mapping.has("gd") && last_end < mapping.start.0;
    Ok(proto::VmaEntry {
        start: mapping.start.0 - if guard { PAGE } else { 0 },
        end: mapping.end.0,
        pgoff: mapping.offset,
        shmid,
        prot: (if mapping.read { libc::PROT_READ } else { 0 }
            | if mapping.write { libc::PROT_WRITE } else { 0 }
            | if mapping.exec { libc::PROT_EXEC } else { 0 }) as u32,
        flags,
        status,
        fd: -1,
        madv: (madvice != 0).then_some(madvice),
        fdflags,
    })
}
