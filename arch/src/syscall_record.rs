//! The record that the system-call stub keeps in its frame: the one top frame of a parked thread.
//!
//! The frame has the same layout on both instruction sets. `sp` points at it from the stub's restart
//! label up to and including the system-call instruction.
//!
//! ```text
//!   sp + 352  CFA (the caller's sp at the call)
//!   sp + 344  return address            (x86_64: pushed by the call; aarch64: x30)
//!   sp + 336  caller's frame pointer    (rbp / x29; the stub's own fp points here)
//!   sp + 136  scratch of the stub; in the gate, first the thread's own signal mask
//!   sp +  88  native arguments[6]       what this ISA's kernel was given
//!   sp +  80  native number
//!   sp +  72  cancel pointer            0, or the address of an int: nonzero means cancelled
//!   sp +  64  flags                     RESUMED, GATE, MASK, see below
//!   sp +  56  deadline                  CLOCK_MONOTONIC nanoseconds, -1 for none
//!   sp +   8  arguments[6]              neutral
//!   sp +   0  number                    neutral (asm-generic)
//! ```

/// Bytes from `sp` to the CFA.
pub const FRAME_LEN: u64 = 352;
/// Offset of the neutral system-call number.
pub const NUMBER: u64 = 0;
/// Offset of the first of six neutral arguments.
pub const ARGS: u64 = 8;
/// Offset of the deadline of a timed call.
pub const DEADLINE: u64 = 56;
/// Offset of the flags word.
pub const FLAGS: u64 = 64;
/// Offset of the cancel pointer.
pub const CANCEL: u64 = 72;
/// Offset of the native number, followed by six native arguments.
pub const NATIVE: u64 = 80;
/// Offset of the stub's scratch space (200 bytes: x86_64's `struct stat` and `struct semid64_ds` are longer than the
/// neutral ones, so that the kernel cannot fill the caller's buffer).
pub const SCRATCH: u64 = 136;
/// Offset of the signal mask that the thread comes back to when the gate opens, if [`FLAG_MASK`] is set. It lies in
/// the scratch space, which the stub uses only behind the gate.
pub const GATE_MASK: u64 = SCRATCH;
/// Offset of the caller's frame pointer.
pub const SAVED_FP: u64 = 336;
/// Offset of the return address.
pub const RETURN: u64 = 344;
/// Bytes of the part that means the same on both instruction sets (offsets 0..80).
pub const NEUTRAL_LEN: u64 = 80;

/// Flag: the call was entered before; a timed call waits only until its recorded deadline.
pub const FLAG_RESUMED: u64 = 1;
/// Flag: do not call before the gate opens (an untimed futex on the flags word).
pub const FLAG_GATE: u64 = 2;
/// Flag: all signals are blocked while the gate is closed; the thread's own mask is at [`GATE_MASK`].
pub const FLAG_MASK: u64 = 4;
