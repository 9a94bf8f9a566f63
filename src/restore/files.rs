//! Open files: opened by this program, far above the numbers that the process wants, then moved.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::program::{Arg, Expect, Program};
use super::tree::Tree;
use super::{Error, Options, Result, elf, host, memfd, special, task, terminal};
use crate::image::proto::{FdType, FileEntry, FownEntry, RegFileEntry, VmaEntry};

/// Flags that only matter when a file is opened first.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC;

/// Descriptors that the restorer program uses, above all that the process will have.
#[derive(Debug)]
pub struct Helpers {
    base: RawFd,
    open: Vec<OwnedFd>,
    mapped: BTreeMap<(u32, i32), RawFd>,
}

impl Helpers {
    /// None yet. Raises this program's own limit as far as it may.
    ///
    /// # Errors
    /// The process has descriptors with numbers beyond the hard limit.
    pub fn new(tree: &Tree) -> Result<Self> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes and reads `limit`.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        let highest = tree.fds.iter().map(|f| u64::from(f.fd)).max().unwrap_or(0).max(2);
        // Files, mapped files, pages images and a few of our own.
        let need = highest + tree.files.len() as u64 * 3 + tree.pages.levels() as u64 + 64;
        if need > limit.rlim_max {
            return Err(tree.unsupported(
                format!("descriptor {highest}"),
                format!("at most {} can be open here; raise the limit with `ulimit -Hn {need}`", limit.rlim_max),
            ));
        }
        Ok(Self { base: highest as RawFd + 1, open: Vec::new(), mapped: BTreeMap::new() })
    }

    /// The first number above all of the process's.
    #[must_use]
    pub fn base(&self) -> RawFd {
        self.base
    }

    /// A number above the base for a descriptor that stays open elsewhere.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn borrow(&mut self, fd: &impl AsFd, what: &Path) -> Result<RawFd> {
        let error = |e: Errno| Error::system(format!("{}: a descriptor for it", what.display()), e);
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(self.base)).map_err(error)?;
        // SAFETY: fcntl has just made this descriptor.
        self.open.push(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(number)
    }

    /// As [`borrow`](Self::borrow), for a descriptor that is not needed elsewhere.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn keep(&mut self, fd: OwnedFd, what: &Path) -> Result<RawFd> {
        if fd.as_raw_fd() >= self.base {
            let number = fd.as_raw_fd();
            self.open.push(fd);
            return Ok(number);
        }
        self.borrow(&fd, what)
    }

    /// One descriptor for all mappings of a file: by its ID in the images, and the flags it is opened with.
    ///
    /// # Errors
    /// It cannot be opened, or there are no descriptors left.
    pub fn once(&mut self, id: u32, flags: i32, open: impl FnOnce() -> Result<(OwnedFd, PathBuf)>) -> Result<RawFd> {
        if let Some(&fd) = self.mapped.get(&(id, flags)) {
            return Ok(fd);
        }
        let (fd, name) = open()?;
        let fd = self.keep(fd, &name)?;
        self.mapped.insert((id, flags), fd);
        Ok(fd)
    }
}

/// A descriptor that the caller passed with `--inherit-fd fd[N]:KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherit {
    /// Number in this program.
    pub fd: RawFd,
    /// What it stands for: `pipe:[INODE]`, `tty[RDEV:DEV]`, `path/to/file`.
    pub key: String,
}

impl std::str::FromStr for Inherit {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form fd[N]:RESOURCE");
        let (fd, key) = text.strip_prefix("fd[").and_then(|t| t.split_once("]:")).ok_or_else(wrong)?;
        Ok(Self { fd: fd.parse().map_err(|_| wrong())?, key: key.to_owned() })
    }
}

/// Opens everything and adds the calls that give each file its numbers.
///
/// # Errors
/// A file is missing or is not what it was; a kind that cannot be restored.
pub fn plan(
    tree: &Tree,
    options: &Options,
    program: &mut Program,
    helpers: &mut Helpers,
    memfds: &mut memfd::Objects,
) -> Result<()> {
    let mut sources = BTreeMap::new();
    let mut pipes = special::Pipes::default();
    for f in &tree.fds {
        if sources.contains_key(&f.id) {
            continue;
        }
        let file = tree.files.get(&f.id).ok_or_else(|| {
            tree.inconsistent(format!("files.img has no file {:#x}, which is descriptor {}", f.id, f.fd))
        })?;
        let (fd, name) = open_one(tree, options, file, f.fd, &mut pipes, memfds)?;
        sources.insert(f.id, helpers.keep(fd, &name)?);
    }
    let base = helpers.base();
    program.call("closing the restorer's descriptors", libc::SYS_close_range, [0.into(), (base - 1).into(), 0.into()]);
    task::plan_proc(tree, program);
    let mut taken = std::collections::BTreeSet::new();
    for f in &tree.fds {
        if !taken.insert(f.fd) {
            return Err(tree.inconsistent(format!("descriptor {} is there twice", f.fd)));
        }
        let flags = if f.flags & libc::FD_CLOEXEC as u32 != 0 { libc::O_CLOEXEC } else { 0 };
        program.call_expecting(
            format!("making descriptor {}", f.fd),
            libc::SYS_dup3,
            [sources[&f.id].into(), f.fd.into(), flags.into()],
            Expect::Exactly(f.fd.into()),
        );
    }
    for f in &tree.fds {
        let file = &tree.files[&f.id];
        if let Some(owner) = owner(file).filter(|o| o.pid != 0 || o.signum != 0) {
            set_owner(tree, program, f.fd, owner)?;
        }
        if let Some(epoll) = file.epfd.as_ref().filter(|_| file.r#type() == FdType::Eventpoll) {
            // Two numbers of one instance share its list.
            if tree.fds.iter().find(|other| other.id == f.id).is_some_and(|first| first.fd == f.fd) {
                special::watch(tree, program, f.fd, epoll)?;
            }
        }
    }
    Ok(())
}

fn open_one(
    tree: &Tree,
    options: &Options,
    file: &FileEntry,
    number: u32,
    pipes: &mut special::Pipes,
    memfds: &mut memfd::Objects,
) -> Result<(OwnedFd, PathBuf)> {
    let missing = || tree.inconsistent(format!("file {:#x} has no data of its kind {}", file.id, file.r#type));
    let name = |kind: &str| PathBuf::from(format!("{kind} of descriptor {number}"));
    match file.r#type() {
        FdType::Reg => {
            let reg = file.reg.as_ref().ok_or_else(missing)?;
            if let Some(inherited) = inherited(options, reg.name.trim_start_matches('/')) {
                return Ok((duplicate(inherited)?, PathBuf::from(&reg.name)));
            }
            Ok((open_reg(tree, reg, reg.flags as i32)?, PathBuf::from(&reg.name)))
        }
        FdType::Pipe => {
            let pipe = file.pipe.as_ref().ok_or_else(missing)?;
            Ok((pipes.open(tree, options, pipe, number)?, name("pipe")))
        }
        FdType::Tty => {
            let tty = file.tty.as_ref().ok_or_else(missing)?;
            Ok((terminal::open(tree, options, tty, number)?, name("terminal")))
        }
        FdType::Memfd => {
            let file = file.memfd.as_ref().ok_or_else(missing)?;
            Ok((memfds.open(tree, file, file.flags as i32, file.pos)?, name("memfd")))
        }
        FdType::Eventfd => Ok((special::eventfd(file.efd.as_ref().ok_or_else(missing)?)?, name("eventfd"))),
        FdType::Eventpoll => Ok((special::epoll()?, name("epoll instance"))),
        FdType::Signalfd => Ok((special::signalfd(file.sgfd.as_ref().ok_or_else(missing)?)?, name("signalfd"))),
        FdType::Timerfd => Ok((special::timerfd(tree, file.tfd.as_ref().ok_or_else(missing)?)?, name("timerfd"))),
        other => {
            let what = match other {
                FdType::Fifo => "a named pipe",
                FdType::Inetsk => "an internet socket",
                FdType::Unixsk => "a Unix socket",
                FdType::Inotify => "an inotify instance",
                FdType::Packetsk => "a packet socket",
                FdType::Fanotify => "a fanotify instance",
                FdType::Netlinksk => "a netlink socket",
                FdType::Ns => "an open namespace",
                FdType::Tunf => "a tun device",
                FdType::Ext => "an external file",
                FdType::Bpfmap => "a BPF map",
                FdType::Pidfd => "a pidfd",
                _ => "a file of an unknown kind",
            };
            Err(tree.unsupported(format!("descriptor {number} is {what}"), "this kind cannot be restored yet"))
        }
    }
}

/// The descriptor that was passed for a resource.
#[must_use]
pub fn inherited(options: &Options, key: &str) -> Option<RawFd> {
    options.inherit.iter().find(|i| i.key == key).map(|i| i.fd)
}

/// A second number for a descriptor of this program.
///
/// # Errors
/// It is not open.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: only used for the length of this call; a number that is not open is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(|e| Error::system(format!("inherited descriptor {fd}"), e))
}

/// Opens a file, directory or device again, as it was open, at its position.
///
/// # Errors
/// It is not there, or not the same.
pub fn open_reg(tree: &Tree, reg: &RegFileEntry, flags: i32) -> Result<OwnedFd> {
    let path = Path::new(&reg.name);
    let error = |what: String| Error::File { path: path.to_owned(), what };
    if reg.ext() {
        return Err(tree.unsupported(format!("{} is external", reg.name), "external files cannot be restored yet"));
    }
    // O_NONBLOCK only so that a named pipe in the place of the file cannot hang us; taken back below.
    let opened = OFlag::from_bits_retain(flags & !ONCE | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK);
    let fd = match open(path, opened, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => {
            return Err(error("no such file here; the process had it open, so it must be brought along".into()));
        }
        Err(e) => return Err(error(format!("cannot be opened with flags {flags:#o}: {}", e.desc()))),
    };
    let file = File::from(fd);
    let meta = file.metadata().map_err(|e| error(e.to_string()))?;
    if let Some(mode) = reg.mode.filter(|mode| mode & libc::S_IFMT != meta.mode() & libc::S_IFMT) {
        return Err(error(format!("is a file of mode {:#o} here, {mode:#o} in the images", meta.mode())));
    }
    if let Some(size) = reg.size.filter(|size| meta.is_file() && *size != meta.len()) {
        return Err(error(format!(
            "has {} bytes here and had {size} when the process was dumped; bring back the file as it was",
            meta.len()
        )));
    }
    if !reg.build_id.is_empty() {
        elf::check_build_id(&file, path, &reg.build_id)?;
    }
    if flags & libc::O_PATH == 0 {
        if flags & libc::O_NONBLOCK == 0 {
            let current = fcntl(&file, FcntlArg::F_GETFL).map_err(|e| error(e.desc().into()))?;
            let wanted = OFlag::from_bits_retain(current & !libc::O_NONBLOCK);
            fcntl(&file, FcntlArg::F_SETFL(wanted)).map_err(|e| error(e.desc().into()))?;
        }
        let seekable = meta.is_file() || meta.is_dir() || meta.file_type().is_block_device() || reg.pos != 0;
        if seekable && reg.pos != u64::MAX {
            // SAFETY: lseek takes numbers only.
            let at = unsafe { libc::lseek(file.as_raw_fd(), reg.pos.cast_signed(), libc::SEEK_SET) };
            if at.cast_unsigned() != reg.pos {
                return Err(error(format!("cannot be positioned at {}: {}", reg.pos, std::io::Error::last_os_error())));
            }
        }
    }
    Ok(file.into())
}

/// A descriptor for mapping a file.
///
/// # Errors
/// As [`open_reg`].
pub fn open_mapped(tree: &Tree, helpers: &mut Helpers, v: &VmaEntry, shared: bool) -> Result<RawFd> {
    let id = u32::try_from(v.shmid).map_err(|_| tree.inconsistent(format!("file {:#x} of a mapping", v.shmid)))?;
    let guess = if shared && v.prot & libc::PROT_WRITE as u32 != 0 { libc::O_RDWR } else { libc::O_RDONLY };
    let flags = v.fdflags.map_or(guess, |f| f as i32 & libc::O_ACCMODE);
    helpers.once(id, flags, || {
        let reg = tree.reg_file(id, "file of a mapping")?;
        Ok((open_reg(tree, &RegFileEntry { pos: 0, ..reg.clone() }, flags)?, PathBuf::from(&reg.name)))
    })
}

fn owner(file: &FileEntry) -> Option<&FownEntry> {
    let by_kind = [
        file.reg.as_ref().map(|f| &f.fown),
        file.pipe.as_ref().map(|f| &f.fown),
        file.tty.as_ref().map(|f| &f.fown),
        file.efd.as_ref().map(|f| &f.fown),
        file.epfd.as_ref().map(|f| &f.fown),
        file.sgfd.as_ref().map(|f| &f.fown),
        file.tfd.as_ref().map(|f| &f.fown),
        file.memfd.as_ref().map(|f| &f.fown),
    ];
    by_kind.into_iter().flatten().next()
}

/// F_SETOWN_EX and F_SETSIG.
fn set_owner(tree: &Tree, program: &mut Program, fd: u32, owner: &FownEntry) -> Result<()> {
    const F_OWNER_TID: u32 = 0;
    const F_OWNER_PID: u32 = 1;
    const F_SETSIG: i32 = 10;
    const F_SETOWN_EX: i32 = 15;
    let what = format!("the owner of descriptor {fd}");
    if owner.pid != 0 {
        let kind = match owner.pid_type {
            0 if owner.pid == tree.pid() => F_OWNER_TID,
            1 if owner.pid == tree.pid() => F_OWNER_PID,
            _ => return Err(tree.unsupported(what, "signals to another process cannot be restored")),
        };
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(owner.pid.to_le_bytes());
        let data = program.data(&bytes);
        program.call(what.clone(), libc::SYS_fcntl, [fd.into(), F_SETOWN_EX.into(), data]);
    }
    if owner.signum != 0 {
        program.call(what, libc::SYS_fcntl, [fd.into(), F_SETSIG.into(), owner.signum.into()]);
    }
    Ok(())
}

/// Root, working directory, umask.
///
/// # Errors
/// A directory is missing.
pub fn plan_directories(tree: &Tree, program: &mut Program, helpers: &mut Helpers) -> Result<()> {
    let mut directory = |id: u32, used_as: &str| -> Result<(RawFd, String)> {
        let reg = tree.reg_file(id, used_as)?;
        let reg = RegFileEntry { pos: 0, ..reg.clone() };
        let fd = open_reg(tree, &reg, libc::O_PATH | libc::O_DIRECTORY)?;
        Ok((helpers.keep(fd, Path::new(&reg.name))?, reg.name))
    };
    let (root, root_name) = directory(tree.fs.root_id, "root directory")?;
    let (cwd, cwd_name) = directory(tree.fs.cwd_id, "working directory")?;
    if root_name != "/" {
        let dot = program.data(b".\0");
        program.call(format!("entering {root_name}"), libc::SYS_fchdir, [root.into()]);
        program.call(format!("making {root_name} the root directory"), libc::SYS_chroot, [dot]);
    }
    program.call(format!("entering {cwd_name}"), libc::SYS_fchdir, [cwd.into()]);
    if let Some(umask) = tree.fs.umask {
        program.call("setting the umask", libc::SYS_umask, [umask.into()]);
    }
    Ok(())
}

/// The executable, for `/proc/PID/exe`.
///
/// # Errors
/// It is missing, not the same, or of another instruction set.
pub fn open_executable(tree: &Tree, helpers: &mut Helpers) -> Result<RawFd> {
    let reg = tree.reg_file(tree.mm.exe_file_id, "executable")?;
    let fd = open_reg(tree, &RegFileEntry { pos: 0, ..reg.clone() }, libc::O_RDONLY)?;
    let path = Path::new(&reg.name);
    elf::check_machine(&File::from(fd.try_clone().map_err(|e| Error::system(reg.name.clone(), e))?), path)?;
    helpers.keep(fd, path)
}

/// Writes into a file of /proc/self in the new process; to be used before its own descriptors are made.
pub(super) fn write_own_proc(program: &mut Program, file: &str, text: &str) {
    let path = program.data(format!("/proc/self/{file}\0").as_bytes());
    let contents = program.data(text.as_bytes());
    let what = format!("setting {file} to {text}");
    // All lower descriptors are closed by now, so this is the first one.
    let args = [libc::AT_FDCWD.into(), path, libc::O_WRONLY.into()];
    program.call_expecting(what.clone(), libc::SYS_openat, args, Expect::Exactly(0));
    program.call(what.clone(), libc::SYS_write, [0.into(), contents, Arg::Value(text.len() as u64)]);
    program.call(what, libc::SYS_close, [0.into()]);
}

/// Fills a new pipe; it must be empty and large enough.
pub(super) fn fill_pipe(write_end: &OwnedFd, bytes: &[u8]) -> std::io::Result<()> {
    File::from(write_end.try_clone()?).write_all(bytes)
}

/// The bytes that `epoll_ctl` reads.
#[must_use]
pub fn epoll_event(events: u32, data: u64) -> Vec<u8> {
    host::epoll_event(events, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_descriptors_are_named_as_criu_names_them() {
        let i: Inherit = "fd[7]:pipe:[1234]".parse().unwrap();
        assert_eq!(i, Inherit { fd: 7, key: "pipe:[1234]".into() });
        assert!("7:pipe:[1]".parse::<Inherit>().is_err());
        assert!("fd[x]:pipe:[1]".parse::<Inherit>().is_err());
    }
}
