//! The floating-point environment as both instruction sets can have it: rounding, flushing, sticky flags.
//!
//! The data registers are not here: at an equivalence point none holds state. What one side's control
//! register can say and the other's cannot (unmasked traps, denormals-are-zero alone, default NaN) is refused.
use crate::{Isa, aarch64, x86_64};
use core::fmt;

/// The direction of rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    #[default]
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}

/// Sticky exception flag: invalid operation.
pub const INVALID: u8 = 1;
/// Sticky exception flag: a denormal operand (x86_64) or a flushed one (aarch64).
pub const DENORMAL: u8 = 2;
/// Sticky exception flag: division by zero.
pub const DIVIDE: u8 = 4;
/// Sticky exception flag: overflow.
pub const OVERFLOW: u8 = 8;
/// Sticky exception flag: underflow.
pub const UNDERFLOW: u8 = 16;
/// Sticky exception flag: inexact result.
pub const INEXACT: u8 = 32;

/// A floating-point environment without its data registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FpEnv {
    /// The direction of rounding.
    pub rounding: Rounding,
    /// Denormal operands and results become zero.
    pub flush: bool,
    /// Sticky exception flags, in the order of the constants here (which is MXCSR's).
    pub flags: u8,
}

/// Control registers of one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FpControl {
    /// SSE's and the x87's.
    X86_64 {
        /// SSE control and status.
        mxcsr: u32,
        /// x87 control word.
        cwd: u16,
    },
    /// `fpcr` and `fpsr`.
    Aarch64 {
        /// Control.
        fpcr: u32,
        /// Status.
        fpsr: u32,
    },
}

/// A floating-point setting that only one instruction set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpUnrepresentable {
    /// The setting, by the name in the processor's manual.
    pub setting: &'static str,
    /// The control register's value.
    pub value: u32,
}

impl fmt::Display for FpUnrepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (control register {:#x}) has no equivalent on the other instruction set",
            self.setting, self.value
        )
    }
}

impl core::error::Error for FpUnrepresentable {}

impl FpControl {
    /// What these registers mean.
    ///
    /// # Errors
    /// A setting that only this instruction set has.
    pub fn environment(self) -> Result<FpEnv, FpUnrepresentable> {
        match self {
            Self::X86_64 { mxcsr, .. } => x86_64::fpu::environment(mxcsr),
            Self::Aarch64 { fpcr, fpsr } => aarch64::fpu::environment(fpcr, fpsr),
        }
    }
}

impl FpEnv {
    /// The control registers of `isa` that say this.
    #[must_use]
    pub fn control(self, isa: Isa) -> FpControl {
        match isa {
            Isa::X86_64 => x86_64::fpu::control(self),
            Isa::Aarch64 => aarch64::fpu::control(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_environment_survives_both_ways() {
        for rounding in [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero] {
            for flags in 0..64 {
                for flush in [false, true] {
                    let env = FpEnv { rounding, flush, flags };
                    for isa in Isa::ALL {
                        assert_eq!(env.control(isa).environment(), Ok(env), "{isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn defaults_are_the_kernels() {
        let env = FpEnv::default();
        assert_eq!(env.control(Isa::X86_64), FpControl::X86_64 { mxcsr: 0x1f80, cwd: 0x37f });
        assert_eq!(env.control(Isa::Aarch64), FpControl::Aarch64 { fpcr: 0, fpsr: 0 });
    }

    #[test]
    fn rounding_has_each_manual_s_code() {
        let env = FpEnv { rounding: Rounding::Up, ..FpEnv::default() };
        assert_eq!(env.control(Isa::X86_64), FpControl::X86_64 { mxcsr: 0x5f80, cwd: 0xb7f });
        assert_eq!(env.control(Isa::Aarch64), FpControl::Aarch64 { fpcr: 1 << 22, fpsr: 0 });
    }

    #[test]
    fn refuses_what_only_one_side_has() {
        let daz = FpControl::X86_64 { mxcsr: 0x1fc0, cwd: 0x37f }.environment().unwrap_err();
        assert!(daz.setting.contains("DAZ"));
        let trap = FpControl::X86_64 { mxcsr: 0x1f00, cwd: 0x37f }.environment().unwrap_err();
        assert!(trap.setting.contains("unmasked"));
        let nan = FpControl::Aarch64 { fpcr: 1 << 25, fpsr: 0 }.environment().unwrap_err();
        assert!(nan.setting.contains("default NaN"));
    }
}
