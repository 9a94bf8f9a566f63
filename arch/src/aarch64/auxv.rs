//! Auxiliary-vector values of a plain aarch64 machine (Linux's `arch/arm64/include/asm/elf.h`).
use crate::auxv::Baseline;

/// `HWCAP_FP | HWCAP_ASIMD`: Armv8.0-A. The signal frame is `struct rt_sigframe` (4688 bytes) and two frame records.
pub const BASELINE: Baseline = Baseline { hwcap: 3, hwcap2: 0, platform: b"aarch64\0", min_sig_stack: 4720 };
