//! The address space: which mappings stay, go or change, and the stack that may have to grow.
use super::error::TransformError;
use crate::image::{PAGE_SIZE, proto, vma};
use crate::portable::Executable;
use isamorph_arch::{Isa, RemoteAddr, open_flags};
use object::elf::{PF_W, PF_X};
use std::ops::Range;

/// Addresses of a portable process are below this.
const LIMIT: u64 = 1 << 47;
/// `MAP_GROWSDOWN`.
const GROWSDOWN: u32 = 0x100;
/// `MAP_32BIT`, which only x86 has: where to map, of no meaning afterwards.
const MAP_32BIT: u32 = 0x40;
/// The kernel's default `stack_guard_gap`: what a growing stack keeps free below it.
const GUARD_GAP: u64 = 256 * PAGE_SIZE;
/// What is left of the guard below a stack of fixed size: a frame that is larger may miss it anyway.
const MIN_GUARD: u64 = 2 * PAGE_SIZE;
/// `PROT_READ | PROT_WRITE | PROT_EXEC`.
const RWX: u32 = 7;
/// Kernel mappings that every machine makes anew, or lacks.
const KERNEL: u32 = vma::VDSO | vma::VVAR | vma::VSYSCALL | vma::UPROBES;

/// What translation does to the address space.
#[derive(Debug, Default)]
pub struct Changes {
    /// Kernel mappings that are dropped, with their pages.
    pub dropped: Vec<Range<u64>>,
    /// Read-only mappings of the executable: their pages must be the file's, and come from the peer's file.
    pub text: Vec<Mapped>,
}

/// A mapping of the executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Addresses.
    pub range: Range<u64>,
    /// Offset of the first byte in the file.
    pub offset: u64,
}

fn refuse<T>(to: Isa, what: String) -> Result<T, TransformError> {
    Err(TransformError::Unsupported { to, what })
}

/// Checks the mappings and says what becomes of them, without changing anything.
///
/// # Errors
/// A mapping that cannot be moved, by address and kind.
pub fn plan(mm: &proto::MmEntry, source: &Executable, to: Isa) -> Result<Changes, TransformError> {
    let mut changes = Changes::default();
    let mut last = 0;
    if !mm.aios.is_empty() {
        return refuse(to, "an asynchronous I/O context (io_setup): its ring is the kernel's; close it first".into());
    }
    for vma in &mm.vmas {
        let at = format!("the mapping {:#x}-{:#x}", vma.start, vma.end);
        let aligned = vma.start.is_multiple_of(PAGE_SIZE) && vma.end.is_multiple_of(PAGE_SIZE);
        if vma.start < last || vma.start >= vma.end || !aligned {
            return refuse(to, format!("{at} is out of order or not of whole pages: a damaged mm image"));
        }
        last = vma.end;
        if vma.status & KERNEL != 0 {
            changes.dropped.push(vma.start..vma.end);
            continue;
        }
        if vma.end > LIMIT {
            return refuse(to, format!("{at} is above 2^47, where x86_64 has no user memory"));
        }
        let named = [
            (vma::AIORING, "is a ring of asynchronous I/O"),
            (vma::SHSTK, "is a shadow stack, which is x86_64's own"),
            (vma::SOCKET, "is the ring of a packet socket"),
            (vma::EXT_PLUGIN, "was dumped by a plug-in of CRIU"),
        ];
        if let Some((_, what)) = named.iter().find(|(bit, _)| vma.status & bit != 0) {
            return refuse(to, format!("{at} {what}"));
        }
        if vma.prot & !RWX != 0 {
            return refuse(to, format!("{at} has protection bits of one instruction set ({:#x})", vma.prot));
        }
        if is_executable(vma, mm)
            && let Some(segment) = source.segments.iter().find(|segment| covers(vma, segment.vaddr, segment.memsz))
            && segment.flags & PF_W.0 == 0
        {
            changes.text.push(Mapped { range: vma.start..vma.end, offset: vma.pgoff });
        }
    }
    Ok(changes)
}

fn is_executable(vma: &proto::VmaEntry, mm: &proto::MmEntry) -> bool {
    vma.status & vma::FILE_PRIVATE != 0 && vma.shmid == u64::from(mm.exe_file_id)
}

/// Whether a mapping begins inside a segment's pages.
fn covers(vma: &proto::VmaEntry, vaddr: u64, memsz: u64) -> bool {
    let first = vaddr - vaddr % PAGE_SIZE;
    (first..vaddr + memsz).contains(&vma.start)
}

/// Makes the mappings the target's: kernel mappings gone, the executable's as the peer's segments say.
///
/// # Errors
/// The executables' segments differ in more than the size of read-only ones.
pub fn rewrite(mm: &mut proto::MmEntry, source: &Executable, target: &Executable) -> Result<(), TransformError> {
    let (from, to) = (source.isa, target.isa);
    let pair = source.segments.iter().zip(&target.segments);
    let same = |a: &crate::portable::Segment, b: &crate::portable::Segment| {
        let sizes = a.filesz == b.filesz && a.memsz == b.memsz;
        a.vaddr == b.vaddr && a.flags == b.flags && (sizes || a.flags & (PF_W | PF_X).0 == 0)
    };
    if source.segments.len() != target.segments.len() || pair.clone().any(|(a, b)| !same(a, b)) {
        return refuse(
            to,
            "the PT_LOAD tables of the two executables differ: not a pair that `isamorph verify` passes".into(),
        );
    }
    mm.vmas.retain(|vma| vma.status & KERNEL == 0);
    for index in 0..mm.vmas.len() {
        let next = mm.vmas.get(index + 1).map_or(LIMIT, |next| next.start);
        let executable = is_executable(&mm.vmas[index], mm);
        let vma = &mut mm.vmas[index];
        vma.flags &= !MAP_32BIT;
        vma.fdflags = vma.fdflags.map(|flags| open_flags::convert(flags, from, to));
        if !executable {
            continue;
        }
        let Some((old, new)) = pair.clone().find(|(segment, _)| covers(vma, segment.vaddr, segment.memsz)) else {
            continue;
        };
        let delta = vma.start.wrapping_sub(old.vaddr - old.vaddr % PAGE_SIZE);
        vma.pgoff = (new.offset - new.offset % PAGE_SIZE).wrapping_add(delta);
        if old.filesz != new.filesz && vma.end == (old.vaddr + old.filesz).next_multiple_of(PAGE_SIZE) {
            vma.end = (new.vaddr + new.filesz).next_multiple_of(PAGE_SIZE);
            if vma.end > next {
                let start = vma.start;
                return refuse(to, format!("the peer's segment at {start:#x} is longer and would cover {next:#x}"));
            }
        }
    }
    (mm.mm_start_code, mm.mm_end_code, mm.mm_start_data, mm.mm_end_data) = bounds(target);
    Ok(())
}

/// Code and data bounds as `load_elf_binary` computes them (`fs/binfmt_elf.c`).
fn bounds(executable: &Executable) -> (u64, u64, u64, u64) {
    let (mut start_code, mut end_code, mut start_data, mut end_data) = (u64::MAX, 0, 0, 0);
    for segment in &executable.segments {
        let end = segment.vaddr + segment.filesz;
        if segment.flags & PF_X.0 != 0 {
            start_code = start_code.min(segment.vaddr);
            end_code = end_code.max(end);
        }
        start_data = start_data.max(segment.vaddr);
        end_data = end_data.max(end);
    }
    (start_code.min(end_code), end_code, start_data.min(end_data), end_data)
}

/// How far a stack may reach down.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The lowest address of a stack of fixed size (`__isam_stack_low`); 0 for one whose mapping grows.
    pub floor: RemoteAddr,
    /// RLIMIT_STACK, which bounds a mapping that grows.
    pub limit: u64,
}

/// Makes room for a stack whose lowest byte is `low`; returns the addresses by which a mapping grew.
///
/// A mapping that grows does so as the kernel would do it. A stack of fixed size takes from the inaccessible guard
/// right below it, of which at least `MIN_GUARD` bytes stay: libc makes guards larger than that for this purpose.
///
/// # Errors
/// How many bytes are missing, and what is in the way.
pub fn grow_stack(
    vmas: &mut [proto::VmaEntry],
    sp: RemoteAddr,
    low: RemoteAddr,
    Bounds { floor: bottom, limit }: Bounds,
) -> Result<Range<u64>, (u64, String)> {
    let index = vmas.partition_point(|vma| vma.end <= sp.0);
    let floor = index.checked_sub(1).map_or(0, |below| vmas[below].end);
    let Some(stack) = vmas.get_mut(index).filter(|vma| vma.start <= sp.0) else {
        return Err((sp.0.saturating_sub(low.0), "the stack pointer is in no mapping".into()));
    };
    if stack.status & vma::ANON_PRIVATE == 0 {
        return Err((0, format!("the mapping at {:#x} is not private anonymous memory", stack.start)));
    }
    if low.0 >= stack.start.max(bottom.0) {
        return Ok(stack.start..stack.start);
    }
    let start = low.0 - low.0 % PAGE_SIZE;
    if bottom.0 > stack.start {
        // A part of a larger mapping: what is below belongs to somebody else.
        return Err((bottom.0 - low.0, format!("the stack that the program gave it begins at {bottom}")));
    }
    let need = stack.start - start;
    if stack.flags & GROWSDOWN == 0 {
        return take_guard(vmas, index, start).ok_or_else(|| {
            let bottom = vmas[index].start;
            (
                need,
                format!("its mapping begins at {bottom:#x}, does not grow, and has no guard below with room to spare"),
            )
        });
    }
    if stack.end - start > limit {
        return Err((need, format!("RLIMIT_STACK is {limit} bytes (ulimit -s)")));
    }
    if start < floor.saturating_add(GUARD_GAP) {
        return Err((need, format!("the mapping that ends at {floor:#x} is in the way")));
    }
    let grown = start..stack.start;
    stack.start = start;
    Ok(grown)
}

/// Moves the border between the stack at `index` and the guard right below it down to `start`.
fn take_guard(vmas: &mut [proto::VmaEntry], index: usize, start: u64) -> Option<Range<u64>> {
    let (below, above) = vmas.split_at_mut(index);
    let (guard, stack) = (below.last_mut()?, above.first_mut()?);
    let inaccessible = guard.prot == 0 && guard.status & vma::ANON_PRIVATE != 0;
    let spare = guard.start.checked_add(MIN_GUARD).is_some_and(|lowest| lowest <= start);
    if !(inaccessible && guard.end == stack.start && spare) {
        return None;
    }
    let grown = start..stack.start;
    (guard.end, stack.start) = (start, start);
    Some(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(start: u64, end: u64, flags: u32) -> proto::VmaEntry {
        proto::VmaEntry { start, end, flags, status: vma::REGULAR | vma::ANON_PRIVATE, ..proto::VmaEntry::default() }
    }

    fn main(limit: u64) -> Bounds {
        Bounds { floor: RemoteAddr(0), limit }
    }

    #[test]
    fn a_stack_of_fixed_size_takes_from_its_guard() {
        let vmas = || {
            let mut guard = anonymous(0x6ffe_0000, 0x6fff_0000, 2);
            guard.prot = 0;
            vec![anonymous(0x1000, 0x2000, 2), guard, anonymous(0x6fff_0000, 0x7001_0000, 2)]
        };
        let (sp, bounds) = (RemoteAddr(0x6fff_0800), Bounds { floor: RemoteAddr(0x6fff_0000), limit: 0 });
        let mut grown = vmas();
        assert_eq!(grow_stack(&mut grown, sp, RemoteAddr(0x6ffe_f010), bounds), Ok(0x6ffe_f000..0x6fff_0000));
        assert_eq!((grown[1].end, grown[2].start), (0x6ffe_f000, 0x6ffe_f000));
        let bounds = Bounds { floor: RemoteAddr(0x6ffe_f000), limit: 0 };
        assert_eq!(grow_stack(&mut grown, sp, RemoteAddr(0x6ffe_e010), bounds), Ok(0x6ffe_e000..0x6ffe_f000));

        let (need, why) = grow_stack(&mut vmas(), sp, RemoteAddr(0x6ffe_1000), bounds).unwrap_err();
        assert!(need == 0xf000 && why.contains("no guard"), "{need:#x} {why}");
        let mut open = vmas();
        open[1].prot = 3;
        assert!(grow_stack(&mut open, sp, RemoteAddr(0x6ffe_f010), bounds).is_err());
        let mut apart = vmas();
        apart[1].end = 0x6ffe_f000;
        assert!(grow_stack(&mut apart, sp, RemoteAddr(0x6ffe_f010), bounds).is_err());
    }

    #[test]
    fn a_stack_inside_an_object_is_not_overrun() {
        let mut vmas = vec![anonymous(0x6000_0000, 0x7000_0000, 2)];
        let bounds = Bounds { floor: RemoteAddr(0x6800_0000), limit: 8 << 20 };
        let sp = RemoteAddr(0x6800_0800);
        assert!(grow_stack(&mut vmas, sp, RemoteAddr(0x6800_0100), bounds).is_ok());
        let (need, why) = grow_stack(&mut vmas, sp, RemoteAddr(0x67ff_ff00), bounds).unwrap_err();
        assert!(need == 0x100 && why.contains("the program gave it"), "{need:#x} {why}");
    }

    #[test]
    fn a_stack_grows_within_its_limit_and_not_into_its_neighbour() {
        let sp = RemoteAddr(0x7000_0000);
        let vmas = || vec![anonymous(0x1000, 0x2000, 2), anonymous(0x6fff_f000, 0x7001_0000, 2 | GROWSDOWN)];
        let mut grown = vmas();
        assert_eq!(grow_stack(&mut grown, sp, RemoteAddr(0x6fff_dfff), main(8 << 20)), Ok(0x6fff_d000..0x6fff_f000));
        assert_eq!(grown[1].start, 0x6fff_d000);
        assert_eq!(grow_stack(&mut grown, sp, RemoteAddr(0x6fff_e000), main(0)), Ok(0x6fff_d000..0x6fff_d000));

        let (need, why) = grow_stack(&mut vmas(), sp, RemoteAddr(0x6fff_dfff), main(0x12000)).unwrap_err();
        assert_eq!(need, 0x2000);
        assert!(why.contains("RLIMIT_STACK"), "{why}");

        let mut near = vmas();
        near[0] = anonymous(0x6ff0_0000, 0x6ff0_1000, 2);
        assert!(
            grow_stack(&mut near, sp, RemoteAddr(0x6fff_e000), main(8 << 20)).unwrap_err().1.contains("in the way")
        );

        let mut fixed = vmas();
        fixed[1].flags = 2;
        assert!(
            grow_stack(&mut fixed, sp, RemoteAddr(0x6fff_e000), main(8 << 20)).unwrap_err().1.contains("does not grow")
        );
        assert!(grow_stack(&mut vmas(), RemoteAddr(0x5000), RemoteAddr(0x4000), main(8 << 20)).is_err());
    }
}
