//! `isamorph restore -D DIR`: images to a running process.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph restore`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph restore`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("restore is not part of this build yet")
}
