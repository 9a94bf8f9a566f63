//! The images of one process: read, translated in memory, written.
use super::core::{self, ThreadState};
use super::emit::PageChanges;
use super::error::TransformError;
use super::explain::{self, ThreadReport};
use super::frames::{Layout, Rewritten};
use super::memory::ImageMemory;
use super::unwind::{Member, Memory as _, NativeStack, UnwindError, unwind};
use super::{Options, auxv, files, space, text};
use crate::image::{Entry, ImageDir, PageReader, proto};
use crate::portable::{Executable, Pair, SiteTable, pair};
use isamorph_arch::syscall_record as record;
use isamorph_arch::{Isa, RemoteAddr, ReturnAddr};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Offsets in the runtime's `struct isam_tls` (`cross/runtime/record.h`).
const TLS_INFO_BLOCK: u64 = 32;
const TLS_INFO_LOW: u64 = 48;

/// The images of a process, and its pair.
pub(super) struct Process {
    pub pid: u32,
    /// The path that the peer must have on the other node.
    pub peer_path: PathBuf,
    /// Thread IDs and core images; the leader, whose ID is the process's, is first.
    threads: Vec<(u32, Entry<proto::CoreEntry>)>,
    mm: Entry<proto::MmEntry>,
    files: Vec<Entry<proto::FileEntry>>,
    pair: Pair,
    from: Isa,
    to: Isa,
    exe: String,
}

impl Process {
    /// Reads the images and finds the pair.
    pub fn open(tree: &ImageDir, options: &Options) -> Result<Self, TransformError> {
        let to = options.arch;
        let refuse = |what: String| TransformError::Unsupported { to, what };
        let processes = tree.read::<proto::PstreeEntry>(None)?;
        let [process] = processes.as_slice() else {
            return Err(refuse(format!("a tree of {} processes; this version moves one", processes.len())));
        };
        let pid = process.pid;
        let mut threads = Vec::new();
        for tid in std::iter::once(pid).chain(process.threads.iter().copied().filter(|tid| *tid != pid)) {
            threads.push((tid, tree.read_one::<proto::CoreEntry>(u64::from(tid))?));
        }
        let isas: BTreeSet<Option<Isa>> = threads.iter().map(|(_, core)| core.isa()).collect();
        let [Some(from)] = isas.iter().copied().collect::<Vec<_>>()[..] else {
            return Err(refuse(format!("process {pid} is of an instruction set that isamorph does not know")));
        };
        if from == to {
            return Err(TransformError::SameIsa { isa: to });
        }
        let mm = tree.read_one::<proto::MmEntry>(u64::from(pid))?;
        let files = tree.read::<proto::FileEntry>(None)?;
        let entry = files::regular(&files, mm.exe_file_id)
            .ok_or_else(|| refuse(format!("files.img has no regular file {} (the executable)", mm.exe_file_id)))?;
        let exe = entry.name.clone();
        let pair = Pair::open(Path::new(&exe), options.pair.as_deref())
            .map_err(|source| TransformError::Pair { path: PathBuf::from(&exe), source })?;
        files::check_executable(entry, pair.get(from))?;
        let peer_path = peer_path(&exe, to).ok_or_else(|| refuse(format!("{exe} is not named as one of a pair")))?;
        Ok(Self { pid, peer_path, threads, mm, files, pair, from, to, exe })
    }

    /// Translates everything in memory.
    pub fn translate(
        &mut self,
        store: &PageReader,
        options: &Options,
    ) -> Result<(Vec<ThreadReport>, PageChanges), TransformError> {
        let (from, to) = (self.from, self.to);
        let (source, target) = (self.pair.get(from), self.pair.get(to));
        let refuse = |what: String| TransformError::Unsupported { to, what };
        for (_, core) in &self.threads {
            if let Some(what) = core::unsupported(core, &source.executable.manifest, to) {
                return Err(refuse(what));
            }
        }
        let changes = space::plan(&self.mm, &source.executable, to)?;
        text::check(store, &changes.text, source)?;

        let vmas = self.mm.vmas.clone();
        let mut memory = ImageMemory::new(store, &vmas);
        let pair = Tables::new(&source.executable, &target.executable)?;
        let limit = core::stack_limit(&self.threads[0].1);
        let mm = self.mm.edit().map_err(TransformError::unknown("mm image"))?;
        let mut reports = Vec::new();
        for (tid, core) in &mut self.threads {
            let tid = *tid;
            let state = core::read(core).map_err(refuse)?;
            let thread = Thread { tid, state, pair: &pair };
            let (report, rewritten, thread_pointer) = thread.translate(&mut memory, options.explain)?;
            let (low, sp) = (rewritten.start, state.registers.sp());
            let stack_low = thread.stack_low(&mut memory, thread_pointer)?;
            let floor = stack_low.map_or(RemoteAddr(0), |(_, floor)| floor);
            let grown = space::grow_stack(&mut mm.vmas, sp, low, space::Bounds { floor, limit })
                .map_err(|(need, why)| TransformError::StackSpace { tid, to, need, sp, why })?;
            if let Some((at, floor)) = stack_low
                && grown.start < floor.0
            {
                memory.write(at, &grown.start.to_le_bytes())?;
            }
            memory.write_or_zero(low, &rewritten.bytes, grown)?;
            for (at, cell) in &rewritten.cells {
                memory.write(*at, cell)?;
            }
            let mask = thread.held_mask(&mut memory)?;
            let env = state.fp.environment().map_err(|source| TransformError::Fp { tid, source })?;
            let core = core.edit().map_err(TransformError::unknown("core image"))?;
            let restart = target.executable.manifest.syscall_restart;
            core::write(core, to, restart, &rewritten, thread_pointer, env, state.clear_tid);
            if let Some(mask) = mask {
                core::set_signal_mask(core, mask);
            }
            core::drop_empty_rseq(core);
            reports.push(report);
        }
        convert_auxv(mm, &mut memory, from, to)?;
        space::rewrite(mm, &source.executable, &target.executable)?;
        files::convert_flags(&mut self.files, from, to)?;
        files::replace_executable(&mut self.files, &self.exe, &self.peer_path.to_string_lossy(), target)?;

        let mut dropped = changes.dropped;
        dropped.extend(changes.text.into_iter().map(|mapping| mapping.range));
        dropped.sort_by_key(|range| range.start);
        Ok((reports, PageChanges { changed: memory.into_changed(), dropped }))
    }

    /// Writes the images that changed; returns their paths.
    pub fn write(&self, tree: &ImageDir) -> Result<Vec<PathBuf>, TransformError> {
        let pid = u64::from(self.pid);
        tree.write(pid, std::slice::from_ref(&self.mm))?;
        tree.write(None, &self.files)?;
        use crate::image::ImageKind::{Core, Files, Mm};
        let mut written = vec![tree.file_path(Mm, pid)?, tree.file_path(Files, None)?];
        for (tid, core) in &self.threads {
            tree.write(u64::from(*tid), std::slice::from_ref(core))?;
            written.push(tree.file_path(Core, u64::from(*tid))?);
        }
        Ok(written)
    }
}

/// The peer's path, in the folder that the images have for the executable.
fn peer_path(exe: &str, to: Isa) -> Option<PathBuf> {
    let path = Path::new(exe);
    let base = pair::base_name(path)?;
    Some(path.with_file_name(format!("{base}_{}", to.pair_suffix())))
}

/// Converts both copies of the auxiliary vector.
fn convert_auxv(
    mm: &mut proto::MmEntry,
    memory: &mut ImageMemory<'_>,
    from: Isa,
    to: Isa,
) -> Result<(), TransformError> {
    let refuse = |error: auxv::AuxvError| TransformError::Unsupported { to, what: error.to_string() };
    let mut saved = auxv::trim(&mm.mm_saved_auxv);
    auxv::check_page_size(&saved).map_err(refuse)?;
    let (at, mut entries) = auxv::find(memory, RemoteAddr(mm.mm_start_stack)).map_err(refuse)?;
    let platform = auxv::rewrite_platform(memory, &entries, from, to, mm.mm_arg_start)?;
    auxv::convert(&mut entries, to, platform);
    auxv::convert(&mut saved, to, platform);
    auxv::close_up(&mut saved);
    let bytes: Vec<u8> =
        entries.iter().flat_map(|(entry, value)| [entry.to_le_bytes(), value.to_le_bytes()]).flatten().collect();
    memory.write(at, &bytes)?;
    mm.mm_saved_auxv = saved.into_iter().flat_map(|(entry, value)| [entry, value]).collect();
    Ok(())
}

/// Both executables, and the sites of both.
struct Tables<'a> {
    source: &'a Executable,
    target: &'a Executable,
    from: SiteTable,
    to: SiteTable,
}

impl<'a> Tables<'a> {
    fn new(source: &'a Executable, target: &'a Executable) -> Result<Self, TransformError> {
        let sites = |executable: &Executable| {
            let path = || PathBuf::from(format!("({})", executable.isa));
            executable.sites().map_err(|source| TransformError::Pair { path: path(), source })
        };
        Ok(Self { from: sites(source)?, to: sites(target)?, source, target })
    }
}

/// A thread that is being translated.
struct Thread<'a> {
    tid: u32,
    state: ThreadState,
    pair: &'a Tables<'a>,
}

impl Thread<'_> {
    /// Returns its report, its stack and registers, and its thread pointer.
    fn translate(
        &self,
        memory: &mut ImageMemory<'_>,
        explained: bool,
    ) -> Result<(ThreadReport, Rewritten, RemoteAddr), TransformError> {
        let pair = self.pair;
        let sp = self.state.registers.sp();
        self.check_parked(memory, sp)?;
        let (source, target) = (member(pair.source, &pair.from), member(pair.target, &pair.to));
        let stack = unwind(memory, &source, sp).map_err(|error| self.unwind_error(error))?;
        let layout_error = |source| TransformError::Layout { tid: self.tid, source };
        let layout = Layout::new(&stack, &source, target).map_err(layout_error)?;
        let thread_pointer = self.thread_pointer()?;
        self.check_self_word(memory, thread_pointer)?;
        let rewritten = layout.write(&stack, &source, memory, thread_pointer).map_err(layout_error)?;
        let report = ThreadReport {
            tid: self.tid,
            isas: (pair.source.isa, pair.target.isa),
            sp: (sp, rewritten.start),
            call: memory.word(RemoteAddr(sp.0.wrapping_add(record::NUMBER)))?,
            depth: stack.frames.len(),
            frames: if explained { self.explain(&stack, &layout, &source, thread_pointer) } else { Vec::new() },
        };
        Ok((report, rewritten, thread_pointer))
    }

    fn check_parked(&self, memory: &mut ImageMemory<'_>, sp: RemoteAddr) -> Result<(), TransformError> {
        // A thread elsewhere may have any sp; then it is the place that matters, not what is there.
        let flags = memory.word(RemoteAddr(sp.0.wrapping_add(record::FLAGS))).unwrap_or(0);
        match core::parked(&self.state.registers, &self.pair.source.manifest, flags) {
            Some(_) => Ok(()),
            None => {
                let at = self.pair.source.name(self.state.registers.pc());
                Err(TransformError::NotParked { tid: self.tid, at })
            }
        }
    }

    /// The signal mask of a thread in the gate, where all signals wait.
    fn held_mask(&self, memory: &mut ImageMemory<'_>) -> Result<Option<u64>, TransformError> {
        let sp = self.state.registers.sp().0;
        let flags = memory.word(RemoteAddr(sp.wrapping_add(record::FLAGS)))?;
        if flags & record::FLAG_MASK == 0 {
            return Ok(None);
        }
        Ok(Some(memory.word(RemoteAddr(sp.wrapping_add(record::GATE_MASK)))?))
    }

    /// The target's thread pointer for the same TLS block.
    fn thread_pointer(&self) -> Result<RemoteAddr, TransformError> {
        let Tables { source, target, .. } = self.pair;
        let to = target.isa;
        let refuse = |what: &str| TransformError::Unsupported { to, what: what.into() };
        let layout = |executable: &Executable| executable.tls.map(|tls| tls.layout);
        let (Some(tls), true) = (layout(source), layout(source) == layout(target)) else {
            return Err(refuse("the executables' thread-local storage differs: not a pair"));
        };
        tls.convert(self.state.registers.thread_pointer(), source.isa, to)
            .ok_or_else(|| refuse("the thread pointer is outside the address space"))
    }

    /// On x86_64 the word at the thread pointer is its own address (psABI, `%fs:0`); libc writes it on both.
    fn check_self_word(&self, memory: &mut ImageMemory<'_>, thread_pointer: RemoteAddr) -> Result<(), TransformError> {
        let to = self.pair.target.isa;
        if to != Isa::X86_64 || memory.word(thread_pointer)? == thread_pointer.0 {
            return Ok(());
        }
        let what = format!("the word at {thread_pointer} is not its own address, as every thread pointer's must be");
        Err(TransformError::Unsupported { to, what })
    }

    /// Address and value of the thread's `__isam_stack_low`, found by the target's thread pointer; `None` if its
    /// stack's mapping grows.
    fn stack_low(
        &self,
        memory: &mut ImageMemory<'_>,
        thread_pointer: RemoteAddr,
    ) -> Result<Option<(RemoteAddr, RemoteAddr)>, TransformError> {
        let target = self.pair.target;
        let info = target.manifest.tls_info;
        let offset = target.tls.and_then(|tls| tls.layout.thread_pointer_offset(target.isa));
        let (true, Some(offset)) = (info != 0, offset) else { return Ok(None) };
        let main_block = memory.word(RemoteAddr(info.wrapping_add(TLS_INFO_BLOCK)))?;
        let main_low = memory.word(RemoteAddr(info.wrapping_add(TLS_INFO_LOW)))?;
        if main_low == 0 {
            // libc has not started, or there is none: then there is one thread.
            return Ok(None);
        }
        let block = thread_pointer.0.wrapping_sub(offset.cast_unsigned());
        let at = RemoteAddr(block.wrapping_add(main_low.wrapping_sub(main_block)));
        let floor = RemoteAddr(memory.word(at)?);
        Ok((floor.0 != 0).then_some((at, floor)))
    }

    fn unwind_error(&self, source: UnwindError) -> TransformError {
        let near = match &source {
            UnwindError::NoSite { ret: ReturnAddr(ret), .. } => match self.pair.source.symbol_at(RemoteAddr(*ret)) {
                Some((name, offset)) => format!(" (nearest symbol: {name}+{offset:#x})"),
                None => String::new(),
            },
            _ => String::new(),
        };
        TransformError::Unwind { tid: self.tid, source, near }
    }

    fn explain(
        &self,
        stack: &NativeStack,
        layout: &Layout<'_>,
        source: &Member<'_>,
        thread_pointer: RemoteAddr,
    ) -> Vec<explain::FrameReport> {
        explain::frames(stack, layout, source, self.pair.source, thread_pointer)
    }
}

fn member<'a>(executable: &Executable, sites: &'a SiteTable) -> Member<'a> {
    let Executable { manifest, .. } = executable;
    Member { sites, root_ret: manifest.root_ret, restore_rt: manifest.restore_rt }
}
