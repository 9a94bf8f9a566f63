//! `isamorph verify A B`: are these two executables a pair?
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph verify`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph verify`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("verify is not part of this build yet")
}
