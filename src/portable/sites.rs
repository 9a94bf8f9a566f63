//! `.isamorph.sites`: what the verifier proved about every site, and all that translation needs.
//!
//! The layout is in `docs/architecture.md` §4.7. A table is read without trust: order, indices, ranges
//! and enumerations are checked, so that a [`SiteTable`] can be used without further checks.
use super::Error;
use super::bytes::Cursor;
use isamorph_arch::{DwarfReg, Isa, ReturnAddr};

const MAGIC: [u8; 8] = *b"ISAMSITE";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 64;
const SITE_LEN: usize = 40;
const SAVED_LEN: usize = 8;
const RESIDUE_LEN: usize = 24;
const JUMPS_LEN: usize = 8;

/// Where the caller's value of a callee-saved register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The register.
    pub reg: DwarfReg,
    /// Its 8 bytes are at the CFA plus this.
    pub cfa_off: i32,
}

/// A location that is live at a site, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residue {
    /// The location.
    pub place: Place,
    /// Its size in bytes: 1, 2, 4 or 8. A register is always 8 bytes.
    pub size: u8,
    /// What it holds.
    pub value: Value,
}

/// A location that is live at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A callee-saved register.
    Register(DwarfReg),
    /// Bytes of the native frame, at the CFA plus this.
    Stack(i32),
}

/// What a live location holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A constant of the link.
    Constant(u64),
    /// The frame's CFA plus this.
    Cfa(i64),
    /// The thread pointer plus this.
    ThreadPointer(i64),
}

/// A site, as it is handed to [`SiteTable::build`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteEntry {
    /// The stack-map ID, the same on both ISAs.
    pub id: u64,
    /// Return address of the call.
    pub ret: ReturnAddr,
    /// Bytes from `sp`, after the call's return, up to the CFA.
    pub cfa_minus_sp: u32,
    /// The slots are at the CFA plus this; 0 if there are none.
    pub slots_cfa_off: i32,
    /// Bytes of the slots; 0 if there are none.
    pub slots_len: u32,
    /// Callee-saved registers that the frame saved.
    pub saved: Vec<Saved>,
    /// Live locations outside the slots.
    pub residue: Vec<Residue>,
    /// Jump cells of the frame, whose address is in the first word of the slots; 0 if the function does not call `setjmp`.
    pub cells: u32,
}

/// A site of a [`SiteTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<'a> {
    /// The stack-map ID, the same on both ISAs.
    pub id: u64,
    /// Return address of the call.
    pub ret: ReturnAddr,
    /// Bytes from `sp`, after the call's return, up to the CFA.
    pub cfa_minus_sp: u32,
    /// The slots are at the CFA plus this; 0 if there are none.
    pub slots_cfa_off: i32,
    /// Bytes of the slots; 0 if there are none.
    pub slots_len: u32,
    /// Callee-saved registers that the frame saved; a register that is neither here nor in `residue`
    /// still holds the caller's value. On aarch64 `x30` is always here; on x86_64 the return address
    /// is at CFA-8.
    pub saved: &'a [Saved],
    /// Live locations outside the slots.
    pub residue: &'a [Residue],
    /// Jump cells of the frame, whose address is in the first word of the slots; 0 if the function does not call `setjmp`.
    pub cells: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RawSite {
    id: u64,
    ret: u64,
    cfa_minus_sp: u32,
    slots_cfa_off: i32,
    slots_len: u32,
    first_saved: u32,
    n_saved: u16,
    n_residue: u16,
    first_residue: u32,
    /// In a list of its own in the file.
    cells: u32,
}

/// All sites of one executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteTable {
    isa: Isa,
    sites: Vec<RawSite>,
    by_id: Vec<u32>,
    saved: Vec<Saved>,
    residue: Vec<Residue>,
}

impl SiteTable {
    /// Makes a table of sites in any order.
    ///
    /// # Errors
    /// If two sites have one ID or one return address, or one has too many entries for the format.
    pub fn build(isa: Isa, mut entries: Vec<SiteEntry>) -> Result<Self, Error> {
        entries.sort_by_key(|e| e.ret);
        let mut table = Self { isa, sites: Vec::new(), by_id: Vec::new(), saved: Vec::new(), residue: Vec::new() };
        for (at, e) in entries.into_iter().enumerate() {
            let too_many = |field, n: usize| Error::Field { what: "sites", field, value: n as u64, at: at as u64 };
            table.sites.push(RawSite {
                id: e.id,
                ret: e.ret.0,
                cfa_minus_sp: e.cfa_minus_sp,
                slots_cfa_off: e.slots_cfa_off,
                slots_len: e.slots_len,
                first_saved: table.saved.len() as u32,
                n_saved: e.saved.len().try_into().map_err(|_| too_many("number of saved registers", e.saved.len()))?,
                n_residue: e.residue.len().try_into().map_err(|_| too_many("number of residues", e.residue.len()))?,
                first_residue: table.residue.len() as u32,
                cells: e.cells,
            });
            table.saved.extend(e.saved);
            table.residue.extend(e.residue);
        }
        table.by_id = (0..table.sites.len() as u32).collect();
        table.by_id.sort_by_key(|index| table.sites[*index as usize].id);
        table.check()?;
        Ok(table)
    }

    /// Reads a table; zeros may follow it.
    ///
    /// # Errors
    /// If it is truncated, unsorted, of another version or ISA, or has an index or value out of range.
    pub fn parse(bytes: &[u8], isa: Isa) -> Result<Self, Error> {
        let mut c = Cursor::new("sites", bytes);
        let magic = c.array::<8>()?;
        if magic != MAGIC {
            return Err(c.field("magic", u64::from_le_bytes(magic), 0));
        }
        let version = c.u32()?;
        if version != VERSION {
            return Err(Error::Version { what: "the site table", found: version, expected: VERSION });
        }
        let machine = c.u32()?;
        if machine != u32::from(isa.elf_machine()) {
            return Err(Error::Machine { what: "the site table", found: machine, isa });
        }
        let n_sites = count(&mut c, "n_sites", bytes.len() / (SITE_LEN + 4))?;
        let n_saved = count(&mut c, "n_saved", bytes.len() / SAVED_LEN)?;
        let n_residue = count(&mut c, "n_residue", bytes.len() / RESIDUE_LEN)?;
        let n_jumps = count(&mut c, "n_jumps", bytes.len() / JUMPS_LEN)?;
        c.take(HEADER_LEN - c.at())?;
        let mut table = Self {
            isa,
            sites: Vec::with_capacity(n_sites),
            by_id: Vec::with_capacity(n_sites),
            saved: Vec::with_capacity(n_saved),
            residue: Vec::with_capacity(n_residue),
        };
        for _ in 0..n_sites {
            table.sites.push(RawSite {
                id: c.u64()?,
                ret: c.u64()?,
                cfa_minus_sp: c.u32()?,
                slots_cfa_off: c.i32()?,
                slots_len: c.u32()?,
                first_saved: c.u32()?,
                n_saved: c.u16()?,
                n_residue: c.u16()?,
                first_residue: c.u32()?,
                cells: 0,
            });
        }
        for _ in 0..n_sites {
            table.by_id.push(c.u32()?);
        }
        c.take(n_sites % 2 * 4)?;
        for _ in 0..n_saved {
            let (reg, _) = (c.u16()?, c.u16()?);
            table.saved.push(Saved { reg: DwarfReg(reg), cfa_off: c.i32()? });
        }
        for _ in 0..n_residue {
            table.residue.push(parse_residue(&mut c)?);
        }
        let mut behind = 0;
        for _ in 0..n_jumps {
            let at = c.at();
            let (index, cells) = (c.u32()?, c.u32()?);
            match table.sites.get_mut(index as usize) {
                Some(site) if index >= behind && cells > 0 => site.cells = cells,
                _ => return Err(c.field("entry of a site with jump cells", index.into(), at)),
            }
            behind = index + 1;
        }
        table.check()?;
        Ok(table)
    }

    /// The table as it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            HEADER_LEN
                + self.sites.len() * (SITE_LEN + 4)
                + self.saved.len() * SAVED_LEN
                + self.residue.len() * RESIDUE_LEN,
        );
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(u32::from(self.isa.elf_machine()).to_le_bytes());
        let jumps = || self.sites.iter().enumerate().filter(|(_, site)| site.cells > 0);
        for n in [self.sites.len(), self.saved.len(), self.residue.len(), jumps().count()] {
            out.extend((n as u64).to_le_bytes());
        }
        out.resize(HEADER_LEN, 0);
        for s in &self.sites {
            out.extend(s.id.to_le_bytes());
            out.extend(s.ret.to_le_bytes());
            out.extend(s.cfa_minus_sp.to_le_bytes());
            out.extend(s.slots_cfa_off.to_le_bytes());
            out.extend(s.slots_len.to_le_bytes());
            out.extend(s.first_saved.to_le_bytes());
            out.extend(s.n_saved.to_le_bytes());
            out.extend(s.n_residue.to_le_bytes());
            out.extend(s.first_residue.to_le_bytes());
        }
        out.extend(self.by_id.iter().flat_map(|index| index.to_le_bytes()));
        out.resize(out.len().next_multiple_of(8), 0);
        for s in &self.saved {
            out.extend(s.reg.0.to_le_bytes());
            out.extend([0; 2]);
            out.extend(s.cfa_off.to_le_bytes());
        }
        for r in &self.residue {
            let (location, place) = match r.place {
                Place::Register(reg) => (0, i32::from(reg.0)),
                Place::Stack(offset) => (1, offset),
            };
            let (what, value) = match r.value {
                Value::Constant(value) => (0, value),
                Value::Cfa(offset) => (1, offset.cast_unsigned()),
                Value::ThreadPointer(offset) => (2, offset.cast_unsigned()),
            };
            out.extend([location, what, r.size, 0]);
            out.extend(place.to_le_bytes());
            out.extend(value.to_le_bytes());
            out.extend([0; 8]);
        }
        for (index, site) in jumps() {
            out.extend((index as u32).to_le_bytes());
            out.extend(site.cells.to_le_bytes());
        }
        out
    }

    /// Whose sites these are.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The site of a return address.
    #[must_use]
    pub fn by_return(&self, ret: ReturnAddr) -> Option<Site<'_>> {
        let index = self.sites.binary_search_by_key(&ret.0, |s| s.ret).ok()?;
        Some(self.site(&self.sites[index]))
    }

    /// The site with an ID.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<Site<'_>> {
        let at = self.by_id.binary_search_by_key(&id, |index| self.sites[*index as usize].id).ok()?;
        Some(self.site(&self.sites[self.by_id[at] as usize]))
    }

    /// All sites in the order of their return addresses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Site<'_>> {
        self.sites.iter().map(|raw| self.site(raw))
    }

    fn site(&self, raw: &RawSite) -> Site<'_> {
        Site {
            id: raw.id,
            ret: ReturnAddr(raw.ret),
            cfa_minus_sp: raw.cfa_minus_sp,
            slots_cfa_off: raw.slots_cfa_off,
            slots_len: raw.slots_len,
            saved: &self.saved[raw.first_saved as usize..][..raw.n_saved.into()],
            residue: &self.residue[raw.first_residue as usize..][..raw.n_residue.into()],
            cells: raw.cells,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |field, value, at: usize| Err(Error::Field { what: "sites", field, value, at: at as u64 });
        for (at, s) in self.sites.iter().enumerate() {
            if at > 0 && self.sites[at - 1].ret >= s.ret {
                return bad("return address not above the one before it", s.ret, at);
            }
            if s.first_saved as usize + usize::from(s.n_saved) > self.saved.len() {
                return bad("first_saved", s.first_saved.into(), at);
            }
            if s.first_residue as usize + usize::from(s.n_residue) > self.residue.len() {
                return bad("first_residue", s.first_residue.into(), at);
            }
            // Everything that a frame holds lies between its sp and its CFA.
            let within = |offset: i32, len: u32| {
                offset < 0 && offset.unsigned_abs() <= s.cfa_minus_sp && len <= offset.unsigned_abs()
            };
            if s.slots_len > 0 && !within(s.slots_cfa_off, s.slots_len) {
                return bad("slots outside the frame", i64::from(s.slots_cfa_off).cast_unsigned(), at);
            }
            if s.cells > 0 && s.slots_len < 8 {
                return bad("jump cells without room for their address", s.cells.into(), at);
            }
            let site = self.site(s);
            if let Some(saved) = site.saved.iter().find(|saved| !within(saved.cfa_off, 8)) {
                return bad("saved register outside the frame", i64::from(saved.cfa_off).cast_unsigned(), at);
            }
            for residue in site.residue {
                if let Place::Stack(offset) = residue.place
                    && !within(offset, residue.size.into())
                {
                    return bad("residue outside the frame", i64::from(offset).cast_unsigned(), at);
                }
            }
        }
        let ids = || self.by_id.iter().map(|index| self.sites.get(*index as usize).map(|s| s.id));
        for (at, (id, next)) in ids().zip(ids().skip(1).chain([Some(u64::MAX)])).enumerate() {
            let last = at + 1 == self.by_id.len();
            match (id, next) {
                (Some(id), Some(next)) if id < next || last => {}
                _ => return bad("by_id not in strictly ascending order", self.by_id[at].into(), at),
            }
        }
        Ok(())
    }
}

fn count(c: &mut Cursor<'_>, field: &'static str, most: usize) -> Result<usize, Error> {
    let at = c.at();
    let n = c.u64()?;
    usize::try_from(n).ok().filter(|n| *n <= most).ok_or_else(|| c.field(field, n, at))
}

fn parse_residue(c: &mut Cursor<'_>) -> Result<Residue, Error> {
    let at = c.at();
    let [location, what, size, _] = c.array()?;
    let (place, value) = (c.i32()?, c.u64()?);
    c.u64()?;
    let place = match (location, u16::try_from(place)) {
        (0, Ok(reg)) => Place::Register(DwarfReg(reg)),
        (1, _) => Place::Stack(place),
        _ => return Err(c.field("place of a residue", location.into(), at)),
    };
    let value = match what {
        0 => Value::Constant(value),
        1 => Value::Cfa(value.cast_signed()),
        2 => Value::ThreadPointer(value.cast_signed()),
        _ => return Err(c.field("kind of a residue", what.into(), at)),
    };
    let whole = matches!(place, Place::Register(_)) || !matches!(value, Value::Constant(_));
    if !matches!(size, 1 | 2 | 4 | 8) || whole && size != 8 {
        return Err(c.field("size of a residue", size.into(), at));
    }
    Ok(Residue { place, size, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<SiteEntry> {
        vec![
            SiteEntry {
                id: 5,
                ret: ReturnAddr(0x2010),
                cfa_minus_sp: 64,
                slots_cfa_off: -48,
                slots_len: 16,
                saved: vec![Saved { reg: DwarfReg(29), cfa_off: -16 }, Saved { reg: DwarfReg(30), cfa_off: -8 }],
                residue: vec![
                    Residue { place: Place::Register(DwarfReg(19)), size: 8, value: Value::Constant(77) },
                    Residue { place: Place::Stack(-56), size: 8, value: Value::ThreadPointer(-8) },
                    Residue { place: Place::Stack(-60), size: 4, value: Value::Constant(1) },
                ],
                cells: 3,
            },
            SiteEntry {
                id: 9,
                ret: ReturnAddr(0x1010),
                cfa_minus_sp: 16,
                slots_cfa_off: 0,
                slots_len: 0,
                saved: vec![],
                residue: vec![Residue { place: Place::Register(DwarfReg(20)), size: 8, value: Value::Cfa(-16) }],
                cells: 0,
            },
            SiteEntry {
                id: 1,
                ret: ReturnAddr(0x3010),
                cfa_minus_sp: 16,
                slots_cfa_off: 0,
                slots_len: 0,
                saved: vec![],
                residue: vec![],
                cells: 0,
            },
        ]
    }

    #[test]
    fn write_read_write() {
        let table = SiteTable::build(Isa::Aarch64, entries()).unwrap();
        let bytes = table.to_bytes();
        assert_eq!(bytes.len(), 64 + 3 * 44 + 4 + 2 * 8 + 4 * 24 + 8);
        let read = SiteTable::parse(&bytes, Isa::Aarch64).unwrap();
        assert_eq!(read, table);
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.by_return(ReturnAddr(0x2010)).unwrap().id, 5);
        assert_eq!([5, 9, 1].map(|id| read.by_id(id).unwrap().cells), [3, 0, 0]);
        assert_eq!(read.by_id(9).unwrap().ret, ReturnAddr(0x1010));
        assert_eq!(read.by_id(9).unwrap().residue[0].value, Value::Cfa(-16));
        assert_eq!(read.by_id(2), None);
        assert_eq!(read.by_return(ReturnAddr(0x2011)), None);
        assert_eq!(read.iter().map(|s| s.id).collect::<Vec<_>>(), [9, 5, 1]);
    }

    #[test]
    fn refuses_an_id_twice() {
        let mut twice = entries();
        twice[1].id = 5;
        assert!(SiteTable::build(Isa::Aarch64, twice).is_err());
    }

    #[test]
    fn refuses_jump_cells_that_nothing_points_to() {
        let mut without = entries();
        (without[0].slots_len, without[0].slots_cfa_off) = (0, 0);
        assert!(SiteTable::build(Isa::Aarch64, without).is_err());
    }

    #[test]
    fn refuses_truncation_and_survives_any_byte_changed() {
        let whole = SiteTable::build(Isa::X86_64, entries()).unwrap().to_bytes();
        for len in 0..whole.len() {
            assert!(SiteTable::parse(&whole[..len], Isa::X86_64).is_err(), "{len} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(table) = SiteTable::parse(&bytes, Isa::X86_64) {
                    for site in table.iter() {
                        assert!(table.by_return(site.ret).is_some());
                    }
                }
            }
        }
        assert!(matches!(SiteTable::parse(&whole, Isa::Aarch64), Err(Error::Machine { .. })));
    }
}
