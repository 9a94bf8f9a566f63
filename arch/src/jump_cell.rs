//! A jump cell: what `setjmp` keeps of a native frame, on the portable stack. A `jmp_buf` names its cell.
//!
//! The registers are those that a call preserves, in the order of `dwarf::CALLEE_SAVED`. They and the two words before
//! them are native, so translation rewrites them; nothing else on a portable stack is.
//!
//! ```text
//!   cell +  24   callee-saved registers   x86_64: 6 words, aarch64: 19 words
//!   cell +  16   sp                       as after the return of setjmp
//!   cell +   8   return address           of the call of setjmp
//!   cell +   0   KEY ^ address of cell    anything else: setjmp was not called, or its function has returned
//! ```

/// Offset of the word that says whether the cell is set.
pub const KEY_AT: u64 = 0;
/// Offset of the return address.
pub const RETURN: u64 = 8;
/// Offset of the stack pointer.
pub const SP: u64 = 16;
/// Offset of the first register.
pub const REGISTERS: u64 = 24;
/// Bytes of a cell: room for the ISA with more registers.
pub const LEN: u64 = 176;
/// The first word of a cell is this, exclusive-or the cell's address.
pub const KEY: u64 = 0x6973_616d_6a6d_7063;

/// The first word of the cell at `at` while it is set.
#[must_use]
pub const fn key(at: u64) -> u64 {
    KEY ^ at
}

const _: () = {
    assert!(REGISTERS + 8 * crate::x86_64::dwarf::CALLEE_SAVED.len() as u64 <= LEN);
    assert!(REGISTERS + 8 * crate::aarch64::dwarf::CALLEE_SAVED.len() as u64 <= LEN);
    assert!(LEN.is_multiple_of(16));
};
