//! `isamorph park -t PID`: hold a portable process at its equivalence points, detached.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::dump::Verbosity;
use crate::dump::{self, After, Log, guard, hold};

/// Options of `isamorph park`.
#[derive(Args, Debug)]
pub struct Options {
    /// Process to park
    #[arg(short = 't', long, value_name = "PID")]
    tree: i32,
    /// Allow a session and a terminal that stay here
    #[arg(short = 'j', long)]
    shell_job: bool,
    /// Declare what stays here: `pipe[INODE]`
    #[arg(long, value_name = "RES")]
    external: Vec<String>,
    #[command(flatten)]
    verbosity: Verbosity,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// Runs `isamorph park`.
///
/// # Errors
/// The process is not portable, or did not get there in time; it goes on then.
pub fn run(options: Options) -> Result<ExitCode> {
    let log = Log::new(options.verbosity.level(), None).context("making the log")?;
    let what = dump::Options {
        pid: options.tree,
        images: PathBuf::new(),
        after: After::Run,
        park: true,
        shell_job: options.shell_job,
        external: options.external,
        timeout: Duration::from_secs(options.timeout),
    };
    guard::run(&what, &log, |watch, undo| hold::park(&what, watch, undo, &log))
        .with_context(|| format!("parking process {}", options.tree))?;
    say!("process {} is parked; isamorph unpark -t {} lets it go on", options.tree, options.tree);
    Ok(ExitCode::SUCCESS)
}
