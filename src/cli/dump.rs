//! `isamorph dump -t PID -D DIR`: a running process to images.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph dump`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph dump`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("dump is not part of this build yet")
}
