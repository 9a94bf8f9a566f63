//! Checks of protobuf bytes that prost leaves out: required fields, unknown fields.
//!
//! Source: the protocol buffers encoding specification, and `proto/`.

use super::proto;

/// A message of `proto/`, as tables.
#[derive(Debug)]
pub struct Schema {
    /// Name of the message.
    pub name: &'static str,
    /// Its fields, in order of declaration.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Every valid message has it.
    pub required: bool,
    /// There may be several.
    pub repeated: bool,
}

/// Types of fields.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the protocol buffers language")]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Sint32,
    Sint64,
    Uint32,
    Uint64,
    Fixed32,
    Fixed64,
    String,
    Bytes,
    /// Numbers and names.
    Enum(&'static [(i32, &'static str)]),
    Message(&'static Schema),
}

/// A message type that has a [`Schema`].
pub trait Described {
    /// Its table.
    const SCHEMA: &'static Schema;
}

/// Bytes that are not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Not protobuf, or another type on the wire than declared.
    #[error("{message}: malformed at byte {offset}")]
    Malformed {
        /// Message it happened in.
        message: &'static str,
        /// Offset in that message.
        offset: usize,
    },
    /// A required field is not there.
    #[error("{message}: field `{field}` is missing")]
    Required {
        /// Message that lacks it.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// An enumeration has a value that no declared name has.
    #[error("{message}: field `{field}` has the unknown value {value}")]
    EnumValue {
        /// Message it is in.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The value.
        value: i64,
    },
    /// A field that there may be only one of is there twice.
    #[error("{message}: field `{field}` is there twice")]
    Twice {
        /// Message it is in.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field that `proto/` does not declare; encoding the entry anew would lose it.
    #[error(transparent)]
    Unknown(#[from] UnknownField),
}

/// A field that `proto/` does not declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} carries field {number}, which this version does not know and would lose")]
pub struct UnknownField {
    /// Message that carries it.
    pub message: &'static str,
    /// Its number.
    pub number: u32,
}

/// Messages nest at most this deep in any real image; prost stops at 100 itself.
pub(super) const MAX_DEPTH: usize = 64;

/// Walks the encoded message: `Ok(None)` if it is valid and fully known, `Ok(Some(_))` if it is
/// valid and carries an unknown field (the first one).
///
/// # Errors
/// What is malformed or missing.
pub fn check(bytes: &[u8], schema: &'static Schema) -> Result<Option<UnknownField>, SchemaError> {
    let mut unknown = None;
    walk(bytes, schema, &mut unknown, 0)?;
    Ok(unknown)
}

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// Splits an encoded message into its fields.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of an encoded message.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next field.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next field and its number; `None` at the end, `Some(None)` if malformed.
    #[allow(clippy::option_option, reason = "end and error are different things, and the caller names the message")]
    pub fn next_field(&mut self) -> Option<Option<(u32, Wire<'a>)>> {
        (self.at < self.bytes.len()).then(|| self.field())
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| *n != 0 && *n < 1 << 29)?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((number, wire))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

fn walk(
    bytes: &[u8],
    schema: &'static Schema,
    unknown: &mut Option<UnknownField>,
    depth: usize,
) -> Result<(), SchemaError> {
    let malformed = |offset| SchemaError::Malformed { message: schema.name, offset };
    if depth > MAX_DEPTH {
        return Err(malformed(0));
    }
    // No message has more than 64 fields (asserted in the tests).
    let mut seen = 0u64;
    let mut reader = Reader::new(bytes);
    loop {
        let offset = reader.offset();
        let Some(field) = reader.next_field() else { break };
        let (number, wire) = field.ok_or_else(|| malformed(offset))?;
        let Some(index) = schema.fields.iter().position(|f| f.number == number) else {
            unknown.get_or_insert(UnknownField { message: schema.name, number });
            continue;
        };
        seen |= 1 << index;
        let field = &schema.fields[index];
        match (field.kind, wire) {
            (Kind::Message(inner), Wire::Bytes(b)) => walk(b, inner, unknown, depth + 1)?,
            (Kind::Enum(values), Wire::Varint(v)) => {
                // Negative values are sign extended to 64 bits.
                if !values.iter().any(|(n, _)| i64::from(*n) == v as i64) {
                    return Err(SchemaError::EnumValue { message: schema.name, field: field.name, value: v as i64 });
                }
            }
            (Kind::String, Wire::Bytes(b)) if std::str::from_utf8(b).is_err() => return Err(malformed(offset)),
            (Kind::String | Kind::Bytes, Wire::Bytes(_))
            | (Kind::Fixed32, Wire::Fixed32(_))
            | (Kind::Fixed64, Wire::Fixed64(_)) => {}
            (k, Wire::Varint(v)) if k.holds(v) => {}
            // A packed list.
            (k, Wire::Bytes(b)) if field.repeated && k.is_varint() => {
                let mut items = Reader::new(b);
                while items.offset() < b.len() {
                    items.varint().filter(|v| k.holds(*v)).ok_or_else(|| malformed(offset))?;
                }
            }
            _ => return Err(malformed(offset)),
        }
    }
    for (index, field) in schema.fields.iter().enumerate() {
        if field.required && seen & (1 << index) == 0 {
            return Err(SchemaError::Required { message: schema.name, field: field.name });
        }
    }
    Ok(())
}

impl Kind {
    /// Whether a varint is a value of this type; decoders would silently cut off what is too much.
    pub(super) fn holds(self, v: u64) -> bool {
        match self {
            Self::Bool => v <= 1,
            Self::Uint32 | Self::Sint32 => u32::try_from(v).is_ok(),
            Self::Int32 => i32::try_from(v as i64).is_ok(),
            _ => self.is_varint(),
        }
    }

    pub(super) const fn is_varint(self) -> bool {
        matches!(
            self,
            Self::Bool | Self::Int32 | Self::Int64 | Self::Sint32 | Self::Sint64 | Self::Uint32 | Self::Uint64
        )
    }
}

#[rustfmt::skip]
#[allow(clippy::all, reason = "generated by build.rs from proto/")]
mod generated {
    use super::{Described, Field, Kind, Schema, proto};
    include!(concat!(env!("OUT_DIR"), "/schema.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn seen_mask_is_wide_enough() {
        for s in [
            proto::CoreEntry::SCHEMA,
            proto::FileEntry::SCHEMA,
            proto::MmEntry::SCHEMA,
            proto::UserX86RegsEntry::SCHEMA,
        ] {
            assert!(s.fields.len() <= 64, "{}", s.name);
        }
    }

    #[test]
    fn an_empty_pstree_entry_lacks_its_pid() {
        let e = check(&[], proto::PstreeEntry::SCHEMA);
        assert_eq!(e, Err(SchemaError::Required { message: "PstreeEntry", field: "pid" }));
    }

    #[test]
    fn unknown_fields_are_reported_in_nested_messages_too() {
        let inner = [0xf8, 0x06, 1]; // field 111, varint
        let mut bytes = proto::FsEntry { cwd_id: 1, root_id: 2, umask: None }.encode_to_vec();
        assert_eq!(check(&bytes, proto::FsEntry::SCHEMA), Ok(None));
        bytes.extend(inner);
        assert_eq!(check(&bytes, proto::FsEntry::SCHEMA), Ok(Some(UnknownField { message: "FsEntry", number: 111 })));
    }

    #[test]
    fn wrong_wire_types_and_overlong_varints_are_malformed() {
        assert!(matches!(check(&[0x0a, 0], proto::FsEntry::SCHEMA), Err(SchemaError::Malformed { offset: 0, .. })));
        let mut long = vec![0x08];
        long.extend([0xff; 10]);
        assert!(matches!(check(&long, proto::FsEntry::SCHEMA), Err(SchemaError::Malformed { .. })));
    }
}
