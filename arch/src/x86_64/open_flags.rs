//! `f_flags` bits (Linux's `include/uapi/asm-generic/fcntl.h`: x86 takes the generic ones).
use crate::open_flags::OpenFlags;

/// The bits that differ per instruction set.
pub const OPEN_FLAGS: OpenFlags =
    OpenFlags { direct: 0o40_000, largefile: 0o100_000, directory: 0o200_000, nofollow: 0o400_000 };
