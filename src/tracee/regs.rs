//! Floating-point state as an arch-tagged value; general registers are `isamorph_arch::RegisterFile`.
use isamorph_arch::Isa;

/// Floating-point and vector registers, as the kernel's register sets have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FpState {
    /// What XSAVE saves.
    X86_64(XsaveArea),
    /// `struct user_fpsimd_state`: 32 vector registers of 16 bytes, then FPSR and FPCR.
    Aarch64(Box<[u8; 520]>),
}

/// An XSAVE area in standard (not compacted) format (Intel SDM volume 1, section 13.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XsaveArea {
    /// The area: 512 bytes of FXSAVE, 64 of header, then components; at least 576.
    pub bytes: Vec<u8>,
    /// Offset and size of components 0 to 9 on the machine it was read on; 0, 0 for one that is not there.
    pub layout: [(u32, u32); 10],
}

impl XsaveArea {
    /// Whether a component is in another than its initial state (XSTATE_BV).
    #[must_use]
    pub fn in_use(&self, bit: usize) -> bool {
        self.bytes.get(512 + bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
    }

    /// The bytes of an extended component (2 and up) if it is in use.
    #[must_use]
    pub fn component(&self, bit: usize) -> Option<&[u8]> {
        let &(offset, len) = self.layout.get(bit).filter(|(_, len)| *len != 0)?;
        if !self.in_use(bit) {
            return None;
        }
        self.bytes.get(offset as usize..offset.checked_add(len)? as usize)
    }

    /// The area without components above 9 (those of AMX come last).
    #[must_use]
    pub fn base(&self) -> &[u8] {
        let end = self.layout.iter().map(|(offset, len)| offset.saturating_add(*len)).max().unwrap_or(0);
        let end = (end as usize).max(576).min(self.bytes.len());
        &self.bytes[..end]
    }
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
