//! `isamorph restore -D DIR`: images to a running process.
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::restore;

/// Options of `isamorph restore`.
#[derive(Args, Debug)]
pub struct Options {
    /// Directory of the images
    #[arg(short = 'D', long = "images-dir", value_name = "DIR")]
    images_dir: PathBuf,
    /// Let the process go on by itself and exit; without it, wait for it and exit as it does
    #[arg(short = 'd', long)]
    restore_detached: bool,
    /// The process belongs to a shell's session: it joins this one, and gets this terminal
    #[arg(short = 'j', long)]
    shell_job: bool,
    /// Write the process ID to FILE
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Let descriptor N of this command stand for a resource, for example `pipe:[INODE]`
    #[arg(long, value_name = "fd[N]:RESOURCE")]
    inherit_fd: Vec<restore::Inherit>,
    /// Restore the process without the capabilities that this command does not have, and say which those are
    #[arg(long)]
    drop_missing_caps: bool,
    /// Write the log to FILE, which is relative to the images' directory
    #[arg(short = 'o', long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    #[command(flatten)]
    verbosity: super::dump::Verbosity,
}

/// Runs `isamorph restore`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(options: Options) -> Result<ExitCode> {
    let started = Instant::now();
    let doing = || format!("restoring from {}", options.images_dir.display());
    let result = restore::restore(&restore::Options {
        tree: options.images_dir.clone(),
        shell_job: options.shell_job,
        pidfile: options.pidfile.clone(),
        inherit: options.inherit_fd.clone(),
        drop_missing_capabilities: options.drop_missing_caps,
    });
    let line = match &result {
        Ok(r) => format!(
            "restored process {} in {:.3} s: {} bytes of memory, {} system calls",
            r.pid,
            started.elapsed().as_secs_f64(),
            r.bytes,
            r.calls
        ),
        Err(error) => format!("{}: {error}", doing()),
    };
    if let Some(path) = &options.log_file {
        let path = options.images_dir.join(path);
        let opened = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
        // The process is there already: a log that cannot be written is no reason to fail.
        if let Err(error) = opened.and_then(|mut file| writeln!(file, "{line}")) {
            complain!("isamorph: {}: {error}", path.display());
        }
    } else if options.verbosity.level() > 2 && result.is_ok() {
        complain!("{line}");
    }
    let restored = result.with_context(doing)?;
    if !restored.dropped_capabilities.is_empty() {
        let dropped = restored.dropped_capabilities.join(", ");
        complain!("isamorph: process {} goes on without {dropped}: this command does not have that", restored.pid);
    }
    if options.restore_detached {
        return Ok(ExitCode::SUCCESS);
    }
    restore::wait(restored.pid).with_context(|| format!("waiting for process {}", restored.pid))
}
