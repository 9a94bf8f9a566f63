//! `isamorph dump -t PID -D DIR`: a running process to images.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use isamorph_arch::Isa;

use crate::dump::{self, After, Log, guard};
use crate::transform;

/// Options of `isamorph dump`.
#[derive(Args, Debug)]
pub struct Options {
    /// Process to dump
    #[arg(short = 't', long, value_name = "PID")]
    tree: i32,
    /// Directory for images
    #[arg(short = 'D', long, value_name = "DIR")]
    images_dir: PathBuf,
    /// Leave the process running
    #[arg(short = 'R', long)]
    leave_running: bool,
    /// Leave the process stopped
    #[arg(short = 's', long, conflicts_with = "leave_running")]
    leave_stopped: bool,
    /// Freeze a portable process wherever it is, not at an equivalence point
    #[arg(long, conflicts_with = "arch")]
    no_park: bool,
    /// Allow a session and a terminal that stay here
    #[arg(short = 'j', long)]
    shell_job: bool,
    /// Declare what stays here: `pipe[INODE]`
    #[arg(long, value_name = "RES")]
    external: Vec<String>,
    /// Translate the images, too; may be given several times
    #[arg(long, value_name = "ARCH")]
    arch: Vec<Isa>,
    /// Log file, relative to the images' directory
    #[arg(short = 'o', long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// More messages: -v warnings, -vv events, -vvv (or -v4) details
    #[command(flatten)]
    verbosity: Verbosity,
    /// Seconds that stopping the process may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// `-v`, as CRIU has it: repeated, or with a number.
#[derive(Args, Debug)]
pub struct Verbosity {
    /// Messages: errors, -v2 warnings, -v3 events, -v4 details; -v alone adds one
    #[arg(short = 'v', long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "+", action = ArgAction::Append)]
    verbosity: Vec<String>,
}

impl Verbosity {
    /// The level: 2 by default.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.verbosity.iter().fold(2u8, |level, word| match word.as_str() {
            // `-vvv` reaches us as `-v` with the value `vv`.
            word if word.bytes().all(|b| b == b'v') => level.saturating_add(1 + word.len() as u8),
            "+" => level.saturating_add(1),
            word => word.parse().unwrap_or(level),
        })
    }
}

/// Runs `isamorph dump`.
///
/// # Errors
/// What was refused or failed. The process goes on, and nothing is left in the directory.
pub fn run(options: Options) -> Result<ExitCode> {
    let dir = &options.images_dir;
    if let Some(host) = Isa::host()
        && options.arch.contains(&host)
    {
        bail!("--arch {host} is the process's own instruction set: its images need no translation");
    }
    let log_path = match &options.log_file {
        Some(file) => {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            Some(dir.join(file))
        }
        None => None,
    };
    let log = Log::new(options.verbosity.level(), log_path.as_deref())
        .with_context(|| format!("making the log {}", log_path.as_deref().unwrap_or(dir).display()))?;
    let what = dump::Options {
        pid: options.tree,
        images: std::path::absolute(dir).with_context(|| format!("finding {}", dir.display()))?,
        after: match (options.leave_running, options.leave_stopped) {
            (true, _) => After::Run,
            (_, true) => After::Stop,
            _ => After::Kill,
        },
        park: !options.no_park,
        shell_job: options.shell_job,
        external: options.external,
        timeout: Duration::from_secs(options.timeout),
    };
    let images = what.images.clone();
    let mut translate = || -> dump::Result<()> {
        for &arch in &options.arch {
            let whole = transform::Options {
                images: images.clone(),
                arch,
                out: None,
                pair: None,
                flatten: false,
                check: false,
                explain: false,
            };
            let report = transform::transform(&whole).map_err(|error| {
                dump::Error::Translate(format!("{:#}", anyhow::Error::new(error).context(format!("to {arch}"))))
            })?;
            super::transform::print(&report);
        }
        Ok(())
    };
    let report = guard::run(&what, &log, |watch, undo| dump::dump(&what, watch, undo, &log, &mut translate))
        .with_context(|| format!("dumping process {}", options.tree))?;
    log.info(&format!("dump finished: {report:?}"));
    Ok(ExitCode::SUCCESS)
}
