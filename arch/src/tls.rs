//! The one TLS layout of a portable process: the block has one address, only the thread pointer differs.
//!
//! ```text
//!   low                                                                     high
//!   [ struct pthread ][ gap ][ TLS block: image, then zeros: memsz ][pad][ self word ]
//!                     ^      ^                                           ^
//!                     |      block (aligned to p_align)                  fs_base (x86_64, variant II)
//!                     tpidr_el0 = block - align_up(16, p_align)          = block + align_up(memsz, p_align)
//!                     (aarch64, variant I)
//! ```
//!
//! Sources: ELF Handling For Thread-Local Storage, section 3; AAPCS64's 16-byte TCB; what `ld.lld`
//! computes for local-exec. PT_TLS must start at a multiple of its alignment.
use crate::{Isa, RemoteAddr};

/// What a PT_TLS program header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsLayout {
    /// Bytes of the block (`p_memsz`).
    pub memsz: u64,
    /// Alignment of the block (`p_align`), a power of two.
    pub align: u64,
}

impl TlsLayout {
    /// Distance from the TLS block's start to the thread pointer; `None` if `self` is nonsense.
    #[must_use]
    pub fn thread_pointer_offset(&self, isa: Isa) -> Option<i64> {
        if !self.align.is_power_of_two() || self.align > 1 << 20 {
            return None;
        }
        match isa {
            Isa::X86_64 => i64::try_from(self.memsz.checked_next_multiple_of(self.align)?).ok(),
            Isa::Aarch64 => Some(-i64::try_from(16u64.next_multiple_of(self.align)).ok()?),
        }
    }

    /// The thread pointer that `to` needs for a thread whose pointer on `from` is `tp`.
    #[must_use]
    pub fn convert(&self, tp: RemoteAddr, from: Isa, to: Isa) -> Option<RemoteAddr> {
        let block = tp.checked_offset(self.thread_pointer_offset(from)?.checked_neg()?)?;
        block.checked_offset(self.thread_pointer_offset(to)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_both_ways() {
        let tls = TlsLayout { memsz: 0x39, align: 64 };
        let a64 = tls.convert(RemoteAddr(0x1000 + 0x40), Isa::X86_64, Isa::Aarch64);
        assert_eq!(a64, Some(RemoteAddr(0x1000 - 64)));
        assert_eq!(tls.convert(a64.unwrap(), Isa::Aarch64, Isa::X86_64), Some(RemoteAddr(0x1040)));
    }

    #[test]
    fn refuses_an_alignment_that_is_no_power_of_two() {
        assert_eq!(TlsLayout { memsz: 8, align: 24 }.thread_pointer_offset(Isa::X86_64), None);
    }
}
