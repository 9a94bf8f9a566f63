//! MXCSR and the x87 control word (Intel SDM volume 1, sections 10.2.3 and 8.1.5).
use crate::fpu::{FpControl, FpEnv, FpUnrepresentable, Rounding};

/// MXCSR of a new process: every exception masked, round to nearest.
pub const MXCSR_DEFAULT: u32 = 0x1f80;
/// The bits that MXCSR has on every 64-bit processor (`mxcsr_mask` of FXSAVE).
pub const MXCSR_MASK: u32 = 0xffff;
/// The x87 control word of a new process.
pub const CWD_DEFAULT: u16 = 0x37f;

const DAZ: u32 = 1 << 6;
const MASKS: u32 = 0x1f80;
const FTZ: u32 = 1 << 15;

/// What an MXCSR means. The x87 takes no part: no portable code uses it.
///
/// # Errors
/// Unmasked exceptions; DAZ and FTZ not together.
pub fn environment(mxcsr: u32) -> Result<FpEnv, FpUnrepresentable> {
    let refuse = |setting| Err(FpUnrepresentable { setting, value: mxcsr });
    if mxcsr & MASKS != MASKS {
        return refuse("MXCSR: an unmasked exception");
    }
    let flush = match (mxcsr & DAZ != 0, mxcsr & FTZ != 0) {
        (false, false) => false,
        (true, true) => true,
        (true, false) => return refuse("MXCSR: DAZ without FTZ"),
        (false, true) => return refuse("MXCSR: FTZ without DAZ"),
    };
    let rounding = match (mxcsr >> 13) & 3 {
        0 => Rounding::Nearest,
        1 => Rounding::Down,
        2 => Rounding::Up,
        _ => Rounding::Zero,
    };
    Ok(FpEnv { rounding, flush, flags: (mxcsr & 0x3f) as u8 })
}

/// The control registers for an environment.
#[must_use]
pub fn control(env: FpEnv) -> FpControl {
    let code: u32 = match env.rounding {
        Rounding::Nearest => 0,
        Rounding::Down => 1,
        Rounding::Up => 2,
        Rounding::Zero => 3,
    };
    let flush = if env.flush { DAZ | FTZ } else { 0 };
    FpControl::X86_64 {
        mxcsr: MXCSR_DEFAULT | code << 13 | flush | u32::from(env.flags & 0x3f),
        cwd: CWD_DEFAULT | (code as u16) << 10,
    }
}
