//! Open files: `files.img` and `fdinfo-1.img`; regular files, directories and memory devices here.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Error, Log, Options, Result, special, tty};
use crate::image::proto::FdType;
use crate::image::{Entry, ImageDir, proto};
use crate::tracee::proc;

/// A descriptor of the process.
#[derive(Debug)]
pub struct Descriptor {
    /// Of which process.
    pub pid: i32,
    /// Its number.
    pub number: i32,
    /// What `/proc/PID/fd` calls it.
    pub name: PathBuf,
    /// What `stat` says.
    pub stat: fs::Metadata,
    /// `f_flags` without O_CLOEXEC.
    pub flags: u32,
    /// Whether exec closes it.
    pub close_on_exec: bool,
    /// File offset.
    pub position: u64,
    /// `/proc/PID/fdinfo/N`.
    pub info: String,
    /// When that was read.
    pub read_at: Instant,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, a directory, or a device that has no state.
    Regular,
    /// An end of a pipe.
    Pipe,
    /// The user's side of a pseudo-terminal, or `/dev/tty`.
    Terminal,
    /// eventfd(2).
    Eventfd,
    /// epoll(7).
    Epoll,
    /// signalfd(2).
    Signalfd,
    /// timerfd_create(2).
    Timerfd,
}

impl Descriptor {
    /// Looks at a descriptor.
    ///
    /// # Errors
    /// It is gone.
    pub fn read(pid: i32, number: i32) -> Result<Self> {
        let mut name = proc::link(pid, &format!("fd/{number}"))?;
        let path = proc::path(pid, &format!("fd/{number}"));
        let stat = fs::metadata(&path)
            .or_else(|_| fs::symlink_metadata(&path))
            .map_err(|source| Error::System { what: format!("looking at {}", path.display()), source })?;
        if let Ok(there) = leads_back(&name, &stat) {
            name = there;
        }
        let info = proc::read_text(pid, &format!("fdinfo/{number}"))?;
        let read_at = Instant::now();
        let field = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let flags = field("flags:").and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(0);
        let position = field("pos:").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0).cast_unsigned();
        let cloexec = libc::O_CLOEXEC as u32;
        Ok(Self {
            pid,
            number,
            name,
            stat,
            flags: flags & !cloexec,
            close_on_exec: flags & cloexec != 0,
            position,
            info,
            read_at,
        })
    }

    /// The value of a line `key: value` of fdinfo.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&str> {
        self.info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    }

    /// The refusal of this descriptor.
    pub fn refuse(&self, what: &str, reason: &'static str, remedy: impl Into<String>) -> Error {
        Error::Unsupported {
            pid: self.pid,
            what: format!("{what} (descriptor {}: {})", self.number, self.name.display()),
            reason,
            remedy: remedy.into(),
        }
    }

    /// What it is.
    ///
    /// # Errors
    /// The refusal of what images cannot carry.
    pub fn kind(&self, options: &Options) -> Result<Kind> {
        const NOT_YET: &str = "this version does not carry it";
        if self.info.lines().any(|line| line.starts_with("lock:")) {
            return Err(self.refuse("a file lock", NOT_YET, "let it unlock the file first"));
        }
        let name = self.name.to_string_lossy();
        let kind = self.stat.file_type();
        if kind.is_socket() || name.starts_with("socket:") {
            return Err(self.refuse("a socket", NOT_YET, "let it close the socket first"));
        }
        if let Some(inode) = name.strip_prefix("anon_inode:") {
            return match inode.trim_matches(['[', ']']) {
                "eventfd" if self.field("eventfd-semaphore").is_some_and(|v| v != "0") => {
                    Err(self.refuse("a semaphore eventfd", "the image format has no place for that", "run it without"))
                }
                "eventfd" => Ok(Kind::Eventfd),
                "eventpoll" => Ok(Kind::Epoll),
                "signalfd" => Ok(Kind::Signalfd),
                "timerfd" => Ok(Kind::Timerfd),
                other => {
                    Err(self.refuse(&format!("a descriptor of the kind {other}"), NOT_YET, "let it close that first"))
                }
            };
        }
        if name.starts_with("/memfd:") {
            return Err(self.refuse("a memory file (memfd_create)", NOT_YET, "let it close that first"));
        }
        if name.starts_with("pipe:") {
            return special::check_pipe(self, options).map(|()| Kind::Pipe);
        }
        if kind.is_fifo() {
            return Err(self.refuse("a named pipe", NOT_YET, "let it close that first"));
        }
        if kind.is_block_device() {
            return Err(self.refuse("a block device", "its state is not the process's", "let it close that first"));
        }
        if kind.is_char_device() {
            return self.device(options);
        }
        if self.name.starts_with(proc::path(self.pid, "")) {
            return Err(self.refuse(
                "a file of /proc about itself",
                "it would have to be opened before the process is there",
                "let it close that first, or try again at another moment",
            ));
        }
        if kind.is_file() || kind.is_dir() || kind.is_symlink() {
            return self.path_leads_back().map(|()| Kind::Regular);
        }
        Err(self.refuse("a file of an unknown kind", NOT_YET, "let it close that first"))
    }

    fn device(&self, options: &Options) -> Result<Kind> {
        let (major, minor) = (libc::major(self.stat.rdev()), libc::minor(self.stat.rdev()));
        match (major, minor) {
            // null, zero, full, random, urandom: Documentation/admin-guide/devices.txt.
            (1, 3 | 5 | 7 | 8 | 9) => self.path_leads_back().map(|()| Kind::Regular),
            (5, 0) | (136..=143, _) if options.shell_job => Ok(Kind::Terminal),
            (5, 0) | (136..=143, _) => Err(self.refuse(
                "a terminal",
                "that stays here",
                "use --shell-job (then also to restore), or redirect its input and output",
            )),
            _ => Err(self.refuse(
                &format!("the device {major}:{minor}"),
                "its state is not the process's",
                "let it close that first",
            )),
        }
    }

    /// The path must still lead to this very file.
    fn path_leads_back(&self) -> Result<()> {
        leads_back(&self.name, &self.stat)
            .map(drop)
            .map_err(|reason| self.refuse("a file without a name", reason, "let it close the file, or give it a name"))
    }

    /// The same open file, as a descriptor of ours.
    ///
    /// # Errors
    /// The kernel refuses (it needs pidfd_getfd, Linux 5.6).
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let what = || format!("taking descriptor {} of process {}", self.number, self.pid);
        // SAFETY: plain system calls; the results are owned descriptors.
        unsafe {
            let pidfd = libc::syscall(libc::SYS_pidfd_open, self.pid, 0);
            if pidfd < 0 {
                return Err(Error::last_os(what()));
            }
            let pidfd = OwnedFd::from_raw_fd(pidfd as i32);
            let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), self.number, 0);
            if fd < 0 {
                return Err(Error::last_os(what()));
            }
            Ok(OwnedFd::from_raw_fd(fd as i32))
        }
    }

    /// The owner of the file's signals (fcntl F_SETOWN, F_SETSIG).
    fn owner(&self) -> Result<proto::FownEntry> {
        let none = proto::FownEntry { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
        if self.flags & libc::O_PATH as u32 != 0 {
            return Ok(none);
        }
        let fd = self.duplicate()?;
        const F_GETSIG: i32 = 11;
        const F_GETOWN_EX: i32 = 16;
        const F_GETOWNER_UIDS: i32 = 17;
        let mut owner = [0i32; 2];
        let mut uids = [0u32; 2];
        // SAFETY: the kernel writes eight bytes to each of the two arrays.
        let signal = unsafe {
            libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr());
            libc::fcntl(fd.as_raw_fd(), F_GETOWNER_UIDS, uids.as_mut_ptr());
            libc::fcntl(fd.as_raw_fd(), F_GETSIG)
        };
        if owner[1] == 0 {
            return Ok(proto::FownEntry { signum: signal.max(0) as u32, ..none });
        }
        if owner[1].unsigned_abs() != self.pid.unsigned_abs() {
            return Err(self.refuse(
                &format!("signals of a file sent to process {}", owner[1]),
                "that process stays here",
                "let it reset the owner (F_SETOWN)",
            ));
        }
        Ok(proto::FownEntry {
            uid: uids[0],
            euid: uids[1],
            signum: signal.max(0) as u32,
            pid_type: owner[0].cast_unsigned(),
            pid: owner[1].unsigned_abs(),
        })
    }
}

/// The path that leads to a file which `/proc` calls `path`.
fn leads_back(path: &Path, stat: &fs::Metadata) -> std::result::Result<PathBuf, &'static str> {
    if stat.nlink() == 0 {
        return Err("it was deleted");
    }
    // A file system that forgot a name (NFS, FUSE) makes the kernel say that of a file that is still there.
    let deleted =
        path.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|name| Path::new(OsStr::from_bytes(name)));
    let same =
        |path: &Path| fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()) == (stat.dev(), stat.ino()));
    match (same(path), deleted) {
        (Ok(true), _) => Ok(path.to_owned()),
        (_, Some(name)) => match same(name) {
            Ok(true) => Ok(name.to_owned()),
            _ => Err("it was deleted"),
        },
        (Ok(false), None) => Err("its path leads to another file by now"),
        (Err(_), None) => Err("its path leads nowhere"),
    }
}

/// Refuses what no image can carry, while the process still runs.
///
/// # Errors
/// The refusal.
pub fn survey(options: &Options, log: &Log) -> Result<()> {
    let mut files = Files::new(options, options.pid, None)?;
    let collected = files.collect_descriptors(log);
    let links = ["exe", "cwd", "root"].into_iter().map(|name| files.special(options.pid, name).map(drop));
    let refused = |result: &Result<()>| matches!(result, Err(Error::Unsupported { .. }));
    // It still runs: what it closes meanwhile is no error.
    std::iter::once(collected).chain(links).find(refused).unwrap_or(Ok(()))
}

fn descriptors(pid: i32) -> Result<Vec<Descriptor>> {
    let path = proc::path(pid, "fd");
    let system = |source| Error::System { what: format!("listing {}", path.display()), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&path).map_err(system)? {
        let name = entry.map_err(system)?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        match Descriptor::read(pid, number) {
            Ok(descriptor) => found.push(descriptor),
            // Closed since it was listed.
            Err(_) if fs::symlink_metadata(path.join(number.to_string())).is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The files of a process, as images will have them.
#[derive(Debug)]
pub struct Files {
    options: Options,
    pid: i32,
    asked: Option<Instant>,
    next_id: u32,
    entries: Vec<proto::FileEntry>,
    descriptors: Vec<proto::FdinfoEntry>,
    terminals: Vec<proto::TtyInfoEntry>,
    pipes: Vec<Entry<proto::PipeDataEntry>>,
    by_path: BTreeMap<PathBuf, u32>,
}

impl Files {
    /// No files yet; the process's clocks stand still since they were `asked`.
    ///
    /// # Errors
    /// Never in this version.
    pub fn new(options: &Options, pid: i32, asked: Option<Instant>) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            pid,
            asked,
            next_id: 1,
            entries: Vec::new(),
            descriptors: Vec::new(),
            terminals: Vec::new(),
            pipes: Vec::new(),
            by_path: BTreeMap::new(),
        })
    }

    fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Takes in every descriptor of the stopped process.
    ///
    /// # Errors
    /// One that images cannot carry.
    pub fn collect_descriptors(&mut self, log: &Log) -> Result<()> {
        let descriptors = descriptors(self.pid)?;
        special::survey_pipes(&descriptors, &self.options)?;
        let mut known: Vec<(usize, u32, FdType)> = Vec::new();
        for (i, descriptor) in descriptors.iter().enumerate() {
            let shared = known.iter().find(|(other, ..)| same_file(descriptor, &descriptors[*other]));
            let (id, kind) = match shared {
                Some(&(_, id, kind)) => (id, kind),
                None => {
                    let (id, kind) = self.file(descriptor, &descriptors)?;
                    known.push((i, id, kind));
                    (id, kind)
                }
            };
            log.debug(&format!("descriptor {} is {} (file {id})", descriptor.number, descriptor.name.display()));
            self.descriptors.push(proto::FdinfoEntry {
                id,
                flags: u32::from(descriptor.close_on_exec),
                r#type: kind.into(),
                fd: descriptor.number as u32,
                xattr_security_selinux: None,
            });
        }
        Ok(())
    }

    fn file(&mut self, descriptor: &Descriptor, all: &[Descriptor]) -> Result<(u32, FdType)> {
        let kind = descriptor.kind(&self.options)?;
        let fown = descriptor.owner()?;
        let id = self.new_id();
        let mut entry = proto::FileEntry { id, ..Default::default() };
        let kind = match kind {
            Kind::Regular => {
                entry.reg =
                    Some(regular(id, &descriptor.name, &descriptor.stat, descriptor.flags, descriptor.position, fown));
                FdType::Reg
            }
            Kind::Pipe => {
                let (pipe, data) = special::pipe(descriptor, id, fown)?;
                if let Some(data) = data
                    && !self.pipes.iter().any(|known| known.pipe_id == data.pipe_id)
                {
                    self.pipes.push(data);
                }
                entry.pipe = Some(pipe);
                FdType::Pipe
            }
            Kind::Terminal => {
                let path_id = self.new_id();
                let reg =
                    regular(path_id, &descriptor.name, &descriptor.stat, descriptor.flags, descriptor.position, fown);
                self.push_regular(reg);
                let info = tty::info(descriptor)?;
                entry.tty = Some(proto::TtyFileEntry {
                    id,
                    tty_info_id: info.id,
                    flags: descriptor.flags,
                    fown,
                    regf_id: Some(path_id),
                });
                if !self.terminals.iter().any(|known| known.id == info.id) {
                    self.terminals.push(info);
                }
                FdType::Tty
            }
            Kind::Eventfd => {
                entry.efd = Some(special::eventfd(descriptor, id, fown)?);
                FdType::Eventfd
            }
            Kind::Epoll => {
                entry.epfd = Some(special::epoll(descriptor, id, fown, all)?);
                FdType::Eventpoll
            }
            Kind::Signalfd => {
                entry.sgfd = Some(special::signalfd(descriptor, id, fown)?);
                FdType::Signalfd
            }
            Kind::Timerfd => {
                entry.tfd = Some(special::timerfd(descriptor, id, fown, self.asked)?);
                FdType::Timerfd
            }
        };
        entry.r#type = kind.into();
        self.entries.push(entry);
        Ok((id, kind))
    }

    fn push_regular(&mut self, reg: proto::RegFileEntry) {
        let id = reg.id;
        self.entries.push(proto::FileEntry { r#type: FdType::Reg.into(), id, reg: Some(reg), ..Default::default() });
    }

    /// The ID of a file that is no descriptor: `exe`, `cwd`, `root`, or a mapped one.
    ///
    /// # Errors
    /// It was deleted or replaced.
    pub fn special(&mut self, pid: i32, name: &str) -> Result<u32> {
        let path = proc::link(pid, name)?;
        if let Some(&id) = self.by_path.get(&path) {
            return Ok(id);
        }
        let link = proc::path(pid, name);
        let stat = fs::metadata(&link)
            .map_err(|source| Error::System { what: format!("looking at {}", link.display()), source })?;
        let path = leads_back(&path, &stat).map_err(|reason| Error::Unsupported {
            pid,
            what: format!("{name} at {}", path.display()),
            reason,
            remedy: "put the file back".into(),
        })?;
        let id = self.new_id();
        let fown = proto::FownEntry { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
        self.push_regular(regular(id, &path, &stat, 0, 0, fown));
        self.by_path.insert(path, id);
        Ok(id)
    }

    /// Writes the images.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(self, tree: &ImageDir) -> Result<()> {
        fn entries<T: crate::image::ImageEntry>(values: Vec<T>) -> Vec<Entry<T>> {
            values.into_iter().map(Entry::new).collect()
        }
        tree.write(None, &entries(self.entries))?;
        tree.write(super::tree::FILES_ID, &entries(self.descriptors))?;
        if !self.terminals.is_empty() {
            tree.write(None, &entries(self.terminals))?;
        }
        if !self.pipes.is_empty() {
            tree.write(None, &self.pipes)?;
        }
        Ok(())
    }
}

fn regular(
    id: u32,
    path: &Path,
    stat: &fs::Metadata,
    flags: u32,
    position: u64,
    fown: proto::FownEntry,
) -> proto::RegFileEntry {
    // A log that others append to may have any size by then.
    let log = flags & 3 == libc::O_WRONLY as u32 && flags & libc::O_APPEND as u32 != 0;
    proto::RegFileEntry {
        id,
        flags,
        pos: position,
        fown,
        name: path.to_string_lossy().into_owned(),
        size: (stat.is_file() && !log).then_some(stat.len()),
        mode: Some(stat.mode()),
        ..Default::default()
    }
}

/// Whether two descriptors of a process are one open file (dup(2)): kcmp(2) knows.
fn same_file(a: &Descriptor, b: &Descriptor) -> bool {
    const KCMP_FILE: i32 = 0;
    if a.name != b.name || a.flags != b.flags || a.stat.ino() != b.stat.ino() || a.stat.dev() != b.stat.dev() {
        return false;
    }
    // SAFETY: a plain system call.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, a.pid, b.pid, KCMP_FILE, a.number, b.number) };
    order == 0
}

/// Reads a file of our own that was made for the purpose.
pub(super) fn read_to_end(file: OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::from(file), &mut bytes)?;
    Ok(bytes)
}
