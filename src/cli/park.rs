//! `isamorph park -t PID`: hold a portable process at its equivalence points, detached.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph park`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph park`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("park is not part of this build yet")
}
