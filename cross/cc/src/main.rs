//! `isamorph-cc`: a drop-in `cc` that makes pairs of portable executables.
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(isamorph_cc::driver::run(std::env::args_os().skip(1).collect()))
}
