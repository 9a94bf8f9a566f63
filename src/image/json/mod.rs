//! Images as JSON and back, with the names and the shape that `crit` gives them.
//!
//! ```text
//!  {"magic": "PIPES_DATA", "entries": [{"pipe_id": 7, "bytes": 3, "extra": "eHl6\n"}, …]}
//! ```
//!
//! `extra` is the payload that follows an entry, in base64. Nothing is left out: fields that `proto/`
//! does not declare are listed by their numbers in `unknown_fields`, and images of kinds without a
//! schema consist of such fields only. So an image that comes from JSON is the same to the byte,
//! unless it was not encoded the one usual way ([`Decoded::is_exact`] says so).
mod base64;
mod decode;
mod encode;
mod style;
mod value;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

pub use encode::{EncodeError, EncodeProblem, encode};
pub use value::Value;

use super::dir::{MAX_IMAGE, Records};
use super::error::{ImageError, Problem};
use super::kind::{COMMON_MAGIC, Head, ImageKind, SERVICE_MAGIC};
use super::proto;
use super::schema::{Described as _, Schema};

/// Key of the list of fields that no schema declares.
const UNKNOWN: &str = "unknown_fields";
/// Key of the payload.
const EXTRA: &str = "extra";

/// How an image is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Addresses in hexadecimal, flags by name. [`encode()`] reads that, too.
    pub pretty: bool,
    /// Payloads are left out; their lengths are shown.
    pub no_payload: bool,
}

/// An image as JSON.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Its kind.
    pub kind: ImageKind,
    /// The JSON.
    pub json: Value,
    /// Fields that no schema declares, as `Message field N`, each once.
    pub unknown: Vec<String>,
    /// There is no schema for this kind of image.
    pub no_schema: bool,
}

impl Decoded {
    /// Whether [`encode()`] makes exactly these bytes from it again.
    #[must_use]
    pub fn is_exact(&self, bytes: &[u8]) -> bool {
        serde_json::to_value(&self.json).is_ok_and(|json| encode(&json).is_ok_and(|again| again == bytes))
    }
}

/// What an image holds, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its kind.
    pub kind: ImageKind,
    /// Entries; of a pagemap without its head.
    pub entries: usize,
    /// Bytes of all payloads.
    pub payload: u64,
}

/// How the entries of a kind are encoded.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Messages of one type.
    Entries(&'static Schema),
    /// The same, each followed by as many bytes as its field `bytes` says.
    Payload(&'static Schema),
    /// First a message of one type, then messages of another one.
    Pagemap(&'static Schema, &'static Schema),
    /// Messages that `proto/` does not declare.
    NoSchema,
    /// Such messages, each followed by bytes whose number only they say.
    NoFraming,
    /// No messages.
    Raw,
}

fn layout(kind: ImageKind) -> Layout {
    use ImageKind as K;
    let schema = match kind {
        K::Inventory => proto::InventoryEntry::SCHEMA,
        K::Pstree => proto::PstreeEntry::SCHEMA,
        K::Core => proto::CoreEntry::SCHEMA,
        K::Ids => proto::TaskKobjIdsEntry::SCHEMA,
        K::Mm => proto::MmEntry::SCHEMA,
        K::Fdinfo => proto::FdinfoEntry::SCHEMA,
        K::Files => proto::FileEntry::SCHEMA,
        K::Fs => proto::FsEntry::SCHEMA,
        K::TtyInfo => proto::TtyInfoEntry::SCHEMA,
        K::TtyData => proto::TtyDataEntry::SCHEMA,
        K::RemapFpath => proto::RemapFilePathEntry::SCHEMA,
        K::MemfdInode => proto::MemfdInodeEntry::SCHEMA,
        K::FileLocks => proto::FileLockEntry::SCHEMA,
        K::Seccomp => proto::SeccompEntry::SCHEMA,
        K::Cgroup => proto::CgroupEntry::SCHEMA,
        K::Timens => proto::TimensEntry::SCHEMA,
        K::Utsns => proto::UtsnsEntry::SCHEMA,
        K::StatsDump | K::StatsRestore => proto::StatsEntry::SCHEMA,
        K::RegFiles => proto::RegFileEntry::SCHEMA,
        K::ExtFiles => proto::ExtFileEntry::SCHEMA,
        K::NsFiles => proto::NsFileEntry::SCHEMA,
        K::EventfdFile => proto::EventfdFileEntry::SCHEMA,
        K::EventpollFile => proto::EventpollFileEntry::SCHEMA,
        K::EventpollTfd => proto::EventpollTfdEntry::SCHEMA,
        K::Signalfd => proto::SignalfdEntry::SCHEMA,
        K::Timerfd => proto::TimerfdEntry::SCHEMA,
        K::Pipes => proto::PipeEntry::SCHEMA,
        K::Fifo => proto::FifoEntry::SCHEMA,
        K::TtyFiles => proto::TtyFileEntry::SCHEMA,
        K::Vmas => proto::VmaEntry::SCHEMA,
        K::Sigact => proto::SaEntry::SCHEMA,
        K::Itimers => proto::ItimerEntry::SCHEMA,
        K::PosixTimers => proto::PosixTimerEntry::SCHEMA,
        K::Creds => proto::CredsEntry::SCHEMA,
        K::Rlimit => proto::RlimitEntry::SCHEMA,
        K::Signal | K::Psignal => proto::SiginfoEntry::SCHEMA,
        K::PipesData | K::FifoData => return Layout::Payload(proto::PipeDataEntry::SCHEMA),
        K::Pagemap | K::ShmemPagemap => {
            return Layout::Pagemap(proto::PagemapHead::SCHEMA, proto::PagemapEntry::SCHEMA);
        }
        K::GhostFile | K::SkQueues | K::TcpStream | K::IpcnsShm | K::IpcnsMsg | K::IpcnsSem | K::BpfmapData => {
            return Layout::NoFraming;
        }
        K::Pages => return Layout::Raw,
        _ => return Layout::NoSchema,
    };
    Layout::Entries(schema)
}

/// The kind of an image by its first words, and their length. Kinds that share a magic (`pagemap-shmem-N.img` and
/// `pagemap-N.img`) look alike inside, too.
fn head_of(bytes: &[u8]) -> Result<(ImageKind, usize), Problem> {
    let word = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        four.ok_or(Problem::Truncated { offset: at as u64, need: 4, have: bytes.len().saturating_sub(at) as u64 })
    };
    let first = word(0)?;
    let (found, len, head) = match first {
        COMMON_MAGIC => (word(4)?, 8, Some(Head::Common)),
        SERVICE_MAGIC => (word(4)?, 8, Some(Head::Service)),
        // The inventory; and every image of trees of version 1.
        _ => (first, 4, None),
    };
    let fits = |kind: &&ImageKind| match (kind.head(), head) {
        (Head::Raw, _) | (Head::Service, None) => false,
        (own, Some(head)) => own == head,
        (Head::Own | Head::Common, None) => true,
    };
    let kind = ImageKind::ALL.iter().filter(fits).find(|kind| kind.magic() == found);
    kind.map(|kind| (*kind, len)).ok_or(Problem::UnknownMagic { found })
}

/// Reads a file whole: `None` for standard input.
///
/// # Errors
/// It cannot be read, is longer than any image of entries, or is one without entries by its name.
pub fn read(path: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let Some(path) = path else {
        let mut bytes = Vec::new();
        let error = |e| ImageError::io("standard input", e);
        std::io::stdin().lock().take(MAX_IMAGE + 1).read_to_end(&mut bytes).map_err(error)?;
        return limited(Path::new("standard input"), bytes);
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((kind, _)) = ImageKind::from_file_name(&name).filter(|(kind, _)| kind.head() == Head::Raw) {
        return Err(ImageError::new(path, Problem::NoEntries { kind: kind.name() }));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_IMAGE + 1).read_to_end(&mut bytes));
    read.map_err(|e| ImageError::io(path, e))?;
    limited(path, bytes)
}

fn limited(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    if bytes.len() as u64 > MAX_IMAGE {
        return Err(ImageError::new(path, Problem::TooLong { len: bytes.len() as u64, max: MAX_IMAGE }));
    }
    Ok(bytes)
}

/// The JSON of an image, given its bytes; `path` is for messages.
///
/// # Errors
/// It is not a valid image, or of a kind whose entries cannot be told apart without a schema.
pub fn decode(path: &Path, bytes: &[u8], options: Options) -> Result<Decoded, ImageError> {
    decode::image(bytes, options).map_err(|problem| ImageError::new(path, problem))
}

/// Counts what is in an image, given its bytes; `path` is for messages.
///
/// # Errors
/// As [`decode()`].
pub fn info(path: &Path, bytes: &[u8]) -> Result<Info, ImageError> {
    let count = || {
        let (kind, at) = head_of(bytes)?;
        let mut records = Records { bytes, at, index: 0 };
        let mut info = Info { kind, entries: 0, payload: 0 };
        match layout(kind) {
            Layout::Raw | Layout::NoFraming => return Err(Problem::NoSchema { kind: kind.name() }),
            Layout::Payload(_) => {
                while let Some(entry) = records.next_entry::<proto::PipeDataEntry>()? {
                    info.entries += 1;
                    info.payload += entry.payload().len() as u64;
                }
                return Ok(info);
            }
            Layout::Pagemap(..) => {
                records.next_record()?;
            }
            Layout::Entries(_) | Layout::NoSchema => {}
        }
        while records.next_record()?.is_some() {
            info.entries += 1;
        }
        Ok(info)
    };
    count().map_err(|problem| ImageError::new(path, problem))
}

#[cfg(test)]
mod tests;
