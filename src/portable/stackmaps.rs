//! `.llvm_stackmaps`: one record per site, concatenated version-3 blobs (LLVM's `docs/StackMaps.rst`).
//!
//! A record of a site (`docs/architecture.md` §4.2) has two locations, `Direct` (where the slots are)
//! and `Constant` (their length), or one, `Constant 0`, in a function without slots. A function that calls `setjmp` has
//! a third, `Constant`: the number of its jump cells, whose address is in the first word of the slots.
use super::Error;
use super::bytes::Cursor;
use isamorph_arch::DwarfReg;

const VERSION: u8 = 3;

/// All records, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackMaps {
    /// Every function that has records.
    pub functions: Vec<Function>,
    /// Every record.
    pub records: Vec<Record>,
}

/// A function that has records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Address of its first instruction.
    pub addr: u64,
    /// Bytes of its static frame, `u64::MAX` if it is not static.
    pub stack_size: u64,
    /// Number of its records.
    pub records: u64,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The ID.
    pub id: u64,
    /// Address of the function.
    pub function: u64,
    /// Offset in the function of the first instruction after the STACKMAP.
    pub offset: u32,
    /// Where the slots are; `None` in a function without.
    pub slots: Option<Slots>,
    /// How many jump cells the function has; 0 if it does not call `setjmp`.
    pub cells: u32,
}

/// Where a function's slots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Base register at the record.
    pub reg: DwarfReg,
    /// Added to the base register's value.
    pub offset: i32,
    /// Bytes.
    pub len: u32,
}

/// Reads all blobs; zeros between them are padding.
///
/// # Errors
/// If a blob is damaged, of another version, or a record is none of a site.
pub fn parse(bytes: &[u8]) -> Result<StackMaps, Error> {
    let mut c = Cursor::new("stack maps", bytes);
    let mut maps = StackMaps::default();
    while c.left() > 0 {
        match c.u8()? {
            0 => {}
            VERSION => blob(&mut c, &mut maps)?,
            other => {
                let (found, expected) = (other.into(), VERSION.into());
                return Err(Error::Version { what: "a stack map", found, expected });
            }
        }
    }
    Ok(maps)
}

fn blob(c: &mut Cursor<'_>, maps: &mut StackMaps) -> Result<(), Error> {
    let start = c.at() - 1;
    c.take(3)?;
    let (functions, constants, records) = (c.u32()?, c.u32()?, c.u32()?);
    let first = maps.functions.len();
    let mut declared = 0u64;
    for _ in 0..functions {
        let function = Function { addr: c.u64()?, stack_size: c.u64()?, records: c.u64()? };
        declared = declared.saturating_add(function.records);
        maps.functions.push(function);
    }
    if declared != u64::from(records) {
        return Err(c.field("number of records of all functions", declared, start));
    }
    let constants = c.take(8 * constants as usize)?;
    for index in first..maps.functions.len() {
        let function = maps.functions[index];
        for _ in 0..function.records {
            maps.records.push(record(c, function.addr, constants, start)?);
        }
    }
    Ok(())
}

/// What a location says, as far as a site needs it.
enum Location {
    Direct(DwarfReg, i32),
    Constant(u64),
}

fn record(c: &mut Cursor<'_>, function: u64, constants: &[u8], start: usize) -> Result<Record, Error> {
    let at = c.at();
    let (id, offset, _reserved, count) = (c.u64()?, c.u32()?, c.u16()?, c.u16()?);
    let mut locations = [const { None }; 3];
    if count == 0 || usize::from(count) > locations.len() {
        return Err(c.field("number of locations", count.into(), at));
    }
    for location in &mut locations[..usize::from(count)] {
        *location = Some(self::location(c, constants)?);
    }
    // Relative to the blob: where a blob starts is up to the linker.
    align(c, start)?;
    c.u16()?;
    let live_outs = c.u16()?;
    if live_outs != 0 {
        return Err(c.field("number of live-outs", live_outs.into(), at));
    }
    align(c, start)?;
    let positive = |field, n| u32::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| c.field(field, n, at));
    let (slots, cells) = match locations {
        [Some(Location::Constant(0)), None, None] => (None, 0),
        [Some(Location::Direct(reg, offset)), Some(Location::Constant(len)), cells] => {
            let slots = Slots { reg, offset, len: positive("slots' length", len)? };
            let cells = match cells {
                None => 0,
                Some(Location::Constant(cells)) if slots.len >= 8 => positive("number of jump cells", cells)?,
                Some(_) => return Err(c.field("jump cells are none of a site; ID", id, at)),
            };
            (Some(slots), cells)
        }
        _ => return Err(c.field("locations are none of a site; ID", id, at)),
    };
    Ok(Record { id, function, offset, slots, cells })
}

fn location(c: &mut Cursor<'_>, constants: &[u8]) -> Result<Location, Error> {
    let at = c.at();
    let (kind, _, _size) = (c.u8()?, c.u8()?, c.u16()?);
    let (reg, _, value) = (c.u16()?, c.u16()?, c.i32()?);
    match kind {
        2 => Ok(Location::Direct(DwarfReg(reg), value)),
        4 => Ok(Location::Constant(i64::from(value).cast_unsigned())),
        5 => {
            let index = usize::try_from(value).ok().and_then(|index| index.checked_mul(8));
            let bytes = index.and_then(|at| constants.get(at..at + 8));
            let bytes = bytes.ok_or_else(|| c.field("constant index", i64::from(value).cast_unsigned(), at))?;
            Ok(Location::Constant(Cursor::new("stack maps", bytes).u64()?))
        }
        _ => Err(c.field("kind of location", kind.into(), at)),
    }
}

fn align(c: &mut Cursor<'_>, start: usize) -> Result<(), Error> {
    let odd = (c.at() - start) % 8;
    if odd != 0 {
        c.take(8 - odd)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Vec<u8> {
        let mut b = vec![3, 0, 0, 0];
        b.extend([1u32, 0, 3].iter().flat_map(|n| n.to_le_bytes()));
        b.extend([0x0040_1000u64, 0x38, 3].iter().flat_map(|n| n.to_le_bytes()));
        // ID 7 at +16: Direct rbp-32, Constant 24.
        b.extend(7u64.to_le_bytes());
        b.extend(16u32.to_le_bytes());
        b.extend([0, 0, 2, 0]);
        b.extend([2, 0, 8, 0, 6, 0, 0, 0]);
        b.extend((-32i32).to_le_bytes());
        b.extend([4, 0, 8, 0, 0, 0, 0, 0, 24, 0, 0, 0]);
        b.extend([0; 8]);
        // ID 8 at +32: Constant 0.
        b.extend(8u64.to_le_bytes());
        b.extend(32u32.to_le_bytes());
        b.extend([0, 0, 1, 0]);
        b.extend([4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        b.extend([0; 4]);
        b.extend([0; 8]);
        // ID 9 at +48: Direct rbp-32, Constant 24, Constant 2.
        b.extend(9u64.to_le_bytes());
        b.extend(48u32.to_le_bytes());
        b.extend([0, 0, 3, 0]);
        b.extend([2, 0, 8, 0, 6, 0, 0, 0]);
        b.extend((-32i32).to_le_bytes());
        b.extend([4, 0, 8, 0, 0, 0, 0, 0, 24, 0, 0, 0]);
        b.extend([4, 0, 8, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        b.extend([0; 4]);
        b.extend([0; 8]);
        b
    }

    #[test]
    fn reads_concatenated_blobs() {
        let mut bytes = blob();
        bytes.extend([0; 8]);
        bytes.extend(blob());
        let maps = parse(&bytes).unwrap();
        assert_eq!((maps.functions.len(), maps.records.len()), (2, 6));
        let slots = Some(Slots { reg: DwarfReg(6), offset: -32, len: 24 });
        let record = |id, offset, slots, cells| Record { id, function: 0x0040_1000, offset, slots, cells };
        assert_eq!(maps.records[3..], [record(7, 16, slots, 0), record(8, 32, None, 0), record(9, 48, slots, 2)]);
    }

    #[test]
    fn refuses_truncation_and_survives_any_byte_changed() {
        let whole = blob();
        for len in 1..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
        }
    }
}
