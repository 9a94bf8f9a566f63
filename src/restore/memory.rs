//! The address space: which calls make it, and where the restorer itself can be meanwhile.
use super::files::Helpers;
use super::program::{Arg, Expect, PAGE, Program, Purpose};
use super::tree::Tree;
use super::{Result, files, host, memfd, vdso};
use crate::image::proto::VmaEntry;
use crate::image::{PageReader, Segment, vma};

/// Bytes that one call reads at most: the kernel's own limit is 2 GiB less a page.
const READ_MAX: u64 = 1 << 30;
/// Free room that is left around the restorer's area.
const MARGIN: u64 = 1 << 20;
/// Lowest address that is used: `vm.mmap_min_addr` of every distribution is at most this.
const LOWEST: u64 = 1 << 16;

const PASSED_FLAGS: u32 = (libc::MAP_GROWSDOWN | libc::MAP_NORESERVE | libc::MAP_LOCKED | libc::MAP_STACK) as u32;
/// Flags that say nothing once the mapping is made, or that are set again anyway.
const IGNORED_FLAGS: u32 = (libc::MAP_SHARED
    | libc::MAP_PRIVATE
    | libc::MAP_FIXED
    | libc::MAP_ANONYMOUS
    | libc::MAP_DENYWRITE
    | libc::MAP_EXECUTABLE
    | libc::MAP_POPULATE
    | libc::MAP_NONBLOCK) as u32;
const PROT_WRITE: u32 = libc::PROT_WRITE as u32;

/// A run of pages and the file it is in.
#[derive(Clone, Copy, Debug)]
struct Source {
    fd: i32,
    segment: Segment,
}

/// Adds the calls that exchange the address space: everything of ours but the area goes, everything
/// of the process comes.
///
/// # Errors
/// A mapping cannot be restored, or its file is not what it was.
pub fn plan(
    tree: &Tree,
    vdso: &vdso::Plan,
    program: &mut Program,
    helpers: &mut Helpers,
    memfds: &mut memfd::Objects,
) -> Result<()> {
    check_order(tree)?;
    vdso.park(program);
    program.call("leaving the restorer's lower memory", libc::SYS_munmap, [Arg::Value(0), Arg::AreaStart]);
    program.call(
        "leaving the restorer's upper memory",
        libc::SYS_munmap,
        [Arg::AreaEnd, Arg::FromAreaEnd(host::ADDRESS_LIMIT)],
    );
    vdso.unpark(program);

    let mut sources = sources(&tree.pages, helpers)?.into_iter().peekable();
    for vma in &tree.mm.vmas {
        let mut own = Vec::new();
        while let Some(&source) = sources.peek() {
            let Segment { addr, .. } = source.segment;
            if addr >= vma.end {
                break;
            }
            if addr < vma.start {
                return Err(tree.inconsistent(format!("there are pages at {addr:#x}, but no mapping")));
            }
            // A run may go on in the next mapping.
            own.push(clip(source, vma.start, vma.end));
            if source.segment.end() > vma.end {
                break;
            }
            sources.next();
        }
        map(tree, program, helpers, memfds, vma, &own, vdso)?;
        if let Some(source) = sources.peek_mut()
            && source.segment.addr < vma.end
        {
            *source = clip(*source, vma.end, u64::MAX);
        }
    }
    if let Some(source) = sources.next() {
        return Err(tree.inconsistent(format!("there are pages at {:#x}, but no mapping", source.segment.addr)));
    }
    shared_anonymous(tree, program, helpers)?;
    for vma in &tree.mm.vmas {
        advise(program, vma);
    }
    Ok(())
}

fn check_order(tree: &Tree) -> Result<()> {
    let mut last = LOWEST.min(PAGE);
    for v in &tree.mm.vmas {
        let vsyscall = v.status & vma::VSYSCALL != 0;
        let end = if vsyscall { u64::MAX } else { host::ADDRESS_LIMIT };
        if v.start < last || v.end <= v.start || v.end > end || (v.start | v.end) % PAGE != 0 {
            return Err(tree.inconsistent(format!(
                "mapping {:#x}-{:#x} is out of order, or outside of the address space of this machine",
                v.start, v.end
            )));
        }
        last = v.end;
    }
    Ok(())
}

fn sources(pages: &PageReader, helpers: &mut Helpers) -> Result<Vec<Source>> {
    let mut fds = Vec::new();
    for level in 0..pages.levels() {
        let (file, path) = pages.file(level).expect("levels below levels()");
        fds.push(helpers.borrow(file, path)?);
    }
    Ok(pages.segments().iter().map(|&segment| Source { fd: fds[segment.level], segment }).collect())
}

/// The part of a run between two addresses, of which at least one byte is inside.
fn clip(source: Source, start: u64, end: u64) -> Source {
    let s = source.segment;
    let (from, to) = (s.addr.max(start), s.end().min(end));
    let segment = Segment { addr: from, len: to - from, offset: s.offset + (from - s.addr), ..s };
    Source { segment, ..source }
}

fn map(
    tree: &Tree,
    program: &mut Program,
    helpers: &mut Helpers,
    memfds: &mut memfd::Objects,
    v: &VmaEntry,
    sources: &[Source],
    vdso: &vdso::Plan,
) -> Result<()> {
    let refuse =
        |what: &str, remedy: &str| Err(tree.unsupported(format!("{what} at {:#x}-{:#x}", v.start, v.end), remedy));
    let named = [
        (vma::SYSVIPC, "System V shared memory"),
        (vma::SOCKET, "a mapped packet socket"),
        (vma::AIORING, "an io_setup(2) ring"),
        (vma::SHSTK, "a shadow stack"),
        (vma::GUARD, "guard pages (MADV_GUARD_INSTALL)"),
        (vma::UPROBES, "a uprobe trampoline"),
        (vma::EXT_PLUGIN, "a mapping of a CRIU plug-in"),
    ];
    if v.status & vma::VSYSCALL != 0 {
        return Ok(());
    }
    if v.status & (vma::VDSO | vma::VVAR) != 0 && !vdso.keeps_pages_of(v) {
        return Ok(());
    }
    if let Some((_, what)) = named.iter().find(|(bit, _)| v.status & bit != 0) {
        return refuse(what, "cannot be restored yet");
    }
    if v.flags & !(PASSED_FLAGS | IGNORED_FLAGS) != 0 {
        return refuse(
            &format!("a mapping with flags {:#x}", v.flags),
            "huge pages and the like cannot be restored yet",
        );
    }
    let len = v.end - v.start;
    let passed = v.flags & PASSED_FLAGS | libc::MAP_FIXED as u32;
    let (fd, offset, sharing, what): (i32, u64, i32, _) = if v.status & (vma::FILE_PRIVATE | vma::FILE_SHARED) != 0 {
        let shared = v.status & vma::FILE_SHARED != 0;
        if shared && !sources.is_empty() {
            return Err(
                tree.inconsistent(format!("pages of the shared file mapping at {:#x} are in the images", v.start))
            );
        }
        let fd = match v.status & vma::MEMFD {
            0 => files::open_mapped(tree, helpers, v, shared)?,
            _ => memfds.open_mapped(tree, helpers, v)?,
        };
        (fd, v.pgoff, if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE }, "mapping the file")
    } else if v.status & vma::ANON_SHARED != 0 {
        if !sources.is_empty() {
            return Err(
                tree.inconsistent(format!("pages of the shared memory at {:#x} are in the process's own", v.start))
            );
        }
        return Ok(());
    } else if v.status & (vma::ANON_PRIVATE | vma::VDSO) != 0 {
        (-1, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, "mapping memory")
    } else {
        return refuse(&format!("a mapping of status {:#x}", v.status), "isamorph does not know this kind");
    };
    let prot = if sources.is_empty() { v.prot } else { v.prot | PROT_WRITE };
    program.call_expecting(
        Purpose::at(what, v.start),
        libc::SYS_mmap,
        [v.start.into(), len.into(), prot.into(), (passed | sharing as u32).into(), fd.into(), offset.into()],
        Expect::Exactly(v.start),
    );
    for source in sources {
        read(program, source, source.segment.addr.into());
    }
    if prot != v.prot {
        protect(program, v);
    }
    Ok(())
}

fn protect(program: &mut Program, v: &VmaEntry) {
    let args = [v.start.into(), (v.end - v.start).into(), v.prot.into()];
    program.call(Purpose::at("protecting memory", v.start), libc::SYS_mprotect, args);
}

fn read(program: &mut Program, source: &Source, to: Arg) {
    let Segment { len, offset, addr, .. } = source.segment;
    let mut done = 0;
    while done < len {
        let part = (len - done).min(READ_MAX);
        let to = match to {
            Arg::Park(at) => Arg::Park(at + done),
            _ => Arg::Value(addr + done),
        };
        program.call_expecting(
            Purpose::at("reading pages", addr + done),
            libc::SYS_pread64,
            [source.fd.into(), to, part.into(), (offset + done).into()],
            Expect::Exactly(part),
        );
        done += part;
    }
}

/// Shared anonymous memory: made once in the parking room, then mapped wherever it belongs by
/// `mremap` with an old length of 0, which duplicates a shared mapping.
fn shared_anonymous(tree: &Tree, program: &mut Program, helpers: &mut Helpers) -> Result<()> {
    let mut objects: Vec<(u64, u64)> = Vec::new();
    for v in tree.mm.vmas.iter().filter(|v| v.status & vma::ANON_SHARED != 0) {
        let end = v.pgoff.checked_add(v.end - v.start).filter(|e| *e < host::ADDRESS_LIMIT / 4);
        let end = end.ok_or_else(|| tree.inconsistent(format!("offset {:#x} of shared memory", v.pgoff)))?;
        match objects.iter_mut().find(|(id, _)| *id == v.shmid) {
            Some((_, len)) => *len = end.max(*len),
            None => objects.push((v.shmid, end)),
        }
    }
    for (shmid, len) in objects {
        let pages = PageReader::open_shmem(&tree.dir, shmid)?;
        if let Some(s) = pages.segments().last().filter(|s| s.end() > len) {
            return Err(tree.inconsistent(format!("shared memory {shmid} has pages at {:#x}, past its end", s.addr)));
        }
        program.reserve_park(len);
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let made = [Arg::Park(0), len.into(), rw.into(), flags.into(), (-1).into(), 0u64.into()];
        program.call("making shared memory", libc::SYS_mmap, made);
        for source in sources(&pages, helpers)? {
            read(program, &source, Arg::Park(source.segment.addr));
        }
        for v in tree.mm.vmas.iter().filter(|v| v.status & vma::ANON_SHARED != 0 && v.shmid == shmid) {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            program.call_expecting(
                Purpose::at("mapping shared memory", v.start),
                libc::SYS_mremap,
                [Arg::Park(v.pgoff), 0u64.into(), (v.end - v.start).into(), flags.into(), v.start.into()],
                Expect::Exactly(v.start),
            );
            protect(program, v);
        }
        program.call("leaving shared memory", libc::SYS_munmap, [Arg::Park(0), len.into()]);
    }
    Ok(())
}

/// What needs the contents to be there.
fn advise(program: &mut Program, v: &VmaEntry) {
    for advice in (0..64).filter(|bit| v.madv() & (1 << bit) != 0) {
        let args = [v.start.into(), (v.end - v.start).into(), Arg::Value(advice)];
        program.call(Purpose::at("advising on memory", v.start), libc::SYS_madvise, args);
    }
}

/// An address where `len` bytes are free, in the process's memory and in that of this program.
///
/// # Errors
/// There is none.
pub fn find_hole(tree: &Tree, also: &[(u64, u64)], len: u64) -> Result<u64> {
    let own = crate::tracee::maps::read(std::process::id().cast_signed())?;
    let mut taken: Vec<(u64, u64)> = own.iter().map(|m| (m.start.0, m.end.0)).collect();
    taken.extend(tree.mm.vmas.iter().map(|v| (v.start, v.end)));
    taken.extend(also);
    hole(taken, len)
        .ok_or_else(|| tree.unsupported(format!("{len} bytes of room"), "the address space has no such hole"))
}

/// The highest hole: far from where executables and small heaps are. The ranges may overlap.
fn hole(mut taken: Vec<(u64, u64)>, len: u64) -> Option<u64> {
    taken.push((host::ADDRESS_LIMIT, host::ADDRESS_LIMIT));
    taken.retain(|(start, _)| *start <= host::ADDRESS_LIMIT);
    taken.sort_unstable();
    let need = len.checked_add(2 * MARGIN)?;
    let (mut free_from, mut found) = (LOWEST, None);
    for (start, end) in taken {
        if start.saturating_sub(free_from) >= need {
            found = Some((start - MARGIN - len) & !(PAGE - 1));
        }
        free_from = free_from.max(end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_between_mappings_with_room_to_spare() {
        let top = host::ADDRESS_LIMIT;
        assert_eq!(hole(vec![], PAGE), Some(top - MARGIN - PAGE));
        let nested = vec![(0x1000_0000, top), (0x2000_0000, 0x2000_1000), (LOWEST, 0x100_0000)];
        let found = hole(nested, 2 * PAGE).unwrap();
        assert_eq!(found, 0x1000_0000 - MARGIN - 2 * PAGE);
        assert_eq!(hole(vec![(LOWEST, top - 2 * MARGIN)], PAGE), None);
    }

    #[test]
    fn clipping_moves_the_offset_along() {
        let segment = Segment { addr: 0x1000, len: 0x3000, level: 0, offset: 0x8000 };
        let part = clip(Source { fd: 3, segment }, 0x2000, 0x3000).segment;
        assert_eq!((part.addr, part.len, part.offset), (0x2000, 0x1000, 0x9000));
    }
}
