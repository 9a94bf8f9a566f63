//! A cursor over untrusted little-endian bytes that never reads past their end.
use super::Error;

/// Reads one table from its start; every failure says which table and where.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`; `what` names the table in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// Offset from the start, in bytes.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.truncated())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Skips zeros or padding up to the next multiple of `align`, but not past the end.
    pub fn align(&mut self, align: usize) {
        self.at = self.at.next_multiple_of(align).min(self.bytes.len());
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 number, which may be padded (assemblers do) but must fit 64 bits.
    pub fn uleb(&mut self) -> Result<u64, Error> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0u32..).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let placed = if shift < 64 { bits << shift } else { 0 };
            if shift >= 64 && bits != 0 || shift < 64 && placed >> shift != bits {
                return Err(self.field("uleb128", u64::from(byte), start));
            }
            value |= placed;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// An unsigned LEB128 number that must fit 32 bits.
    pub fn uleb32(&mut self) -> Result<u32, Error> {
        let start = self.at;
        let value = self.uleb()?;
        u32::try_from(value).map_err(|_| self.field("uleb128 of 32 bits", value, start))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The error for a field at `at` with a value it must not have.
    #[must_use]
    pub fn field(&self, field: &'static str, value: u64, at: usize) -> Error {
        Error::Field { what: self.what, field, value, at: at as u64 }
    }

    fn truncated(&self) -> Error {
        Error::Truncated { what: self.what, at: self.at as u64, len: self.bytes.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uleb_takes_padding_and_refuses_overflow() {
        assert_eq!(Cursor::new("t", &[0x85, 0x80, 0x00]).uleb().unwrap(), 5);
        assert_eq!(
            Cursor::new("t", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).uleb().unwrap(),
            u64::MAX
        );
        assert!(Cursor::new("t", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).uleb().is_err());
        assert!(Cursor::new("t", &[0x80; 3]).uleb().is_err());
        assert!(Cursor::new("t", &[0x80; 300]).uleb().is_err());
    }
}
