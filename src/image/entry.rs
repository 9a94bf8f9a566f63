//! Typed entries that remember their bytes.
use std::ops::Deref;

use prost::Message;

use super::kind::ImageKind;
use super::proto;
use super::schema::{self, Described, SchemaError, UnknownField};

/// A message that image files of one kind consist of.
pub trait ImageEntry: Message + Default + Described {
    /// The kind of file.
    const KIND: ImageKind;

    /// Bytes that follow the entry in the file, outside of protobuf.
    fn payload_len(&self) -> u64 {
        0
    }
}

macro_rules! entries {
    ($($message:ident $kind:ident;)*) => {
        $(impl ImageEntry for proto::$message { const KIND: ImageKind = ImageKind::$kind; })*
    };
}

entries! {
    InventoryEntry Inventory;
    PstreeEntry Pstree;
    CoreEntry Core;
    TaskKobjIdsEntry Ids;
    MmEntry Mm;
    PagemapEntry Pagemap;
    FdinfoEntry Fdinfo;
    FileEntry Files;
    FsEntry Fs;
    TtyInfoEntry TtyInfo;
    TtyDataEntry TtyData;
    RemapFilePathEntry RemapFpath;
    MemfdInodeEntry MemfdInode;
    FileLockEntry FileLocks;
    SeccompEntry Seccomp;
    CgroupEntry Cgroup;
    TimensEntry Timens;
    UtsnsEntry Utsns;
    StatsEntry StatsDump;
}

impl ImageEntry for proto::PipeDataEntry {
    const KIND: ImageKind = ImageKind::PipesData;

    fn payload_len(&self) -> u64 {
        self.bytes.into()
    }
}

/// One entry of an image file.
///
/// An entry that was read and not [edited](Self::edit) is written as the very bytes it was read
/// from, unknown fields included.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    value: T,
    raw: Option<Vec<u8>>,
    unknown: Option<UnknownField>,
    payload: Vec<u8>,
}

impl<T: ImageEntry> Entry<T> {
    /// A new entry.
    pub fn new(value: T) -> Self {
        Self { value, raw: None, unknown: None, payload: Vec::new() }
    }

    /// A new entry, and the bytes that follow it in the file ([`ImageEntry::payload_len`] of them).
    pub fn with_payload(value: T, payload: Vec<u8>) -> Self {
        Self { payload, ..Self::new(value) }
    }

    /// Decodes the bytes of an entry, and checks what prost does not.
    ///
    /// # Errors
    /// Malformed protobuf, a missing required field, an unknown value of an enumeration.
    pub fn decode(raw: Vec<u8>) -> Result<Self, SchemaError> {
        let unknown = schema::check(&raw, T::SCHEMA)?;
        let value =
            T::decode(raw.as_slice()).map_err(|_| SchemaError::Malformed { message: T::SCHEMA.name, offset: 0 })?;
        Ok(Self { value, raw: Some(raw), unknown, payload: Vec::new() })
    }

    /// The entry, to be changed.
    ///
    /// # Errors
    /// It carries a field that this version does not know and that encoding it anew would lose.
    pub fn edit(&mut self) -> Result<&mut T, UnknownField> {
        if let Some(unknown) = self.unknown {
            return Err(unknown);
        }
        self.raw = None;
        Ok(&mut self.value)
    }

    /// The first field that this version does not know, if there is any. Who acts on an entry
    /// (restores it) must refuse these, too.
    pub fn unknown(&self) -> Option<UnknownField> {
        self.unknown
    }

    /// The bytes that follow the entry in the file.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The entry itself.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The entry's bytes, without length and payload.
    pub fn encode(&self) -> Vec<u8> {
        self.raw.clone().unwrap_or_else(|| self.value.encode_to_vec())
    }

    pub(super) fn set_payload(&mut self, payload: Vec<u8>) {
        self.payload = payload;
    }
}

impl<T> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ImageEntry> From<T> for Entry<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_survives_and_forbids_editing() {
        let mut bytes = proto::FsEntry { cwd_id: 1, root_id: 2, umask: Some(0o22) }.encode_to_vec();
        bytes.extend([0xf8, 0x06, 1]);
        let mut e = Entry::<proto::FsEntry>::decode(bytes.clone()).unwrap();
        assert_eq!(e.root_id, 2);
        assert_eq!(e.encode(), bytes);
        assert_eq!(e.edit().unwrap_err(), UnknownField { message: "FsEntry", number: 111 });
        assert_eq!(e.encode(), bytes);
    }

    #[test]
    fn bytes_in_another_order_are_kept_until_edited() {
        let bytes = vec![0x10, 2, 0x08, 1]; // root_id before cwd_id
        let mut e = Entry::<proto::FsEntry>::decode(bytes.clone()).unwrap();
        assert_eq!(e.encode(), bytes);
        e.edit().unwrap().cwd_id = 3;
        assert_eq!(e.encode(), [0x08, 3, 0x10, 2]);
    }
}
