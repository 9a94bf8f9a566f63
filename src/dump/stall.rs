//! Named places where tests can hold a dump, to kill it there.
use std::time::Duration;

use super::Result;
use crate::tracee::Watch;

/// Waits here as long as the command lives, if the environment's `ISAMORPH_STALL` names this step;
/// announces that on standard error, as `stalled at STEP`.
///
/// # Errors
/// If the command is gone.
pub fn stall(step: &str, watch: &Watch) -> Result<()> {
    watch.check()?;
    if std::env::var_os("ISAMORPH_STALL").is_some_and(|name| name == step) {
        eprintln!("stalled at {step}");
        loop {
            watch.check()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}
