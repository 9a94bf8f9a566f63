//! memfd files, and shared anonymous memory that looks like one.
//!
//! CRIU cannot tell the kernel's own `/dev/zero` objects from memfds on every kernel, and dumps
//! shared anonymous memory as a memfd of that name then. It is made into what it was.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::files::Helpers;
use super::tree::Tree;
use super::{Error, Result};
use crate::image::proto::{FdType, FdinfoEntry, FileEntry, MemfdFileEntry, MemfdInodeEntry, MmEntry, VmaEntry};
use crate::image::{PageReader, vma};

/// The name that the kernel gives to shared anonymous memory.
const ANONYMOUS: &str = "/dev/zero";
/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// The memfd objects made so far, by inode ID of the images.
#[derive(Debug, Default)]
pub struct Objects(BTreeMap<u32, OwnedFd>);

/// Turns mappings of the kernel's own objects back into shared anonymous memory.
///
/// A process may name a memfd `/dev/zero`, too; then it has a descriptor of it, or nobody can tell the difference.
pub fn unmask(
    mm: &mut MmEntry,
    fds: &[FdinfoEntry],
    files: &BTreeMap<u32, FileEntry>,
    inodes: &BTreeMap<u32, MemfdInodeEntry>,
) {
    let memfd = |id: u32| files.get(&id).and_then(|f| f.memfd.as_ref());
    let open: BTreeSet<u32> = fds.iter().filter_map(|f| memfd(f.id)).map(|f| f.inode_id).collect();
    for v in mm.vmas.iter_mut().filter(|v| v.status & vma::MEMFD != 0) {
        let file = u32::try_from(v.shmid).ok().and_then(memfd);
        let inode = file.and_then(|f| inodes.get(&f.inode_id));
        if let Some(inode) = inode.filter(|i| i.name == ANONYMOUS && !open.contains(&(i.inode_id as u32))) {
            v.status = v.status & !(vma::MEMFD | vma::FILE_SHARED | vma::FILE_PRIVATE) | vma::ANON_SHARED;
            v.shmid = inode.shmid.into();
        }
    }
}

impl Objects {
    /// Opens a memfd as it was open.
    ///
    /// # Errors
    /// The images lack the object or its memory; seals that cannot be put back.
    pub fn open(&mut self, tree: &Tree, file: &MemfdFileEntry, flags: i32, pos: u64) -> Result<OwnedFd> {
        let object = self.object(tree, file.inode_id)?;
        let error = |what: &str, e: nix::errno::Errno| Error::system(format!("{what} memfd {:#x}", file.inode_id), e);
        let path = format!("/proc/self/fd/{}", object.as_raw_fd());
        let kept = flags & (libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK) | libc::O_CLOEXEC;
        let fd = open(path.as_str(), OFlag::from_bits_retain(kept), Mode::empty()).map_err(|e| error("opening", e))?;
        // SAFETY: takes numbers only.
        if unsafe { libc::lseek(fd.as_raw_fd(), pos.cast_signed(), libc::SEEK_SET) } < 0 {
            return Err(Error::last(format!("positioning memfd {:#x}", file.inode_id)));
        }
        Ok(fd)
    }

    /// A descriptor for mapping it.
    ///
    /// # Errors
    /// As [`open`](Self::open); the images lack the file.
    pub fn open_mapped(&mut self, tree: &Tree, helpers: &mut Helpers, v: &VmaEntry) -> Result<RawFd> {
        let missing = || tree.inconsistent(format!("files.img has no memfd {:#x}, which is mapped", v.shmid));
        let id = u32::try_from(v.shmid).map_err(|_| missing())?;
        let file = tree.files.get(&id).filter(|f| f.r#type() == FdType::Memfd).and_then(|f| f.memfd.as_ref());
        let file = file.ok_or_else(missing)?;
        let flags = v.fdflags.map_or(libc::O_RDWR, |f| f as i32 & libc::O_ACCMODE);
        helpers.once(id, flags, || Ok((self.open(tree, file, flags, 0)?, PathBuf::from("memfd"))))
    }

    fn object(&mut self, tree: &Tree, id: u32) -> Result<&OwnedFd> {
        match self.0.entry(id) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(place) => {
                let inode = tree.memfds.get(&id);
                let inode = inode.ok_or_else(|| tree.inconsistent(format!("memfd.img has no object {id:#x}")))?;
                Ok(place.insert(make(tree, inode)?))
            }
        }
    }
}

fn make(tree: &Tree, inode: &MemfdInodeEntry) -> Result<OwnedFd> {
    /// Later writable mappings are forbidden, those that exist are not: nobody can make these anew.
    const F_SEAL_FUTURE_WRITE: i32 = 0x10;
    let what = || format!("memfd {:?}", inode.name);
    if inode.hugetlb_flag() != 0 {
        return Err(tree.unsupported(what(), "huge pages cannot be restored yet"));
    }
    let seals = inode.seals as i32;
    if seals & F_SEAL_FUTURE_WRITE != 0 {
        return Err(tree.unsupported(what(), "the seal F_SEAL_FUTURE_WRITE cannot be restored yet"));
    }
    let name = CString::new(inode.name.as_str()).map_err(|_| tree.inconsistent(what()))?;
    // SAFETY: `name` is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(Error::last(format!("making {}", what())));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    fill(tree, inode, &file).map_err(|e| match e {
        Fill::Image(e) => e,
        Fill::Io(e) => Error::system(format!("filling {}", what()), e),
    })?;
    if seals != 0 {
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seals)))
            .map_err(|e| Error::system(format!("sealing {}", what()), e))?;
    }
    Ok(file.into())
}

enum Fill {
    Image(Error),
    Io(std::io::Error),
}

impl From<std::io::Error> for Fill {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

fn fill(tree: &Tree, inode: &MemfdInodeEntry, file: &File) -> std::result::Result<(), Fill> {
    file.set_len(inode.size)?;
    let pages = PageReader::open_shmem(&tree.dir, inode.shmid.into()).map_err(|e| Fill::Image(e.into()))?;
    let mut buffer = Vec::new();
    for s in pages.segments() {
        let mut at = s.addr;
        // The last page may reach beyond the end of the file.
        let end = s.end().min(inode.size);
        while at < end {
            buffer.resize((end - at).min(CHUNK) as usize, 0);
            pages.read(at, &mut buffer).map_err(|e| Fill::Image(e.into()))?;
            file.write_all_at(&buffer, at)?;
            at += buffer.len() as u64;
        }
    }
    std::os::unix::fs::fchown(file, Some(inode.uid), Some(inode.gid))?;
    if let Some(mode) = inode.mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}
