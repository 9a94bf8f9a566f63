//! Poll instructions: a five-byte nop that a dump turns into a jump, and back.

/// Bytes of a poll.
pub const POLL_LEN: usize = 5;

/// `nopl 0(%rax,%rax,1)`: a poll that nobody waits at.
pub const POLL_NOP: [u8; POLL_LEN] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// `jmp rel32` from the poll at `site` to its cold block at `target`; `None` if that is too far.
#[must_use]
pub fn poll_jump(site: u64, target: u64) -> Option<[u8; POLL_LEN]> {
    let distance = target.wrapping_sub(site).wrapping_sub(POLL_LEN as u64).cast_signed();
    let rel = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xe9, rel[0], rel[1], rel[2], rel[3]])
}
