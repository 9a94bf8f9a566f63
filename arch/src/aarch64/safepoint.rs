//! Poll instructions: a nop that a dump turns into a branch, and back.

/// Bytes of a poll.
pub const POLL_LEN: usize = 4;

/// `nop`: a poll that nobody waits at.
pub const POLL_NOP: [u8; POLL_LEN] = 0xd503_201f_u32.to_le_bytes();

/// `b target` at `site`; `None` if the distance does not fit 26 bits of words.
#[must_use]
pub fn poll_jump(site: u64, target: u64) -> Option<[u8; POLL_LEN]> {
    let distance = target.wrapping_sub(site).cast_signed();
    if distance % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&distance) {
        return None;
    }
    let imm26 = ((distance >> 2) as u32) & 0x03ff_ffff;
    Some((0x1400_0000 | imm26).to_le_bytes())
}
