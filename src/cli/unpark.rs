//! `isamorph unpark -t PID`: open the gate of a parked process.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph unpark`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph unpark`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("unpark is not part of this build yet")
}
