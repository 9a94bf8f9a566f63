//! Basic blocks, successors and call sites of every function, as LLVM 22 writes `SHT_LLVM_BB_ADDR_MAP`.
//!
//! Source: LLVM's `docs/Extensions.rst` and what `llc` 22 emits. Per function:
//!
//! ```text
//! u8 version = 5, u16 features            BrProb, and CallsiteEndOffsets if there are calls
//! u64 address of the function, uleb number of blocks
//! per block:   uleb ID, uleb start - end of the previous block,
//!              with CallsiteEndOffsets: uleb number of calls, per call: uleb end of the call - previous call's end (or start),
//!              uleb end - last call's end (or start), uleb metadata
//! per block:   uleb number of successors, per successor: uleb ID, uleb probability (of 2^31)
//! ```
//!
//! Only that is read: another version or feature set is refused, because a verifier that skips what
//! it does not know proves nothing.
use super::Error;
use super::bytes::Cursor;

const VERSION: u8 = 5;
const BR_PROB: u16 = 1 << 2;
const CALLSITE_END_OFFSETS: u16 = 1 << 5;
/// Offsets in a function are 32 bits wide in LLVM.
const MAX_OFFSET: u64 = u32::MAX as u64;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Address of its first instruction.
    pub addr: u64,
    /// Blocks in the order of their addresses; the first is the entry.
    pub blocks: Vec<Block>,
}

/// One machine basic block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its ID, unique in the function.
    pub id: u32,
    /// Offset of its first byte in the function.
    pub start: u32,
    /// Offset behind its last byte in the function.
    pub end: u32,
    /// Offsets in the function behind each call instruction (and STACKMAP pseudo-call), ascending.
    pub call_ends: Vec<u32>,
    /// What its last instructions can do.
    pub ends: Ends,
    /// IDs of its successors.
    pub successors: Vec<u32>,
}

/// What the last instructions of a block can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// It ends with a return or a tail call.
    pub returns: bool,
    /// It ends with a tail call.
    pub tail_call: bool,
    /// Control can go on to the next block in address order.
    pub falls_through: bool,
    /// It ends with a branch through a register.
    pub indirect: bool,
}

/// Reads all functions of the concatenated maps; zeros between them are padding.
///
/// # Errors
/// If a map is damaged or has another version or other features.
pub fn parse(bytes: &[u8]) -> Result<Vec<Function>, Error> {
    let mut c = Cursor::new("basic-block map", bytes);
    let mut functions = Vec::new();
    while c.left() > 0 {
        match c.u8()? {
            0 => {}
            VERSION => functions.push(function(&mut c)?),
            other => {
                let (found, expected) = (other.into(), VERSION.into());
                return Err(Error::Version { what: "the basic-block map", found, expected });
            }
        }
    }
    Ok(functions)
}

fn function(c: &mut Cursor<'_>) -> Result<Function, Error> {
    let at = c.at();
    let features = c.u16()?;
    if features & !CALLSITE_END_OFFSETS != BR_PROB {
        return Err(c.field("features", features.into(), at));
    }
    let addr = c.u64()?;
    let at = c.at();
    let count = c.uleb32()?;
    // Each block takes at least four bytes of the map; nothing is reserved on an unproved promise.
    if count == 0 || count as usize > c.left() / 4 {
        return Err(c.field("number of blocks", count.into(), at));
    }
    let mut blocks = Vec::with_capacity(count as usize);
    let mut end = 0u64;
    for _ in 0..count {
        let block = block(c, &mut end, features & CALLSITE_END_OFFSETS != 0)?;
        blocks.push(block);
    }
    for block in &mut blocks {
        let at = c.at();
        let successors = c.uleb32()?;
        if successors as usize > c.left() / 2 {
            return Err(c.field("number of successors", successors.into(), at));
        }
        for _ in 0..successors {
            block.successors.push(c.uleb32()?);
            c.uleb()?;
        }
    }
    Ok(Function { addr, blocks })
}

fn block(c: &mut Cursor<'_>, end: &mut u64, has_calls: bool) -> Result<Block, Error> {
    let id = c.uleb32()?;
    let start = advance(c, *end)?;
    let at = c.at();
    let calls = if has_calls { c.uleb32()? } else { 0 };
    if calls as usize > c.left() {
        return Err(c.field("number of calls", calls.into(), at));
    }
    let mut call_ends = Vec::with_capacity(calls as usize);
    let mut last = start;
    for _ in 0..calls {
        last = advance(c, last)?;
        call_ends.push(last as u32);
    }
    *end = advance(c, last)?;
    let at = c.at();
    let metadata = c.uleb32()?;
    // Bit 2 marks a landing pad: portable code has none.
    if metadata & !0b11011 != 0 {
        return Err(c.field("metadata", metadata.into(), at));
    }
    Ok(Block {
        id,
        start: start as u32,
        end: *end as u32,
        call_ends,
        ends: Ends {
            returns: metadata & 1 != 0,
            tail_call: metadata & 2 != 0,
            falls_through: metadata & 8 != 0,
            indirect: metadata & 16 != 0,
        },
        successors: Vec::new(),
    })
}

/// An offset that is given as the distance to the one before it.
fn advance(c: &mut Cursor<'_>, from: u64) -> Result<u64, Error> {
    let at = c.at();
    let distance = c.uleb32()?;
    let offset = from + u64::from(distance);
    if offset > MAX_OFFSET {
        return Err(c.field("offset", offset, at));
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `llc` wrote for a function of two blocks, the first with one call, looping.
    const MAP: &[u8] = &[
        5, 0x24, 0, 0x00, 0x10, 0x40, 0, 0, 0, 0, 0, 2, // header
        0, 0, 1, 9, 3, 8, // block 0: 0..12, call ends at 9, falls through
        1, 4, 0, 1, 1, // block 1: 16..17, returns
        2, 0, 1, 1, 2, 0, // successors: 0 and 1, none
    ];

    #[test]
    fn reads_blocks_calls_and_successors() {
        let mut padded = MAP.to_vec();
        padded.extend([0, 0, 0]);
        padded.extend(MAP);
        let functions = parse(&padded).unwrap();
        assert_eq!(functions.len(), 2);
        let f = &functions[0];
        assert_eq!((f.addr, f.blocks.len()), (0x0040_1000, 2));
        assert_eq!((f.blocks[0].start, f.blocks[0].end, &f.blocks[0].call_ends[..]), (0, 12, &[9][..]));
        assert_eq!(f.blocks[0].successors, [0, 1]);
        assert_eq!((f.blocks[1].start, f.blocks[1].end, f.blocks[1].ends.returns), (16, 17, true));
    }

    #[test]
    fn refuses_every_truncation_and_unknown_features() {
        for len in 1..MAP.len() {
            assert!(parse(&MAP[..len]).is_err(), "{len} bytes");
        }
        let mut other = MAP.to_vec();
        other[1] |= 0x40;
        assert!(matches!(parse(&other), Err(Error::Field { field: "features", .. })));
        other[0] = 4;
        assert!(matches!(parse(&other), Err(Error::Version { found: 4, .. })));
    }

    #[test]
    fn survives_any_byte_changed() {
        for at in 0..MAP.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = MAP.to_vec();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
        }
    }
}
