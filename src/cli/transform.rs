//! `isamorph transform -D DIR --arch ARCH`: images of one instruction set to images of another.
use crate::transform::{self, Report};
use anyhow::{Context as _, Result};
use clap::Args;
use isamorph_arch::Isa;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `isamorph transform`.
#[derive(Args, Debug)]
pub struct Options {
    /// Directory of the images
    #[arg(short = 'D', long, value_name = "DIR")]
    images_dir: PathBuf,
    /// Instruction set to translate to: x86_64 or aarch64
    #[arg(long, value_name = "ARCH")]
    arch: Isa,
    /// Directory of the translated images [default: DIR/ARCH]
    #[arg(short, long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Directory of both executables [default: beside the path in the images]
    #[arg(long, value_name = "DIR")]
    pair: Option<PathBuf>,
    /// Make images that need no parent
    #[arg(long)]
    flatten: bool,
    /// Do everything but write
    #[arg(long)]
    check: bool,
    /// Print every frame on both instruction sets
    #[arg(long)]
    explain: bool,
}

/// Runs `isamorph transform`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(options: Options) -> Result<ExitCode> {
    let Options { images_dir, arch, out, pair, flatten, check, explain } = options;
    let doing = format!("translating {} to {arch}", images_dir.display());
    let options = transform::Options { images: images_dir, arch, out, pair, flatten, check, explain };
    print(&transform::transform(&options).context(doing)?);
    Ok(ExitCode::SUCCESS)
}

/// Prints what was done and what has to travel; also for `isamorph dump --arch`.
pub fn print(report: &Report) {
    for thread in &report.threads {
        say!("{}", thread.to_string().trim_end());
    }
    match &report.out {
        Some(out) => say!("{}: {} pages of its own", out.display(), report.pages),
        None => say!("can be translated: {} pages would change", report.pages),
    }
    say!("the other node needs, at the same paths:");
    for path in &report.travel {
        say!("  {}", path.display());
    }
}
