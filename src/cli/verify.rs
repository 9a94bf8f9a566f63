//! `isamorph verify A B`: are these two executables a pair?
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use isamorph_arch::Isa;

use crate::portable::{Executable, verify};

/// Options of `isamorph verify`.
#[derive(Args, Debug)]
pub struct Options {
    /// The two executables, in any order
    #[arg(required = true, num_args = 2, value_names = ["APP_X86-64", "APP_AARCH64"])]
    executables: Vec<PathBuf>,
    /// Print every violation, not only the first 20
    #[arg(long)]
    all: bool,
}

/// How many violations are printed without `--all`.
const FIRST: usize = 20;

/// Runs `isamorph verify`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(options: Options) -> Result<ExitCode> {
    let mut parsed = Vec::new();
    for path in &options.executables {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        parsed.push(Executable::parse(bytes).with_context(|| format!("reading {}", path.display()))?);
    }
    parsed.sort_by_key(|executable| executable.isa);
    if let [a, b] = &parsed[..]
        && a.isa == b.isa
    {
        anyhow::bail!("both executables are {}: give one of each instruction set", a.isa);
    }
    match verify::verify_executables(&parsed[0], &parsed[1]) {
        Ok(pair) => {
            let stats = &pair.stats;
            say!("{} functions, {} sites, verified in {} ms", stats.functions, stats.sites, stats.time.as_millis());
            for (n, isa) in Isa::ALL.iter().enumerate() {
                let [constants, frame, thread] = stats.residue[n];
                say!(
                    "{isa}: {} instructions, {} polls, {} sites with residue; residue: {constants} constants, \
                     {frame} frame addresses, {thread} thread pointers",
                    stats.instructions[n],
                    stats.polls[n],
                    stats.sites_with_residue[n]
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(violations) => {
            let shown = if options.all { violations.len() } else { FIRST };
            for violation in violations.iter().take(shown) {
                complain!("{violation}");
            }
            if violations.len() > shown {
                complain!("... and {} more (--all prints them)", violations.len() - shown);
            }
            complain!("isamorph: not a pair that a process can move between: {} violations", violations.len());
            Ok(ExitCode::FAILURE)
        }
    }
}
