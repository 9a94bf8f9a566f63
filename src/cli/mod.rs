//! Options of each subcommand; no logic.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Prints a line to standard output. Whoever reads it may have had enough (`… | head`): that is no reason to stop, let alone
/// to panic, for a process may be waiting to go on.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// As `say!`, to standard error.
macro_rules! complain {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

pub mod cc;
pub mod decode;
#[cfg(target_os = "linux")]
pub mod dump;
#[cfg(target_os = "linux")]
pub mod park;
#[cfg(target_os = "linux")]
pub mod restore;
pub mod transform;
#[cfg(target_os = "linux")]
pub mod unpark;
pub mod verify;

/// Checkpoints running Linux processes, translates them between x86_64 and aarch64, restores them.
#[derive(Debug, Parser)]
#[command(name = "isamorph", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checkpoint a process into images
    #[cfg(target_os = "linux")]
    Dump(dump::Options),
    /// Start a process from images
    #[cfg(target_os = "linux")]
    Restore(restore::Options),
    /// Translate images to another instruction set
    Transform(transform::Options),
    /// Check that two executables are a pair that a process can move between
    Verify(verify::Options),
    /// Bring a portable process to its equivalence points and hold it there, for any CRIU to dump
    #[cfg(target_os = "linux")]
    Park(park::Options),
    /// Let a parked process go on
    #[cfg(target_os = "linux")]
    Unpark(unpark::Options),
    /// Print an image as JSON
    Decode(decode::Options),
    /// Make an image from JSON
    Encode(decode::Encode),
    /// Print an image as JSON for people: decode --pretty
    Show(decode::Show),
    /// Print what an image is and how much is in it
    Info(decode::Info),
    /// Look at the processes in a directory of images
    X(decode::Explore),
    /// Compile and link a pair (runs isamorph-cc)
    Cc(cc::Options),
}

/// Parses this program's arguments, runs the subcommand, prints its error.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        #[cfg(target_os = "linux")]
        Command::Dump(options) => dump::run(options),
        #[cfg(target_os = "linux")]
        Command::Restore(options) => restore::run(options),
        Command::Transform(options) => transform::run(options),
        Command::Verify(options) => verify::run(options),
        #[cfg(target_os = "linux")]
        Command::Park(options) => park::run(options),
        #[cfg(target_os = "linux")]
        Command::Unpark(options) => unpark::run(options),
        Command::Decode(options) => decode::run(options),
        Command::Encode(options) => decode::encode(options),
        Command::Show(options) => decode::show(options),
        Command::Info(options) => decode::info(options),
        Command::X(options) => decode::explore(options),
        Command::Cc(options) => cc::run(options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain!("isamorph: {error:#}");
            ExitCode::FAILURE
        }
    }
}
