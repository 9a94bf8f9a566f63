//! `isamorph cc …`: runs the compiler driver, `isamorph-cc`, beside this program or in PATH.
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use clap::Args;

/// Options of `isamorph cc`: all of them are `isamorph-cc`'s.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Options {
    /// Arguments for isamorph-cc
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Replaces this process by `isamorph-cc`.
///
/// # Errors
/// There is no `isamorph-cc`, or it cannot be run.
pub fn run(options: Options) -> Result<ExitCode> {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("isamorph-cc")).filter(|path| path.exists());
    let driver = beside.unwrap_or_else(|| PathBuf::from("isamorph-cc"));
    let error = Command::new(&driver).args(options.args).exec();
    Err(anyhow!(error).context(format!(
        "running {}: is isamorph-cc (cargo build -p isamorph-cc) beside isamorph or in PATH?",
        driver.display()
    )))
}
