//! Auxiliary-vector values of a plain x86_64 machine (Linux's `arch/x86/include/asm/elf.h`).
use crate::auxv::Baseline;

/// FPU, TSC, MSR, CX8, CMOV, MMX, FXSR, SSE, SSE2: what `CPUID.1:EDX` says of every 64-bit processor (psABI, x86-64-v1).
pub const BASELINE: Baseline = Baseline {
    hwcap: 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26,
    hwcap2: 0,
    platform: b"x86_64\0",
    min_sig_stack: 2048,
};
