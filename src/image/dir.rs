//! Image trees: directories of image files.
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::entry::{Entry, ImageEntry};
use super::error::{ImageError, Problem};
use super::kind::{COMMON_MAGIC, Head, ImageKind, SERVICE_MAGIC};
use super::proto;

/// Greatest length of an image of entries that is read: one of 2^20 VMAs is about 70 MB.
pub(super) const MAX_IMAGE: u64 = 1 << 30;

/// Name of the link from an incremental tree to the one before it.
pub const PARENT_LINK: &str = "parent";

/// An image tree.
///
/// Files are opened relative to the directory's descriptor, so that a tree stays the same one when
/// its path is renamed meanwhile. Methods that take an ID want `None` for kinds without one
/// (`files.img`); a wrong choice is an error, not a panic.
#[derive(Debug)]
pub struct ImageDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl ImageDir {
    /// Opens an existing tree.
    ///
    /// # Errors
    /// The path is no directory that can be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref();
        let fd = open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| ImageError::io(path, e.into()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a tree, making the directory (not its parents) if it is not there.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the directory cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref();
        match std::fs::create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(ImageError::io(path, e)),
            _ => Self::open(path),
        }
    }

    /// The path it was opened by; for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree that the `parent` link leads to, `None` if there is no such link.
    ///
    /// # Errors
    /// The link is there and leads nowhere.
    pub fn open_parent(&self) -> Result<Option<Self>, ImageError> {
        let link = self.path.join(PARENT_LINK);
        let target = match readlinkat(&self.fd, PARENT_LINK) {
            Ok(target) => PathBuf::from(target),
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(ImageError::io(link, e.into())),
        };
        let path = self.path.join(&target);
        let fd = openat(&self.fd, PARENT_LINK, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| ImageError::new(link, Problem::Parent { target: path.clone(), source: e.into() }))?;
        Ok(Some(Self { fd, path }))
    }

    /// Makes the `parent` link. A relative target is relative to this tree.
    ///
    /// # Errors
    /// There is one already, or the directory cannot be written.
    pub fn link_parent(&self, target: impl AsRef<Path>) -> Result<(), ImageError> {
        nix::unistd::symlinkat(target.as_ref(), &self.fd, PARENT_LINK)
            .map_err(|e| ImageError::io(self.path.join(PARENT_LINK), e.into()))
    }

    /// Names of all files in it, sorted; `.` and `..` left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, ImageError> {
        let err = |e: Errno| ImageError::io(&self.path, e.into());
        let mut names = Vec::new();
        for item in Dir::openat(&self.fd, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(err)? {
            let name = item.map_err(err)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The images in it that isamorph knows the kind of.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn images(&self) -> Result<Vec<(ImageKind, Option<u64>)>, ImageError> {
        Ok(self.list()?.iter().filter_map(|n| ImageKind::from_file_name(n)).collect())
    }

    /// Whether there is such an image.
    #[must_use]
    pub fn has(&self, kind: ImageKind, id: impl Into<Option<u64>>) -> bool {
        self.open_file(kind, id).is_ok()
    }

    /// Reads all entries of an image.
    ///
    /// # Errors
    /// There is none, or it is not a valid one.
    pub fn read<T: ImageEntry>(&self, id: impl Into<Option<u64>>) -> Result<Vec<Entry<T>>, ImageError> {
        let (path, bytes) = self.read_bytes(T::KIND, id)?;
        let at = check_head(T::KIND, &bytes).map_err(|p| ImageError::new(&path, p))?;
        let mut records = Records { bytes: &bytes, at, index: 0 };
        let mut entries = Vec::new();
        while let Some(entry) = records.next_entry::<T>().map_err(|p| ImageError::new(&path, p))? {
            entries.push(entry);
        }
        Ok(entries)
    }

    /// As [`read`](Self::read), but an image that is not there is one without entries.
    ///
    /// # Errors
    /// It is there and not a valid one.
    pub fn read_or_empty<T: ImageEntry>(&self, id: impl Into<Option<u64>>) -> Result<Vec<Entry<T>>, ImageError> {
        match self.read(id) {
            Err(ImageError { problem: Problem::Missing, .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Reads an image of exactly one entry.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if there is another number of entries.
    pub fn read_one<T: ImageEntry>(&self, id: impl Into<Option<u64>>) -> Result<Entry<T>, ImageError> {
        let id = id.into();
        let mut entries = self.read(id)?;
        match (entries.pop(), entries.len()) {
            (Some(entry), 0) => Ok(entry),
            (last, others) => {
                let found = others + usize::from(last.is_some());
                Err(ImageError::new(self.file_path(T::KIND, id)?, Problem::NotOne { found }))
            }
        }
    }

    /// Writes an image, replacing an older one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write<T: ImageEntry>(&self, id: impl Into<Option<u64>>, entries: &[Entry<T>]) -> Result<(), ImageError> {
        let mut bytes = head(T::KIND);
        for entry in entries {
            push_record(&mut bytes, &entry.encode());
            bytes.extend_from_slice(entry.payload());
        }
        self.write_bytes(T::KIND, id, &bytes)
    }

    /// Writes an image of one new entry, replacing an older one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_one<T: ImageEntry>(&self, id: impl Into<Option<u64>>, value: T) -> Result<(), ImageError> {
        self.write(id, &[Entry::new(value)])
    }

    /// Opens an image to be read.
    ///
    /// # Errors
    /// There is none.
    pub fn open_file(&self, kind: ImageKind, id: impl Into<Option<u64>>) -> Result<File, ImageError> {
        let path = self.file_path(kind, id)?;
        self.openat(&path, OFlag::O_RDONLY)
    }

    /// Makes an image to be written, emptying an older one. Images hold memory of processes: only
    /// their owner may read them.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create_file(&self, kind: ImageKind, id: impl Into<Option<u64>>) -> Result<File, ImageError> {
        let path = self.file_path(kind, id)?;
        self.openat(&path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC)
    }

    /// The path of an image, below the path that this tree was opened by.
    ///
    /// # Errors
    /// The kind has IDs and there is none, or the other way round.
    pub fn file_path(&self, kind: ImageKind, id: impl Into<Option<u64>>) -> Result<PathBuf, ImageError> {
        let name =
            kind.file_name(id.into()).ok_or_else(|| ImageError::new(self.path.join(kind.name()), Problem::Name))?;
        Ok(self.path.join(name))
    }

    /// The process that the tree is about: the first one of `pstree.img`.
    ///
    /// # Errors
    /// There is no process in it, or the image cannot be read.
    pub fn root_process(&self) -> Result<Entry<proto::PstreeEntry>, ImageError> {
        let mut all = self.read::<proto::PstreeEntry>(None)?;
        if all.is_empty() {
            return Err(ImageError::new(self.path.join("pstree.img"), Problem::NotOne { found: 0 }));
        }
        Ok(all.swap_remove(0))
    }

    fn openat(&self, path: &Path, flags: OFlag) -> Result<File, ImageError> {
        let name = path.file_name().unwrap_or_default();
        // O_NONBLOCK: a FIFO in the place of an image must not hang us.
        openat(&self.fd, name, flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::from_bits_truncate(0o600))
            .map(File::from)
            .map_err(|e| ImageError::io(path, e.into()))
    }

    pub(super) fn read_bytes(
        &self,
        kind: ImageKind,
        id: impl Into<Option<u64>>,
    ) -> Result<(PathBuf, Vec<u8>), ImageError> {
        let path = self.file_path(kind, id)?;
        let mut bytes = Vec::new();
        let file = self.openat(&path, OFlag::O_RDONLY)?;
        file.take(MAX_IMAGE + 1).read_to_end(&mut bytes).map_err(|e| ImageError::io(&path, e))?;
        if bytes.len() as u64 > MAX_IMAGE {
            return Err(ImageError::new(path, Problem::TooLong { len: bytes.len() as u64, max: MAX_IMAGE }));
        }
        Ok((path, bytes))
    }

    pub(super) fn write_bytes(
        &self,
        kind: ImageKind,
        id: impl Into<Option<u64>>,
        bytes: &[u8],
    ) -> Result<(), ImageError> {
        let path = self.file_path(kind, id)?;
        let mut file = self.openat(&path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?;
        file.write_all(bytes).map_err(|e| ImageError::io(path, e))
    }
}

impl AsFd for ImageDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The first bytes of an image of this kind.
pub(super) fn head(kind: ImageKind) -> Vec<u8> {
    let mut bytes = Vec::new();
    match kind.head() {
        Head::Raw => return bytes,
        Head::Own => {}
        Head::Common => bytes.extend(COMMON_MAGIC.to_le_bytes()),
        Head::Service => bytes.extend(SERVICE_MAGIC.to_le_bytes()),
    }
    bytes.extend(kind.magic().to_le_bytes());
    bytes
}

/// The length of the head of an image of this kind; trees of version 1 have no common magic.
pub(super) fn check_head(kind: ImageKind, bytes: &[u8]) -> Result<usize, Problem> {
    let word = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        four.ok_or(Problem::Truncated { offset: at as u64, need: 4, have: bytes.len().saturating_sub(at) as u64 })
    };
    let first = word(0)?;
    let (found, len) = match kind.head() {
        Head::Raw => return Ok(0),
        Head::Common if first == COMMON_MAGIC => (word(4)?, 8),
        Head::Service if first == SERVICE_MAGIC => (word(4)?, 8),
        _ => (first, 4),
    };
    if found != kind.magic() {
        return Err(Problem::Magic { kind: kind.name(), expected: kind.magic(), found });
    }
    Ok(len)
}

/// Appends `u32 size, bytes`.
pub(super) fn push_record(out: &mut Vec<u8>, entry: &[u8]) {
    // A message of prost is at most 2 GiB.
    out.extend((entry.len() as u32).to_le_bytes());
    out.extend_from_slice(entry);
}

/// The records of an image file.
#[derive(Debug)]
pub(super) struct Records<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub index: usize,
}

impl<'a> Records<'a> {
    /// The next entry and its payload; `None` at the end of the file.
    pub fn next_entry<T: ImageEntry>(&mut self) -> Result<Option<Entry<T>>, Problem> {
        let Some(raw) = self.next_record()? else { return Ok(None) };
        let mut entry: Entry<T> =
            Entry::decode(raw.to_vec()).map_err(|source| Problem::Entry { index: self.index, source })?;
        let payload = self.take(entry.payload_len())?;
        entry.set_payload(payload.to_vec());
        self.index += 1;
        Ok(Some(entry))
    }

    /// The bytes of the next entry.
    pub fn next_record(&mut self) -> Result<Option<&'a [u8]>, Problem> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let len = self.take(4)?;
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
        self.take(len.into()).map(Some)
    }

    /// The next `need` bytes.
    pub fn take(&mut self, need: u64) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(need).ok().and_then(|n| rest.get(..n)).ok_or(Problem::Truncated {
            offset: self.at as u64,
            need,
            have: rest.len() as u64,
        })?;
        self.at += taken.len();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::schema::SchemaError;

    fn tree() -> (tempfile::TempDir, ImageDir) {
        let t = tempfile::tempdir().unwrap();
        let d = ImageDir::open(t.path()).unwrap();
        (t, d)
    }

    fn process(pid: u32) -> proto::PstreeEntry {
        proto::PstreeEntry { pid, ppid: 0, pgid: pid, sid: pid, threads: vec![pid, pid + 1] }
    }

    #[test]
    fn files_round_trip_to_the_byte() {
        let (t, d) = tree();
        let entries: Vec<Entry<_>> = (1..100).map(|p| process(p * 7).into()).collect();
        d.write(None, &entries).unwrap();
        let first = std::fs::read(t.path().join("pstree.img")).unwrap();
        assert_eq!(first[..8], [0x19, 0x43, 0x56, 0x54, 0x30, 0x30, 0x27, 0x50]);
        let again = d.read::<proto::PstreeEntry>(None).unwrap();
        assert_eq!(again.iter().map(|e| e.pid).collect::<Vec<_>>(), (1..100).map(|p| p * 7).collect::<Vec<_>>());
        d.write(None, &again).unwrap();
        assert_eq!(std::fs::read(t.path().join("pstree.img")).unwrap(), first);
    }

    #[test]
    fn the_inventory_has_only_its_own_magic() {
        let (t, d) = tree();
        d.write_one(None, proto::InventoryEntry { img_version: 2, ..Default::default() }).unwrap();
        assert_eq!(std::fs::read(t.path().join("inventory.img")).unwrap()[..4], 0x5831_3116u32.to_le_bytes());
        assert_eq!(d.read_one::<proto::InventoryEntry>(None).unwrap().img_version, 2);
    }

    #[test]
    fn payloads_follow_their_entries() {
        let (_t, d) = tree();
        let a = proto::PipeDataEntry { pipe_id: 1, bytes: 3, size: None };
        let b = proto::PipeDataEntry { pipe_id: 2, bytes: 0, size: Some(65536) };
        d.write(None, &[Entry::with_payload(a, b"abc".to_vec()), b.into()]).unwrap();
        let read = d.read::<proto::PipeDataEntry>(None).unwrap();
        assert_eq!((read[0].payload(), read[1].payload(), read[1].pipe_id), (&b"abc"[..], &b""[..], 2));
    }

    #[test]
    fn every_truncation_is_named_or_shortens_the_list_at_an_entry() {
        let (t, d) = tree();
        d.write(None, &[process(1).into(), process(2).into(), process(3).into()]).unwrap();
        let path = t.path().join("pstree.img");
        let whole = std::fs::read(&path).unwrap();
        let mut ok = 0;
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            match d.read::<proto::PstreeEntry>(None) {
                Ok(_) => ok += 1,
                Err(e) => assert!(matches!(e.problem, Problem::Truncated { .. }), "{len}: {e}"),
            }
        }
        // After the head, after the first and after the second entry.
        assert_eq!(ok, 3);
    }

    #[test]
    fn corruption_is_an_error_or_another_value_but_never_a_panic() {
        let (t, d) = tree();
        let e = process(0x1234_5678);
        d.write(None, &[e.clone().into()]).unwrap();
        let path = t.path().join("pstree.img");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, bytes).unwrap();
                if let Ok(read) = d.read::<proto::PstreeEntry>(None) {
                    let same = read.len() == 1 && *read[0] == e && read[0].unknown().is_none();
                    assert!(!same, "flipping bit {bit} of byte {at} changed nothing");
                }
            }
        }
    }

    #[test]
    fn errors_say_which_file_and_what() {
        let (t, d) = tree();
        let missing = d.read::<proto::MmEntry>(77).unwrap_err();
        assert_eq!(missing.to_string(), format!("{}/mm-77.img: no such image", t.path().display()));
        std::fs::write(t.path().join("mm-77.img"), head(ImageKind::Pstree)).unwrap();
        let magic = d.read::<proto::MmEntry>(77).unwrap_err();
        assert!(magic.to_string().ends_with("magic 0x50273030 where a MM image has 0x57492820"), "{magic}");
        let mut bytes = head(ImageKind::Fs);
        push_record(&mut bytes, &[0x08, 1]);
        std::fs::write(t.path().join("fs-1.img"), bytes).unwrap();
        let required = d.read_one::<proto::FsEntry>(1).unwrap_err();
        assert!(matches!(
            required.problem,
            Problem::Entry { index: 0, source: SchemaError::Required { message: "FsEntry", field: "root_id" } }
        ));
    }

    #[test]
    fn a_dangling_parent_link_names_its_target() {
        let (_t, d) = tree();
        assert!(d.open_parent().unwrap().is_none());
        d.link_parent("../gone").unwrap();
        assert!(d.open_parent().unwrap_err().to_string().contains("../gone cannot be opened"));
    }
}
