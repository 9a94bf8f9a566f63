//! `f_flags` bits (Linux's `arch/arm64/include/uapi/asm/fcntl.h`, those of 32-bit Arm).
use crate::open_flags::OpenFlags;

/// The bits that differ per instruction set.
pub const OPEN_FLAGS: OpenFlags =
    OpenFlags { direct: 0o200_000, largefile: 0o400_000, directory: 0o40_000, nofollow: 0o100_000 };
