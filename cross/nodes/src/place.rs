//! Where nodes keep their files: the cache of images, and a directory with sockets and a log per running node.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Instruction set of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AMD64.
    X86_64,
    /// AArch64, 4 KiB pages and 48-bit addresses.
    Aarch64,
}

impl Isa {
    /// The name that users write.
    pub fn name(self) -> &'static str {
        match self {
            Isa::X86_64 => "x86_64",
            Isa::Aarch64 => "aarch64",
        }
    }

    /// The inverse of [`Isa::name`].
    pub fn from_name(name: &str) -> Option<Isa> {
        [Isa::X86_64, Isa::Aarch64].into_iter().find(|isa| isa.name() == name)
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/isamorph/node`.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let base =
        base.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"));
    base.join("isamorph").join("node")
}

/// The directory of all running nodes. Short, for a socket's path has at most 107 bytes.
pub fn nodes() -> PathBuf {
    if let Some(dir) = env::var_os("ISAMORPH_NODE_DIR") {
        return dir.into();
    }
    // SAFETY: getuid has no preconditions.
    PathBuf::from(format!("/tmp/isamorph-nodes-{}", unsafe { libc::getuid() }))
}

/// Creates the directory of node `name`, removing what an earlier node of that name left behind.
///
/// # Errors
/// `AlreadyExists` if that node is running.
pub fn create(name: &str) -> io::Result<(PathBuf, Lock)> {
    if name.is_empty()
        || name.len() > 40
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("node name {name:?} (at most 40 letters, digits, '-', '_')"),
        ));
    }
    let all = nodes();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
    let lock = Lock::try_take(&all.join(format!("{name}.lock")))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::AlreadyExists, format!("node {name} is running")))?;
    sweep(&all, name)?;
    let dir = all.join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    Ok((dir, lock))
}

/// Removes what nodes left that were killed, or whose tool was.
fn sweep(all: &Path, except: &str) -> io::Result<()> {
    for entry in fs::read_dir(all)?.flatten() {
        let dir = entry.path();
        if !entry.file_type()?.is_dir() || dir.file_name() == Some(except.as_ref()) {
            continue;
        }
        let lock_path = dir.with_extension("lock");
        if let Some(_lock) = Lock::try_take(&lock_path)? {
            let _ = fs::remove_dir_all(&dir);
            let _ = fs::remove_file(&lock_path);
        }
    }
    Ok(())
}

/// The directory of the running node `name`.
///
/// # Errors
/// `NotFound` if there is none.
pub fn find(name: &str) -> io::Result<PathBuf> {
    let dir = nodes().join(name);
    if dir.join("ready").exists() {
        Ok(dir)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no node {name:?} is running: cross/node start --name {name} --isa ISA"),
        ))
    }
}

/// An exclusive lock on a file; released when its last holder (this process, or one that inherited it) ends.
#[derive(Debug)]
pub struct Lock {
    /// The open file.
    pub file: File,
}

impl Lock {
    /// Takes the lock, or returns `None` if somebody holds it.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn try_take(path: &Path) -> io::Result<Option<Lock>> {
        let file = File::create(path)?;
        // SAFETY: plain flock on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            // The last holder may have removed the file in between: then the lock is on nothing.
            let same = fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|then| now.ino() == then.ino()));
            return Ok(same.then_some(Lock { file }));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }
}
