//! `.isamorph.polls`: the nops that a dump turns into branches to their cold blocks, and back.
use super::Error;
use super::bytes::Cursor;
use isamorph_arch::RemoteAddr;

/// One poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Poll {
    /// Address of the nop.
    pub site: RemoteAddr,
    /// Address of the cold block that calls the safepoint.
    pub target: RemoteAddr,
}

/// Reads poll records: `{u64 site, u64 target}` each, in the order of the file.
///
/// # Errors
/// If the table ends within a record.
pub fn parse(bytes: &[u8]) -> Result<Vec<Poll>, Error> {
    let mut c = Cursor::new("polls", bytes);
    let mut polls = Vec::with_capacity(bytes.len() / 16);
    while c.left() > 0 {
        let (site, target) = (RemoteAddr(c.u64()?), RemoteAddr(c.u64()?));
        // Sections are padded to equal sizes on both ISAs, with zeros.
        if site != RemoteAddr(0) || target != RemoteAddr(0) {
            polls.push(Poll { site, target });
        }
    }
    Ok(polls)
}
