//! Memory contents: `pagemap-PID.img`, `pagemap-shmem-ID.img` and `pages-N.img`.
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use isamorph_arch::RemoteAddr;

use super::freeze::Frozen;
use super::{Error, Result, mm};
use crate::image::{ImageDir, PageWriter};
use crate::tracee::maps::{self, PAGE, Run};
use crate::tracee::{Backing, Mapping, Memory, Watch, proc};

/// Bytes that are copied at a time.
const PIECE: u64 = 1 << 20;

/// How many pages there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Looked at.
    pub scanned: u64,
    /// Written, of private memory.
    pub written: u64,
    /// Written, of shared memory.
    pub shared: u64,
}

/// Writes the memory of a stopped process that its files do not have: pages that it changed, and of
/// these only the ones that are not all zeros where zeros is what a fresh mapping has.
///
/// # Errors
/// Memory cannot be read, an image not be written, or the command is gone.
pub fn write(tree: &ImageDir, pid: i32, frozen: &Frozen, mappings: &[Mapping], watch: &Watch) -> Result<Counts> {
    let memory = frozen.leader()?.stopped()?.memory()?;
    let mut counts = Counts::default();
    let mut writer = PageWriter::create(tree, pid as u64, 1)?;
    let mut buffer = vec![0; PIECE as usize];
    for mapping in mappings.iter().filter(|m| !m.shared) {
        counts.scanned += mapping.len() / PAGE;
        let runs = match mapping.backing {
            Backing::Vvar | Backing::Vsyscall => continue,
            Backing::Vdso => vec![Run { start: mapping.start, pages: mapping.len() / PAGE }],
            _ => maps::own_pages(pid, mapping, || watch.check())?,
        };
        let keep_zeros = matches!(mapping.backing, Backing::File { .. } | Backing::Vdso);
        for run in runs {
            copy_run(&memory, run, keep_zeros, &mut writer, &mut buffer, watch)?;
        }
    }
    counts.written = writer.finish()?;
    let mut seen = BTreeSet::new();
    let mut pages_id = 2;
    for mapping in mappings.iter().filter(|m| mm::is_shared_anonymous(m)) {
        if seen.insert(mapping.inode) {
            counts.shared += shared(tree, pid, mapping, pages_id, watch)?;
            pages_id += 1;
        }
    }
    Ok(counts)
}

fn copy_run(
    memory: &Memory,
    run: Run,
    keep_zeros: bool,
    writer: &mut PageWriter<'_>,
    buffer: &mut [u8],
    watch: &Watch,
) -> Result<()> {
    let end = run.start.0 + run.pages * PAGE;
    let mut at = run.start.0;
    while at < end {
        watch.check()?;
        let len = PIECE.min(end - at);
        let piece = &mut buffer[..len as usize];
        memory.read(RemoteAddr(at), piece)?;
        present(writer, at, piece, keep_zeros)?;
        at += len;
    }
    Ok(())
}

/// Writes the pages of `piece`, but not those of zeros unless `keep_zeros`.
fn present(writer: &mut PageWriter<'_>, at: u64, piece: &[u8], keep_zeros: bool) -> Result<()> {
    if keep_zeros {
        return Ok(writer.present(at, piece)?);
    }
    let page = PAGE as usize;
    let is_zero = |i: usize| piece[i * page..(i + 1) * page].iter().all(|byte| *byte == 0);
    let (mut i, count) = (0, piece.len() / page);
    while i < count {
        let first = i;
        let zero = is_zero(i);
        while i < count && is_zero(i) == zero {
            i += 1;
        }
        if !zero {
            writer.present(at + (first * page) as u64, &piece[first * page..i * page])?;
        }
    }
    Ok(())
}

/// The contents of shared anonymous memory, wherever it is mapped: what its file holds that is no hole.
fn shared(tree: &ImageDir, pid: i32, mapping: &Mapping, pages_id: u32, watch: &Watch) -> Result<u64> {
    let path = proc::path(pid, &format!("map_files/{}", mapping.file_name()));
    let system = |source| Error::System { what: format!("reading {}", path.display()), source };
    let file = File::open(&path).map_err(system)?;
    let len = file.metadata().map_err(system)?.len();
    let mut writer = PageWriter::create_shmem(tree, mapping.inode, pages_id)?;
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < len {
        watch.check()?;
        // SAFETY: plain system calls on a descriptor that we hold.
        let data = unsafe { libc::lseek(file.as_raw_fd(), at as i64, libc::SEEK_DATA) };
        if data < 0 {
            break;
        }
        // SAFETY: as above.
        let hole = unsafe { libc::lseek(file.as_raw_fd(), data, libc::SEEK_HOLE) };
        let (data, hole) = (data as u64 & !(PAGE - 1), if hole < 0 { len } else { hole as u64 });
        at = data;
        while at < hole {
            let count = PIECE.min(hole - at).next_multiple_of(PAGE);
            let piece = &mut buffer[..count as usize];
            piece.fill(0);
            let have = count.min(len - at) as usize;
            file.read_exact_at(&mut piece[..have], at).map_err(system)?;
            present(&mut writer, at, piece, false)?;
            at += count;
        }
    }
    Ok(writer.finish()?)
}
