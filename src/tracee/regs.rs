//! Floating-point state as an arch-tagged value; general registers are `isamorph_arch::RegisterFile`.
use isamorph_arch::Isa;

/// Floating-point and vector registers, as the kernel's register sets have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FpState {
    /// The XSAVE area in standard (not compacted) format, at least 576 bytes (Intel SDM volume 1, section 13.4).
    X86_64(Vec<u8>),
    /// `struct user_fpsimd_state`: 32 vector registers of 16 bytes, then FPSR and FPCR.
    Aarch64(Box<[u8; 520]>),
}

impl FpState {
    /// Whose registers these are.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        match self {
            Self::X86_64(_) => Isa::X86_64,
            Self::Aarch64(_) => Isa::Aarch64,
        }
    }
}
