//! Named places where tests can hold a dump, to kill it there.
use std::time::{Duration, Instant};

use super::Result;
use crate::tracee::Watch;

/// Waits here, if the environment's `ISAMORPH_STALL` names this step: as long as the command lives, or, with
/// `STEP:MILLISECONDS`, that long. Announces it on standard error, as `stalled at STEP`.
///
/// # Errors
/// If the command is gone.
pub fn stall(step: &str, watch: &Watch) -> Result<()> {
    watch.check()?;
    let Ok(wanted) = std::env::var("ISAMORPH_STALL") else { return Ok(()) };
    let (name, limit) = wanted.split_once(':').map_or((wanted.as_str(), None), |(name, ms)| (name, ms.parse().ok()));
    if name == step {
        let begun = Instant::now();
        eprintln!("stalled at {step}");
        while limit.is_none_or(|ms| begun.elapsed() < Duration::from_millis(ms)) {
            watch.check()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}
