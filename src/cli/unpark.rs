//! `isamorph unpark -t PID`: open the gate of a parked process.
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::dump::Verbosity;
use crate::dump::{Log, hold};

/// Options of `isamorph unpark`.
#[derive(Args, Debug)]
pub struct Options {
    /// Process to let go on
    #[arg(short = 't', long, value_name = "PID")]
    tree: i32,
    #[command(flatten)]
    verbosity: Verbosity,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// Runs `isamorph unpark`.
///
/// # Errors
/// The process is not parked.
pub fn run(options: Options) -> Result<ExitCode> {
    let log = Log::new(options.verbosity.level(), None).context("making the log")?;
    hold::unpark(options.tree, Duration::from_secs(options.timeout), &log)
        .with_context(|| format!("letting process {} go on", options.tree))?;
    Ok(ExitCode::SUCCESS)
}
