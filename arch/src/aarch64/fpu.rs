//! FPCR and FPSR (Arm ARM, sections C5.2.8 and C5.2.10).
use crate::fpu::{
    DENORMAL, DIVIDE, FpControl, FpEnv, FpUnrepresentable, INEXACT, INVALID, OVERFLOW, Rounding, UNDERFLOW,
};

const FZ: u32 = 1 << 24;
const DN: u32 = 1 << 25;
const AHP: u32 = 1 << 26;
const FZ16: u32 = 1 << 19;
const TRAPS: u32 = 0x9f00;
/// FPCR bits that the Armv8.7 alternate handling of floating point adds (FIZ, AH, NEP).
const ALTERNATE: u32 = 7;

/// FPSR's cumulative bits (IOC, DZC, OFC, UFC, IXC, IDC) and the neutral flag of each.
const FLAGS: [(u32, u8); 6] =
    [(1, INVALID), (1 << 1, DIVIDE), (1 << 2, OVERFLOW), (1 << 3, UNDERFLOW), (1 << 4, INEXACT), (1 << 7, DENORMAL)];

/// What a pair of FPCR and FPSR means. The saturation flag QC belongs to SIMD code, which no portable program has.
///
/// # Errors
/// Trapped exceptions, default NaN, alternative half precision, alternate handling.
pub fn environment(fpcr: u32, fpsr: u32) -> Result<FpEnv, FpUnrepresentable> {
    let refused = [
        (TRAPS, "FPCR: a trapped exception"),
        (DN, "FPCR: default NaN (DN)"),
        (AHP, "FPCR: alternative half precision (AHP)"),
        (FZ16, "FPCR: flushing of half precision (FZ16)"),
        (ALTERNATE, "FPCR: alternate handling (FIZ, AH, NEP)"),
    ];
    if let Some(&(_, setting)) = refused.iter().find(|(bits, _)| fpcr & bits != 0) {
        return Err(FpUnrepresentable { setting, value: fpcr });
    }
    let rounding = match (fpcr >> 22) & 3 {
        0 => Rounding::Nearest,
        1 => Rounding::Up,
        2 => Rounding::Down,
        _ => Rounding::Zero,
    };
    let flags = FLAGS.iter().filter(|(bit, _)| fpsr & bit != 0).fold(0, |all, (_, flag)| all | flag);
    Ok(FpEnv { rounding, flush: fpcr & FZ != 0, flags })
}

/// The control registers for an environment.
#[must_use]
pub fn control(env: FpEnv) -> FpControl {
    let code: u32 = match env.rounding {
        Rounding::Nearest => 0,
        Rounding::Up => 1,
        Rounding::Down => 2,
        Rounding::Zero => 3,
    };
    let fpsr = FLAGS.iter().filter(|(_, flag)| env.flags & flag != 0).fold(0, |all, (bit, _)| all | bit);
    FpControl::Aarch64 { fpcr: code << 22 | if env.flush { FZ } else { 0 }, fpsr }
}
