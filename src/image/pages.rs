//! Page stores: the memory of a process as runs of pages, through a chain of trees.
//!
//! ```text
//!  DIR/aarch64/pagemap-7.img      DIR/aarch64/pages-1.img
//!    0x10000  2 pages  present ──▶ [page][page]
//!    0x12000  9 pages  parent ───▶ DIR/pagemap-7.img ──▶ DIR/pages-1.img
//!    0x40000  1 page   present ──▶ [page]
//! ```
//!
//! Pages of present runs lie in the pages image in the order of the runs, without gaps. Addresses
//! and lengths are in bytes unless a name says `pages`.
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::dir::{ImageDir, Records, check_head, head, push_record};
use super::entry::Entry;
use super::error::{ImageError, Problem};
use super::kind::ImageKind;
use super::proto::{PagemapEntry, PagemapHead};
use super::schema::{self, Described as _};

/// The only page size that isamorph supports.
pub const PAGE_SIZE: u64 = 4096;

/// Trees that may be linked in a row.
const MAX_DEPTH: usize = 1000;

// Bits of PagemapEntry::flags.
const IN_PARENT: u32 = 1 << 0;
const LAZY: u32 = 1 << 1;
const PRESENT: u32 = 1 << 2;

/// Where the pages of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this tree's pages image, from this offset on (bytes).
    Here {
        /// Offset in bytes.
        offset: u64,
    },
    /// In the parent tree, which may refer to its own parent.
    Parent,
}

/// Adjacent pages of one pagemap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub addr: u64,
    /// Length in pages, never 0.
    pub pages: u64,
    /// Where they are.
    pub place: Place,
}

impl Run {
    /// The address after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.addr + self.pages * PAGE_SIZE
    }
}

/// Adjacent bytes of memory that are adjacent in one pages image, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address, page aligned.
    pub addr: u64,
    /// Length in bytes, a multiple of the page size, never 0.
    pub len: u64,
    /// Which tree of the chain has it: an index for [`PageReader::file`].
    pub level: usize,
    /// Offset in that tree's pages image, in bytes.
    pub offset: u64,
}

impl Segment {
    /// The address after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.addr + self.len
    }
}

/// Reads one pagemap: the ID of its pages image, and its runs, ascending and without overlaps.
///
/// # Errors
/// It is not a valid one, or not there.
pub fn read_runs(tree: &ImageDir, kind: ImageKind, id: u64) -> Result<(u32, Vec<Run>), ImageError> {
    let (path, bytes) = tree.read_bytes(kind, id)?;
    parse_runs(kind, &bytes).map_err(|p| ImageError::new(path, p))
}

fn parse_runs(kind: ImageKind, bytes: &[u8]) -> Result<(u32, Vec<Run>), Problem> {
    let mut records = Records { bytes, at: check_head(kind, bytes)?, index: 0 };
    let first = records.next_record()?.ok_or(Problem::NotOne { found: 0 })?;
    let entry_error = |source| Problem::Entry { index: 0, source };
    schema::check(first, PagemapHead::SCHEMA).map_err(entry_error)?;
    let head = PagemapHead::decode(first)
        .map_err(|_| entry_error(schema::SchemaError::Malformed { message: "PagemapHead", offset: 0 }))?;
    records.index = 1;
    let (mut runs, mut offset, mut last_end) = (Vec::new(), 0u64, 0u64);
    while let Some(e) = records.next_entry::<PagemapEntry>()? {
        let (addr, pages) = (e.vaddr, e.nr_pages.unwrap_or(e.compat_nr_pages.into()));
        let end = pages.checked_mul(PAGE_SIZE).and_then(|len| addr.checked_add(len));
        let (Some(end), true) = (end, addr.is_multiple_of(PAGE_SIZE) && pages > 0) else {
            return Err(Problem::RunBounds { addr, pages });
        };
        if addr < last_end {
            return Err(Problem::RunOrder { addr, pages });
        }
        last_end = end;
        // Trees of before the flags: what is not in the parent is here.
        let flags = e.flags.unwrap_or(PRESENT);
        if flags & !(IN_PARENT | LAZY | PRESENT) != 0 {
            return Err(Problem::RunFlags { addr, flags });
        }
        let place = if e.in_parent() || flags & IN_PARENT != 0 {
            Place::Parent
        } else if flags & PRESENT != 0 {
            let here = offset;
            offset = offset.checked_add(end - addr).ok_or(Problem::RunBounds { addr, pages })?;
            Place::Here { offset: here }
        } else {
            return Err(Problem::LazyRun { addr });
        };
        runs.push(Run { addr, pages, place });
    }
    Ok((head.pages_id, runs))
}

/// The memory of one process, or of one shared memory object, as a tree and its parents hold it.
#[derive(Debug)]
pub struct PageReader {
    path: PathBuf,
    levels: Vec<Level>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Level {
    file: File,
    path: PathBuf,
}

impl PageReader {
    /// Opens the memory of a process.
    ///
    /// # Errors
    /// There is no pagemap or no pages image, one of them is not valid, or a parent tree lacks
    /// pages that are said to be there.
    pub fn open(tree: &ImageDir, pid: u64) -> Result<Self, ImageError> {
        Self::open_kind(tree, ImageKind::Pagemap, pid)
    }

    /// Opens a shared memory object.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_shmem(tree: &ImageDir, shmid: u64) -> Result<Self, ImageError> {
        Self::open_kind(tree, ImageKind::ShmemPagemap, shmid)
    }

    fn open_kind(tree: &ImageDir, kind: ImageKind, id: u64) -> Result<Self, ImageError> {
        let top = tree.file_path(kind, id)?;
        let (mut levels, mut runs_of) = (Vec::new(), Vec::new());
        let mut parent: Option<(ImageDir, u64)> = None;
        loop {
            let (tree, wanted) = parent.as_ref().map_or((tree, None), |(tree, addr)| (tree, Some(*addr)));
            let (pages_id, runs) = read_runs(tree, kind, id).map_err(|e| match (&e.problem, wanted) {
                // A directory, but not the one this tree was made from.
                (Problem::Missing, Some(addr)) => ImageError::new(&e.path, Problem::NoParent { addr }),
                _ => e,
            })?;
            let (path, file) = pages_file(tree, pages_id, &runs)?;
            let in_parent = runs.iter().find(|r| r.place == Place::Parent).map(|r| r.addr);
            levels.push(Level { file, path });
            runs_of.push(runs);
            let Some(addr) = in_parent else { break };
            if levels.len() > MAX_DEPTH {
                return Err(ImageError::new(top, Problem::ParentDepth { max: MAX_DEPTH }));
            }
            let next = tree.open_parent()?;
            let missing = || ImageError::new(tree.path().join(super::PARENT_LINK), Problem::NoParent { addr });
            parent = Some((next.ok_or_else(missing)?, addr));
        }
        let mut segments = Vec::new();
        for (level, runs) in runs_of.iter().enumerate().rev() {
            let here = resolve(runs, level, &segments);
            segments = here.map_err(|p| ImageError::new(&top, p))?;
        }
        Ok(Self { path: top, levels, segments })
    }

    /// All memory there is, ascending.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of trees in the chain; [`Segment::level`] is below it.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The pages image of a tree of the chain, and its path.
    #[must_use]
    pub fn file(&self, level: usize) -> Option<(&File, &Path)> {
        self.levels.get(level).map(|l| (&l.file, l.path.as_path()))
    }

    /// The segment that holds an address.
    #[must_use]
    pub fn segment_at(&self, addr: u64) -> Option<&Segment> {
        let next = self.segments.partition_point(|s| s.end() <= addr);
        self.segments.get(next).filter(|s| s.addr <= addr)
    }

    /// Reads memory, of any length and alignment.
    ///
    /// # Errors
    /// A page is not in the store ([`Problem::NoPage`], with its address: it may be an untouched one
    /// of a file mapping), or cannot be read.
    pub fn read(&self, mut addr: u64, mut buf: &mut [u8]) -> Result<(), ImageError> {
        while !buf.is_empty() {
            let segment = self
                .segment_at(addr)
                .ok_or_else(|| ImageError::new(&self.path, Problem::NoPage { addr: addr - addr % PAGE_SIZE }))?;
            let inside = addr - segment.addr;
            let len = buf.len().min(usize::try_from(segment.len - inside).unwrap_or(usize::MAX));
            let (part, rest) = buf.split_at_mut(len);
            let level = &self.levels[segment.level];
            level.file.read_exact_at(part, segment.offset + inside).map_err(|e| ImageError::io(&level.path, e))?;
            buf = rest;
            addr += len as u64;
        }
        Ok(())
    }
}

fn pages_file(tree: &ImageDir, pages_id: u32, runs: &[Run]) -> Result<(PathBuf, File), ImageError> {
    let path = tree.file_path(ImageKind::Pages, u64::from(pages_id))?;
    let file = tree.open_file(ImageKind::Pages, u64::from(pages_id))?;
    let have = file.metadata().map_err(|e| ImageError::io(&path, e))?.len();
    let last = runs.iter().rev().find_map(|r| match r.place {
        Place::Here { offset } => Some((offset, r.pages * PAGE_SIZE)),
        Place::Parent => None,
    });
    if let Some((offset, need)) = last
        && offset + need > have
    {
        return Err(ImageError::new(path, Problem::Truncated { offset, need, have: have.saturating_sub(offset) }));
    }
    Ok((path, file))
}

/// The segments of a tree, given its runs and the segments of its parent.
fn resolve(runs: &[Run], level: usize, parent: &[Segment]) -> Result<Vec<Segment>, Problem> {
    let mut out: Vec<Segment> = Vec::with_capacity(runs.len());
    let mut push = |s: Segment| match out.last_mut() {
        Some(last) if last.end() == s.addr && last.level == s.level && last.offset + last.len == s.offset => {
            last.len += s.len;
        }
        _ => out.push(s),
    };
    let mut rest = parent;
    for run in runs {
        match run.place {
            Place::Here { offset } => push(Segment { addr: run.addr, len: run.pages * PAGE_SIZE, level, offset }),
            Place::Parent => {
                let mut addr = run.addr;
                while addr < run.end() {
                    rest = &rest[rest.partition_point(|s| s.end() <= addr)..];
                    let Some(s) = rest.first().filter(|s| s.addr <= addr) else {
                        return Err(Problem::NotInParent { addr });
                    };
                    let end = s.end().min(run.end());
                    push(Segment { addr, len: end - addr, level: s.level, offset: s.offset + (addr - s.addr) });
                    addr = end;
                }
            }
        }
    }
    Ok(out)
}

/// Writes a pagemap and its pages image; runs in ascending order, adjacent ones are joined.
///
/// The pagemap is written by [`finish`](Self::finish): without it the tree is not a valid one.
#[derive(Debug)]
pub struct PageWriter<'a> {
    tree: &'a ImageDir,
    kind: ImageKind,
    id: u64,
    pages_id: u32,
    pages: BufWriter<File>,
    written: u64,
    runs: Vec<Run>,
}

impl<'a> PageWriter<'a> {
    /// Begins the memory of a process. Several pagemaps of a tree need different `pages_id`s.
    ///
    /// # Errors
    /// The pages image cannot be made.
    pub fn create(tree: &'a ImageDir, pid: u64, pages_id: u32) -> Result<Self, ImageError> {
        Self::create_kind(tree, ImageKind::Pagemap, pid, pages_id)
    }

    /// Begins a shared memory object.
    ///
    /// # Errors
    /// The pages image cannot be made.
    pub fn create_shmem(tree: &'a ImageDir, shmid: u64, pages_id: u32) -> Result<Self, ImageError> {
        Self::create_kind(tree, ImageKind::ShmemPagemap, shmid, pages_id)
    }

    fn create_kind(tree: &'a ImageDir, kind: ImageKind, id: u64, pages_id: u32) -> Result<Self, ImageError> {
        let file = tree.create_file(ImageKind::Pages, u64::from(pages_id))?;
        let pages = BufWriter::with_capacity(256 << 10, file);
        Ok(Self { tree, kind, id, pages_id, pages, written: 0, runs: Vec::new() })
    }

    /// Adds pages with their contents.
    ///
    /// # Errors
    /// The address or the length is not page aligned, or the run is not above the last one; or the
    /// pages image cannot be written.
    pub fn present(&mut self, addr: u64, contents: &[u8]) -> Result<(), ImageError> {
        let len = contents.len() as u64;
        if !len.is_multiple_of(PAGE_SIZE) {
            return Err(self.error(Problem::RunBounds { addr, pages: len / PAGE_SIZE }));
        }
        self.push(Run { addr, pages: len / PAGE_SIZE, place: Place::Here { offset: self.written } })?;
        self.written += len;
        let path = |w: &Self| w.tree.path().join(format!("pages-{}.img", w.pages_id));
        self.pages.write_all(contents).map_err(|e| ImageError::io(path(self), e))
    }

    /// Adds pages whose contents the parent tree has.
    ///
    /// # Errors
    /// As [`present`](Self::present).
    pub fn in_parent(&mut self, addr: u64, pages: u64) -> Result<(), ImageError> {
        self.push(Run { addr, pages, place: Place::Parent })
    }

    fn push(&mut self, run: Run) -> Result<(), ImageError> {
        let Run { addr, pages, .. } = run;
        let end = pages.checked_mul(PAGE_SIZE).and_then(|len| addr.checked_add(len));
        if end.is_none() || !addr.is_multiple_of(PAGE_SIZE) || pages == 0 {
            return Err(self.error(Problem::RunBounds { addr, pages }));
        }
        match self.runs.last_mut() {
            Some(last) if last.end() > addr => Err(self.error(Problem::RunOrder { addr, pages })),
            // Present runs that follow each other in memory do so in the pages image.
            Some(last) if last.end() == addr && (last.place == Place::Parent) == (run.place == Place::Parent) => {
                last.pages += pages;
                Ok(())
            }
            _ => {
                self.runs.push(run);
                Ok(())
            }
        }
    }

    fn error(&self, problem: Problem) -> ImageError {
        ImageError::new(self.tree.file_path(self.kind, self.id).unwrap_or_default(), problem)
    }

    /// Writes the pagemap; returns the number of pages written to the pages image.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self) -> Result<u64, ImageError> {
        self.pages
            .flush()
            .map_err(|e| ImageError::io(self.tree.path().join(format!("pages-{}.img", self.pages_id)), e))?;
        let mut bytes = head(self.kind);
        push_record(&mut bytes, &PagemapHead { pages_id: self.pages_id }.encode_to_vec());
        for run in &self.runs {
            let flags = if run.place == Place::Parent { IN_PARENT } else { PRESENT };
            // The old field alone where it suffices: every version of CRIU and crit reads it.
            let (short, long) = match u32::try_from(run.pages) {
                Ok(n) => (n, None),
                Err(_) => (u32::MAX, Some(run.pages)),
            };
            let entry = PagemapEntry {
                vaddr: run.addr,
                compat_nr_pages: short,
                in_parent: None,
                flags: Some(flags),
                nr_pages: long,
            };
            push_record(&mut bytes, &Entry::new(entry).encode());
        }
        self.tree.write_bytes(self.kind, self.id, &bytes)?;
        Ok(self.written / PAGE_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_SIZE;

    fn page(fill: u8) -> Vec<u8> {
        vec![fill; P as usize]
    }

    fn trees() -> (tempfile::TempDir, ImageDir, ImageDir) {
        let t = tempfile::tempdir().unwrap();
        let parent = ImageDir::open(t.path()).unwrap();
        let child = ImageDir::create(t.path().join("aarch64")).unwrap();
        child.link_parent("..").unwrap();
        (t, parent, child)
    }

    #[test]
    fn a_child_shadows_its_parent_page_by_page() {
        let (_t, parent, child) = trees();
        let mut w = PageWriter::create(&parent, 7, 1).unwrap();
        for n in 0..8 {
            w.present(n * P, &page(n as u8)).unwrap();
        }
        w.present(100 * P, &page(100)).unwrap();
        assert_eq!(w.finish().unwrap(), 9);
        let mut w = PageWriter::create(&child, 7, 1).unwrap();
        w.in_parent(P, 2).unwrap();
        w.present(3 * P, &page(0x33)).unwrap();
        w.in_parent(4 * P, 4).unwrap();
        w.present(50 * P, &page(0x50)).unwrap();
        w.in_parent(100 * P, 1).unwrap();
        assert_eq!(w.finish().unwrap(), 2);

        let r = PageReader::open(&child, 7).unwrap();
        let want = [(1, 2, 1, 1), (3, 1, 0, 0), (4, 4, 1, 4), (50, 1, 0, 1), (100, 1, 1, 8)];
        let want = want.map(|(a, n, level, o)| Segment { addr: a * P, len: n * P, level, offset: o * P });
        assert_eq!(r.segments(), want);
        let mut across = vec![0; 3 * P as usize];
        r.read(2 * P + 1, &mut across[1..]).unwrap();
        assert_eq!((across[1], across[P as usize], across[2 * P as usize]), (2, 0x33, 4));
        let hole = r.read(7 * P, &mut [0; 8192]).unwrap_err();
        assert!(matches!(hole.problem, Problem::NoPage { addr } if addr == 8 * P), "{hole}");
        assert!(r.segment_at(0).is_none());
    }

    #[test]
    fn random_chains_read_as_the_memory_they_were_written_from() {
        // xorshift, so that a failure is repeatable.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        for round in 0..30 {
            let t = tempfile::tempdir().unwrap();
            let mut memory = [None::<u8>; 64];
            let mut tree = None;
            for depth in 0..=random(5) {
                let next = ImageDir::create(t.path().join(format!("{depth}"))).unwrap();
                if depth > 0 {
                    next.link_parent(format!("../{}", depth - 1)).unwrap();
                }
                let mut w = PageWriter::create(&next, 1, random(3) as u32 + 1).unwrap();
                for (n, slot) in memory.iter_mut().enumerate() {
                    match (random(4), *slot) {
                        (0, _) => *slot = None,
                        (1, Some(_)) | (2, Some(_)) => w.in_parent(n as u64 * P, 1).unwrap(),
                        _ => {
                            let fill = random(256) as u8;
                            *slot = Some(fill);
                            w.present(n as u64 * P, &page(fill)).unwrap();
                        }
                    }
                }
                w.finish().unwrap();
                tree = Some(next);
            }
            let r = PageReader::open(&tree.unwrap(), 1).unwrap();
            for (n, slot) in memory.iter().enumerate() {
                let mut got = page(0);
                match (slot, r.read(n as u64 * P, &mut got)) {
                    (Some(fill), Ok(())) => assert_eq!(got, page(*fill), "round {round} page {n}"),
                    (None, Err(e)) => assert!(matches!(e.problem, Problem::NoPage { .. })),
                    (slot, got) => panic!("round {round} page {n}: {slot:?} read as {got:?}"),
                }
            }
        }
    }

    #[test]
    fn runs_come_back_as_they_were_joined() {
        let (_t, parent, _) = trees();
        let mut w = PageWriter::create(&parent, 7, 3).unwrap();
        w.present(0, &page(1)).unwrap();
        w.present(P, &page(2)).unwrap();
        w.in_parent(2 * P, 1).unwrap();
        w.in_parent(3 * P, 5).unwrap();
        w.finish().unwrap();
        let (pages_id, runs) = read_runs(&parent, ImageKind::Pagemap, 7).unwrap();
        let want = [
            Run { addr: 0, pages: 2, place: Place::Here { offset: 0 } },
            Run { addr: 2 * P, pages: 6, place: Place::Parent },
        ];
        assert_eq!((pages_id, runs.as_slice()), (3, want.as_slice()));
    }

    #[test]
    fn disorder_is_refused_on_both_sides() {
        let (_t, parent, _) = trees();
        let mut w = PageWriter::create(&parent, 7, 1).unwrap();
        w.present(5 * P, &page(1)).unwrap();
        assert!(matches!(w.present(5 * P, &page(1)).unwrap_err().problem, Problem::RunOrder { .. }));
        assert!(matches!(w.in_parent(P, 1).unwrap_err().problem, Problem::RunOrder { .. }));
        assert!(matches!(w.present(6 * P + 1, &page(1)).unwrap_err().problem, Problem::RunBounds { .. }));
        assert!(matches!(w.in_parent(u64::MAX - P + 1, 2).unwrap_err().problem, Problem::RunBounds { .. }));

        let mut bytes = head(ImageKind::Pagemap);
        push_record(&mut bytes, &PagemapHead { pages_id: 1 }.encode_to_vec());
        for vaddr in [2 * P, P] {
            let e = PagemapEntry { vaddr, compat_nr_pages: 1, ..Default::default() };
            push_record(&mut bytes, &e.encode_to_vec());
        }
        assert!(matches!(parse_runs(ImageKind::Pagemap, &bytes), Err(Problem::RunOrder { .. })));
    }

    #[test]
    fn newer_trees_leave_the_short_length_zero() {
        let mut bytes = head(ImageKind::Pagemap);
        push_record(&mut bytes, &PagemapHead { pages_id: 1 }.encode_to_vec());
        let e = PagemapEntry { vaddr: P, nr_pages: Some(3), flags: Some(PRESENT | LAZY), ..Default::default() };
        push_record(&mut bytes, &e.encode_to_vec());
        let (_, runs) = parse_runs(ImageKind::Pagemap, &bytes).unwrap();
        assert_eq!(runs, [Run { addr: P, pages: 3, place: Place::Here { offset: 0 } }]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let (t, parent, child) = trees();
        let mut w = PageWriter::create(&parent, 7, 1).unwrap();
        w.present(0, &page(1)).unwrap();
        w.finish().unwrap();
        let mut w = PageWriter::create(&child, 7, 1).unwrap();
        w.in_parent(0, 2).unwrap();
        w.finish().unwrap();
        let e = PageReader::open(&child, 7).unwrap_err();
        assert!(matches!(e.problem, Problem::NotInParent { addr } if addr == P), "{e}");

        std::fs::remove_file(t.path().join("aarch64/parent")).unwrap();
        let e = PageReader::open(&child, 7).unwrap_err().to_string();
        assert!(e.contains("--flatten"), "{e}");

        std::fs::write(t.path().join("pages-1.img"), &page(1)[..100]).unwrap();
        let e = PageReader::open(&parent, 7).unwrap_err();
        assert!(matches!(e.problem, Problem::Truncated { need: 4096, have: 100, .. }), "{e}");
    }
}
