//! All images of one process, read, checked against each other, and refused by name where need be.
use std::collections::BTreeMap;
use std::path::Path;

use isamorph_arch::Isa;

use super::program::PAGE;
use super::{Error, Result, host, memfd};
use crate::image::proto::{
    CoreEntry, CredsEntry, FdType, FdinfoEntry, FileEntry, FsEntry, InventoryEntry, MemfdInodeEntry, MmEntry,
    PipeDataEntry, PstreeEntry, RegFileEntry, RemapFilePathEntry, SeccompMode, TaskCoreEntry, TaskKobjIdsEntry,
    ThreadCoreEntry, TimensEntry, TtyInfoEntry,
};
use crate::image::{Entry, ImageDir, ImageEntry, ImageKind, PageReader, check_parent};

/// A thread as its images tell it.
#[derive(Debug)]
pub struct Thread {
    /// Its ID.
    pub tid: u32,
    /// Registers.
    pub core: CoreEntry,
    /// What the kernel keeps per thread.
    pub state: ThreadCoreEntry,
    /// Privileges.
    pub creds: CredsEntry,
}

/// The state of a process as its images tell it.
#[derive(Debug)]
pub struct Tree {
    /// The directory.
    pub dir: ImageDir,
    /// Its identity.
    pub process: PstreeEntry,
    /// Its leader, whose ID is the process's.
    pub leader: Thread,
    /// Its other threads.
    pub others: Vec<Thread>,
    /// What the kernel keeps per process.
    pub task: TaskCoreEntry,
    /// Address space.
    pub mm: MmEntry,
    /// Its memory.
    pub pages: PageReader,
    /// Directories and umask.
    pub fs: FsEntry,
    /// Descriptors.
    pub fds: Vec<FdinfoEntry>,
    /// Open files by ID.
    pub files: BTreeMap<u32, FileEntry>,
    /// Contents of pipes by pipe ID: capacity, bytes.
    pub pipes: BTreeMap<u32, (Option<u32>, Vec<u8>)>,
    /// Terminals by ID.
    pub terminals: BTreeMap<u32, TtyInfoEntry>,
    /// memfd objects by their ID.
    pub memfds: BTreeMap<u32, MemfdInodeEntry>,
    /// What the clocks showed.
    pub clocks: Option<TimensEntry>,
}

impl Tree {
    /// Reads the images in a directory.
    ///
    /// # Errors
    /// They are no valid images, of another instruction set, or hold what cannot be restored.
    pub fn read(path: &Path) -> Result<Self> {
        let dir = ImageDir::open(path)?;
        let inventory: InventoryEntry = known(&dir, dir.read_one(None)?)?;
        let processes: Vec<Entry<PstreeEntry>> = dir.read(None)?;
        let mut processes = processes.into_iter();
        let Some(process) = processes.next() else {
            return Err(inconsistent(&dir, "pstree.img names no process".into()));
        };
        let process = known(&dir, process)?;
        let pid = process.pid;
        let leader = Thread::read(&dir, pid)?;
        // A translated tree holds only what changed; the rest must be what it was translated from.
        check_parent(&dir)?;
        let others = processes.len();
        if others > 0 {
            return Err(unsupported(
                pid,
                format!("a tree of {} processes", others + 1),
                "only one can be restored yet",
            ));
        }
        let tids = process.threads.iter().filter(|tid| **tid != pid);
        let others = tids.map(|tid| Thread::read(&dir, *tid)).collect::<Result<Vec<_>>>()?;
        let task = leader.core.tc.clone().ok_or_else(|| missing(&dir, pid, "process state (tc)"))?;
        let ids = match leader.core.ids {
            Some(ids) => ids,
            None => known(&dir, dir.read_one::<TaskKobjIdsEntry>(u64::from(pid))?)?,
        };
        for thread in std::iter::once(&leader).chain(&others) {
            check_state(pid, &task, &thread.state)?;
        }
        check_namespaces(pid, &ids, inventory.root_ids.as_ref())?;
        let mut mm: MmEntry = known(&dir, dir.read_one(u64::from(pid))?)?;
        check_page_size(pid, &mm)?;
        if !mm.aios.is_empty() {
            return Err(unsupported(pid, "an io_setup(2) ring".into(), "asynchronous I/O cannot be restored"));
        }
        let fds_id = if inventory.fdinfo_per_id() { ids.files_id } else { pid };
        let mut files = BTreeMap::new();
        for entry in dir.read::<FileEntry>(None)? {
            let file = known(&dir, entry)?;
            files.insert(file.id, file);
        }
        if let Some(remap) = known_all::<RemapFilePathEntry>(&dir, None)?.first() {
            let name = files.get(&remap.orig_id).and_then(|f| f.reg.as_ref()).map_or("?", |r| r.name.as_str());
            return Err(unsupported(
                pid,
                format!("the deleted file {name}"),
                "files without a name cannot be restored yet",
            ));
        }
        let mut memfds = BTreeMap::new();
        for inode in known_all::<MemfdInodeEntry>(&dir, None)? {
            // Other images refer to it by 32 bits.
            memfds.insert(inode.inode_id as u32, inode);
        }
        let fds = dir.read(u64::from(fds_id))?.into_iter().map(|e| known(&dir, e)).collect::<Result<Vec<_>>>()?;
        memfd::unmask(&mut mm, &fds, &files, &memfds);
        let clocks_id = match (ids.time_ns_id, inventory.root_ids.as_ref().and_then(|r| r.time_ns_id)) {
            (Some(own), root) if Some(own) != root => u64::from(own),
            _ => 0,
        };
        let pipes = dir.read_or_empty::<PipeDataEntry>(None)?;
        Ok(Self {
            pages: PageReader::open(&dir, u64::from(pid))?,
            fs: known(&dir, dir.read_one(u64::from(pid))?)?,
            fds,
            pipes: pipes.iter().map(|p| (p.pipe_id, (p.size, p.payload().to_vec()))).collect(),
            terminals: known_all::<TtyInfoEntry>(&dir, None)?.into_iter().map(|t| (t.id, t)).collect(),
            clocks: known_all(&dir, clocks_id)?.pop(),
            process,
            leader,
            others,
            task,
            mm,
            files,
            memfds,
            dir,
        })
    }

    /// The process ID, also on this machine.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Every thread, the leader first.
    pub fn threads(&self) -> impl Iterator<Item = &Thread> {
        std::iter::once(&self.leader).chain(&self.others)
    }

    /// A state that cannot be restored.
    pub(super) fn unsupported(&self, what: impl Into<String>, remedy: impl Into<String>) -> Error {
        unsupported(self.pid(), what.into(), remedy)
    }

    /// Images that do not fit each other.
    pub(super) fn inconsistent(&self, what: impl Into<String>) -> Error {
        inconsistent(&self.dir, what.into())
    }

    /// The regular file with this ID.
    ///
    /// # Errors
    /// There is none.
    pub fn reg_file(&self, id: u32, used_as: &str) -> Result<&RegFileEntry> {
        let reg = self.files.get(&id).filter(|f| f.r#type() == FdType::Reg).and_then(|f| f.reg.as_ref());
        reg.ok_or_else(|| self.inconsistent(format!("files.img has no file {id:#x}, the {used_as}")))
    }
}

fn unsupported(pid: u32, what: String, remedy: impl Into<String>) -> Error {
    Error::Unsupported { pid, what, remedy: remedy.into() }
}

fn inconsistent(dir: &ImageDir, what: String) -> Error {
    Error::Inconsistent { tree: dir.path().to_owned(), what }
}

impl Thread {
    fn read(dir: &ImageDir, tid: u32) -> Result<Self> {
        let core: CoreEntry = known(dir, dir.read_one(u64::from(tid))?)?;
        check_isa(dir, &core)?;
        let state = core.thread_core.clone().ok_or_else(|| missing(dir, tid, "thread state (thread_core)"))?;
        let creds = state.creds.clone().ok_or_else(|| missing(dir, tid, "credentials"))?;
        Ok(Self { tid, core, state, creds })
    }

    /// Where it goes on.
    #[must_use]
    pub fn pc(&self) -> u64 {
        host::registers(&self.core).map_or(0, |r| r.pc().0)
    }
}

fn missing(dir: &ImageDir, tid: u32, what: &str) -> Error {
    inconsistent(dir, format!("core-{tid}.img has no {what}"))
}

/// An entry to act on: what this version does not know might be what matters.
fn known<T: ImageEntry>(dir: &ImageDir, entry: Entry<T>) -> Result<T> {
    match entry.unknown() {
        Some(field) => Err(inconsistent(dir, format!("{}: {field}", T::KIND.name()))),
        None => Ok(entry.into_inner()),
    }
}

fn known_all<T: ImageEntry>(dir: &ImageDir, id: impl Into<Option<u64>>) -> Result<Vec<T>> {
    dir.read_or_empty(id)?.into_iter().map(|e| known(dir, e)).collect()
}

fn check_isa(dir: &ImageDir, core: &CoreEntry) -> Result<()> {
    let images = core
        .isa()
        .ok_or_else(|| inconsistent(dir, format!("machine type {} is none that isamorph knows", core.mtype)))?;
    match Isa::host() {
        Some(host) if host == images => Ok(()),
        Some(host) => Err(Error::ForeignIsa { tree: dir.path().to_owned(), images, host }),
        None => Err(inconsistent(dir, "this machine has no instruction set that isamorph knows".into())),
    }
}

/// The process was told the page size of the kernel it ran on, and all its mappings are in pages of it.
fn check_page_size(pid: u32, mm: &MmEntry) -> Result<()> {
    const AT_PAGESZ: u64 = 6;
    let told = mm.mm_saved_auxv.chunks_exact(2).find(|pair| pair[0] == AT_PAGESZ).map(|pair| pair[1]);
    match told.filter(|size| *size != PAGE) {
        Some(size) => Err(unsupported(
            pid,
            format!("pages of {size} bytes"),
            format!("only processes with pages of {PAGE} bytes can be restored; dump it on a kernel that has these"),
        )),
        None => Ok(()),
    }
}

fn check_state(pid: u32, task: &TaskCoreEntry, thread: &ThreadCoreEntry) -> Result<()> {
    if !matches!(task.task_state, super::TASK_ALIVE | super::TASK_STOPPED) {
        return Err(unsupported(
            pid,
            format!("task state {}", task.task_state),
            "only living processes can be restored",
        ));
    }
    let mode = thread.seccomp_mode.or(task.old_seccomp_mode).unwrap_or(0);
    if mode != SeccompMode::Disabled as i32 {
        return Err(unsupported(pid, "seccomp".into(), "filters cannot be restored yet"));
    }
    if thread.sched_policy.unwrap_or(0) != 0 {
        return Err(unsupported(
            pid,
            format!("scheduling policy {}", thread.sched_policy()),
            "only SCHED_OTHER can be restored yet; change it with chrt before the dump",
        ));
    }
    let creds = thread.creds.as_ref();
    if let Some(profile) = creds.and_then(|c| c.lsm_profile.as_deref()).filter(|p| !p.is_empty() && *p != "unconfined")
    {
        return Err(unsupported(pid, format!("security profile {profile:?}"), "profiles cannot be restored"));
    }
    if creds.is_some_and(|c| c.lsm_sockcreate.is_some()) {
        return Err(unsupported(pid, "a SELinux socket label".into(), "labels cannot be restored"));
    }
    Ok(())
}

/// Namespaces equal to those of whoever dumped are the host's; isamorph restores into its own.
fn check_namespaces(pid: u32, ids: &TaskKobjIdsEntry, root: Option<&TaskKobjIdsEntry>) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    let pairs = [
        ("pid", ids.pid_ns_id, root.pid_ns_id),
        ("network", ids.net_ns_id, root.net_ns_id),
        ("IPC", ids.ipc_ns_id, root.ipc_ns_id),
        ("UTS", ids.uts_ns_id, root.uts_ns_id),
        ("mount", ids.mnt_ns_id, root.mnt_ns_id),
        ("user", ids.user_ns_id, root.user_ns_id),
        ("cgroup", ids.cgroup_ns_id, root.cgroup_ns_id),
    ];
    match pairs.iter().find(|(_, own, root)| own.is_some() && root.is_some() && own != root) {
        Some((name, ..)) => {
            Err(unsupported(pid, format!("a {name} namespace of its own"), "namespaces cannot be restored yet"))
        }
        None => Ok(()),
    }
}

/// Kinds of images that mean state outside of what [`Tree`] holds: their presence with entries is a reason to refuse.
pub(super) fn check_leftovers(tree: &Tree) -> Result<()> {
    for (kind, id) in tree.dir.images()? {
        let what = match kind {
            ImageKind::FileLocks => "file locks",
            ImageKind::SkQueues => "messages queued in sockets",
            ImageKind::TcpStream => "a TCP connection",
            ImageKind::GhostFile => "a deleted file",
            ImageKind::TtyData => "unread terminal input",
            ImageKind::FifoData => "data in a named pipe",
            _ => continue,
        };
        let file = tree.dir.open_file(kind, id)?;
        let len = file.metadata().map_err(|e| Error::system("reading the tree", e))?.len();
        // CRIU writes some images without entries.
        if len > 8 {
            return Err(tree.unsupported(what, "cannot be restored yet"));
        }
    }
    Ok(())
}
