//! Numbers in protobuf messages that no schema of ours describes: sockets and the like, which are carried as bytes.
//!
//! A message is a list of fields; what is not set keeps its bytes and its order. Source: protobuf's "Encoding" document.
/// A message that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message: {what} at byte {at}")]
pub struct WireError {
    /// What is wrong.
    pub what: &'static str,
    /// Offset in the message.
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field<'a> {
    number: u32,
    value: Value<'a>,
}

/// A message as a list of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Message<'a> {
    /// Splits a message into its fields, without looking into nested ones.
    ///
    /// # Errors
    /// If it is truncated, or has a group, a field number 0 or a number of more than 64 bits.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader { bytes, at: 0 };
        let mut fields = Vec::new();
        while reader.at < bytes.len() {
            let at = reader.at;
            let key = reader.varint()?;
            let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
            let number = number.ok_or(WireError { what: "a field number out of range", at })?;
            let value = match key & 7 {
                0 => Value::Varint(reader.varint()?),
                1 => Value::Fixed64(reader.array()?),
                2 => {
                    let len = reader.varint()?;
                    Value::Bytes(reader.take(len)?)
                }
                5 => Value::Fixed32(reader.array()?),
                _ => return Err(WireError { what: "a group or an unknown wire type", at }),
            };
            fields.push(Field { number, value });
        }
        Ok(Self { fields })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in &self.fields {
            let key = u64::from(field.number) << 3;
            match field.value {
                Value::Varint(value) => {
                    put_varint(&mut out, key);
                    put_varint(&mut out, value);
                }
                Value::Fixed64(value) => {
                    put_varint(&mut out, key | 1);
                    out.extend(value);
                }
                Value::Bytes(value) => {
                    put_varint(&mut out, key | 2);
                    put_varint(&mut out, value.len() as u64);
                    out.extend_from_slice(value);
                }
                Value::Fixed32(value) => {
                    put_varint(&mut out, key | 5);
                    out.extend(value);
                }
            }
        }
        out
    }

    /// The last varint with this number: protobuf's rule for a field that occurs more than once.
    #[must_use]
    pub fn varint(&self, number: u32) -> Option<u64> {
        self.fields.iter().rev().find_map(|field| match field.value {
            Value::Varint(value) if field.number == number => Some(value),
            _ => None,
        })
    }

    /// Replaces a varint where it stands, or appends it.
    pub fn set_varint(&mut self, number: u32, value: u64) {
        self.set(number, Value::Varint(value));
    }

    fn set(&mut self, number: u32, value: Value<'a>) {
        let Some(last) = self.fields.iter().rposition(|field| field.number == number) else {
            self.fields.push(Field { number, value });
            return;
        };
        self.fields[last].value = value;
        let mut index = 0;
        self.fields.retain(|field| {
            index += 1;
            field.number != number || index - 1 == last
        });
    }

    /// Changes a varint if it is there; says whether it was.
    pub fn map_varint(&mut self, number: u32, change: impl FnOnce(u64) -> u64) -> bool {
        let Some(value) = self.varint(number) else { return false };
        self.set_varint(number, change(value));
        true
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(WireError { what: "a truncated number", at: start });
            };
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError { what: "a number of more than 64 bits", at: start })
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], WireError> {
        let start = self.at;
        let end =
            usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(WireError { what: "a length past the end", at: start })?;
        self.at = end;
        Ok(&self.bytes[start..end])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1: varint 300, 2: "ab", 3: fixed64, 4: fixed32, 99: varint 2^64-1
    const SAMPLE: &[u8] = &[
        0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x98, 0x06, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
    ];

    #[test]
    fn what_is_not_edited_keeps_its_bytes() {
        let message = Message::parse(SAMPLE).unwrap();
        assert_eq!(message.encode(), SAMPLE);
        assert_eq!(message.varint(1), Some(300));
        assert_eq!(message.varint(99), Some(u64::MAX));
    }

    #[test]
    fn an_edit_changes_only_its_field() {
        let mut message = Message::parse(SAMPLE).unwrap();
        message.set_varint(1, 5);
        let mut expected = vec![0x08, 5];
        expected.extend_from_slice(&SAMPLE[3..]);
        assert_eq!(message.encode(), expected);
    }

    #[test]
    fn the_last_of_several_wins_and_stays_alone() {
        let mut message = Message::parse(&[0x08, 1, 0x10, 7, 0x08, 2]).unwrap();
        assert_eq!(message.varint(1), Some(2));
        message.set_varint(1, 3);
        assert_eq!(message.encode(), [0x10, 7, 0x08, 3]);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_handled() {
        for end in 0..SAMPLE.len() {
            if let Ok(message) = Message::parse(&SAMPLE[..end]) {
                assert_eq!(message.encode(), &SAMPLE[..end]);
            }
        }
        for at in 0..SAMPLE.len() {
            for value in 0..=255 {
                let mut bytes = SAMPLE.to_vec();
                bytes[at] = value;
                let _ = Message::parse(&bytes).map(|message| message.encode());
            }
        }
        assert!(Message::parse(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(Message::parse(&[0x00, 1]).is_err(), "field number 0");
        assert!(Message::parse(&[0x0b]).is_err(), "a group");
    }
}
