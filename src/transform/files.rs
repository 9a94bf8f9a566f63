//! Open files: status flags of every kind of file, and the executable's entries.
use super::error::TransformError;
use super::wire::Message;
use crate::image::{Entry, proto};
use crate::portable::pair::Member;
use isamorph_arch::{Isa, open_flags};
use proto::FdType;
use std::os::unix::fs::MetadataExt as _;

/// Converts the status flags of every open file. An entry that holds none of the differing bits keeps its bytes.
///
/// # Errors
/// An entry that must change has a field that would be lost, or is damaged.
pub fn convert_flags(files: &mut [Entry<proto::FileEntry>], from: Isa, to: Isa) -> Result<(), TransformError> {
    for file in files {
        let mut trial = (**file).clone();
        each_flags(&mut trial, |flags| open_flags::convert(flags, from, to))
            .map_err(|source| TransformError::Wire { id: file.id, source })?;
        if trial != **file {
            *file.edit().map_err(TransformError::unknown("files.img"))? = trial;
        }
    }
    Ok(())
}

/// A message that is carried as bytes, in the entry of its file.
type Opaque = fn(&mut proto::FileEntry) -> &mut Option<Vec<u8>>;

/// Field numbers of the flags in messages that are carried as bytes: `isk`, `psk`, `nlsk`, `ify`, `ffy`, `usk`.
const OPAQUE_FLAGS: [(Opaque, &[u32]); 6] = [
    (|file| &mut file.isk, &[9]),
    (|file| &mut file.psk, &[4]),
    (|file| &mut file.nlsk, &[6]),
    (|file| &mut file.ify, &[2]),
    // f_flags, and the flags that event descriptors get
    (|file| &mut file.ffy, &[2, 5]),
    (|file| &mut file.usk, &[5]),
];

fn each_flags(file: &mut proto::FileEntry, convert: impl Fn(u32) -> u32) -> Result<(), super::wire::WireError> {
    let known = [
        file.reg.as_mut().map(|file| &mut file.flags),
        file.nsf.as_mut().map(|file| &mut file.flags),
        file.efd.as_mut().map(|file| &mut file.flags),
        file.epfd.as_mut().map(|file| &mut file.flags),
        file.sgfd.as_mut().map(|file| &mut file.flags),
        file.tfd.as_mut().map(|file| &mut file.flags),
        file.pipe.as_mut().map(|file| &mut file.flags),
        file.tty.as_mut().map(|file| &mut file.flags),
        file.memfd.as_mut().map(|file| &mut file.flags),
    ];
    for flags in known.into_iter().flatten() {
        *flags = convert(*flags);
    }
    for (field, numbers) in OPAQUE_FLAGS {
        let Some(bytes) = field(file) else { continue };
        let copy = std::mem::take(bytes);
        let mut message = Message::parse(&copy)?;
        for number in numbers {
            message.map_varint(*number, |flags| convert(flags as u32).into());
        }
        *bytes = message.encode();
    }
    Ok(())
}

/// The regular file with an ID.
#[must_use]
pub fn regular(files: &[Entry<proto::FileEntry>], id: u32) -> Option<&proto::RegFileEntry> {
    files.iter().find(|file| file.id == id && file.r#type() == FdType::Reg).and_then(|file| file.reg.as_ref())
}

/// Checks that a file found on this machine is the one that the images mean.
///
/// # Errors
/// Its size or build ID is another.
pub fn check_executable(entry: &proto::RegFileEntry, member: &Member) -> Result<(), TransformError> {
    let other = |why| TransformError::OtherExecutable { path: member.path.clone(), why };
    let size = member.executable.bytes().len() as u64;
    if let Some(recorded) = entry.size
        && recorded != size
    {
        return Err(other(format!("it has {size} bytes, the images say {recorded}")));
    }
    if let Some(build_id) = &member.executable.build_id
        && !entry.build_id.is_empty()
        && words(build_id) != entry.build_id
    {
        return Err(other("its build ID is another".into()));
    }
    Ok(())
}

/// Puts the peer in the place of the executable, in every entry that names it.
///
/// # Errors
/// The peer cannot be looked at, or an entry has a field that would be lost.
pub fn replace_executable(
    files: &mut [Entry<proto::FileEntry>],
    old: &str,
    new: &str,
    peer: &Member,
) -> Result<(), TransformError> {
    let mode = std::fs::metadata(&peer.path).map_err(TransformError::io("looking at", &peer.path))?.mode();
    for file in files.iter_mut().filter(|file| file.reg.as_ref().is_some_and(|reg| reg.name == old)) {
        let file = file.edit().map_err(TransformError::unknown("files.img"))?;
        let Some(reg) = &mut file.reg else { continue };
        new.clone_into(&mut reg.name);
        reg.size = reg.size.map(|_| peer.executable.bytes().len() as u64);
        reg.mode = reg.mode.map(|_| mode);
        reg.build_id = match &peer.executable.build_id {
            Some(build_id) if !reg.build_id.is_empty() => words(build_id),
            _ => Vec::new(),
        };
        (reg.checksum, reg.checksum_config, reg.checksum_parameter) = (None, None, None);
    }
    Ok(())
}

/// A build ID as images store it: four bytes per word, in memory order, padded with zeros.
fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    };
    bytes.chunks(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::proto::{FileEntry, FownEntry, PipeEntry, RegFileEntry};

    fn regular_file(id: u32, flags: u32, name: &str) -> FileEntry {
        let reg = RegFileEntry { id, flags, name: name.into(), ..RegFileEntry::default() };
        FileEntry { id, r#type: FdType::Reg.into(), reg: Some(reg), ..FileEntry::default() }
    }

    #[test]
    fn flags_of_all_kinds_are_converted_and_back() {
        let pipe = PipeEntry { id: 2, pipe_id: 9, flags: 0o40_001, fown: FownEntry::default() };
        // An inet socket: field 1 (id) 3, field 9 (flags) O_RDWR | O_LARGEFILE, field 99.
        let socket = vec![0x08, 3, 0x48, 0x82, 0x80, 0x02, 0x98, 0x06, 1];
        let files = vec![
            regular_file(1, 0o300_000, "/tmp"),
            FileEntry { id: 2, r#type: FdType::Pipe.into(), pipe: Some(pipe), ..FileEntry::default() },
            FileEntry { id: 3, r#type: FdType::Inetsk.into(), isk: Some(socket.clone()), ..FileEntry::default() },
        ];
        let mut entries: Vec<_> = files.iter().cloned().map(Entry::new).collect();
        convert_flags(&mut entries, Isa::X86_64, Isa::Aarch64).unwrap();
        assert_eq!(entries[0].reg.as_ref().unwrap().flags, 0o440_000);
        assert_eq!(entries[1].pipe.as_ref().unwrap().flags, 0o200_001);
        assert_eq!(entries[2].isk.as_ref().unwrap()[2..6], [0x48, 0x82, 0x80, 0x08]);
        convert_flags(&mut entries, Isa::Aarch64, Isa::X86_64).unwrap();
        let back: Vec<_> = entries.into_iter().map(Entry::into_inner).collect();
        assert_eq!(back, files);
    }

    #[test]
    fn build_ids_are_words_in_memory_order() {
        assert_eq!(words(&[1, 2, 3, 4, 5]), [0x0403_0201, 5]);
    }
}
