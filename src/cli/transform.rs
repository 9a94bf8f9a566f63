//! `isamorph transform -D DIR --arch ARCH`: images of one instruction set to images of another.
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

/// Options of `isamorph transform`.
#[derive(Args, Debug)]
pub struct Options {}

/// Runs `isamorph transform`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(_options: Options) -> Result<ExitCode> {
    bail!("transform is not part of this build yet")
}
