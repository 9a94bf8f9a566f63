//! The `isamorph` command: parse, dispatch, print the error.
use std::process::ExitCode;

fn main() -> ExitCode {
    isamorph::cli::main()
}
