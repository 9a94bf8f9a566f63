//! `isamorph decode FILE`: an image as JSON.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph decode`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph decode`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("decode is not part of this build yet")
}
