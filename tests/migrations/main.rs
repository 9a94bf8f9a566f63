//! Moves every self-checking program of `tests/programs` in every direction, at random moments.
//!
//! ```text
//!   host (x86_64)                     node (aarch64)                     host (x86_64)
//!   native, x-x, dump of x-a, x-a-x ─▶ native-a, a-a, end of x-a,      ─▶ end of a-x, x-a-x
//!                                      dump of a-x, second half of x-a-x
//! ```
//!
//! One node is booted for all of them. `SEED=N` replays the moments of an earlier run, `FILTER=text`
//! chooses cases by name, `MOMENTS=N` says how often each direction is tried (default 2). It runs only
//! when `ISAMORPH_E2E=1`: it needs `cross/setup` and `cross/dist`, and takes minutes.
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod host;
mod node;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("ISAMORPH_E2E").is_none() {
        println!("migrations: not run (ISAMORPH_E2E=1 runs them; cross/test does)");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("migrations: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let plan = cases::Plan::from_env()?;
    println!("migrations: SEED={} MOMENTS={}, {} cases", plan.seed, plan.moments, plan.cases.len());
    let work = host::prepare(&plan)?;
    let mut outcomes = go(&work, &plan)?;
    if let Some(again) = plan.late(&outcomes) {
        println!("{} waits ended late; they are tried once more, one at a time", again.cases.len());
        outcomes.replace_by(&go(&work, &again)?);
    }
    Ok(outcomes.report(&plan, &work))
}

fn go(work: &Path, plan: &cases::Plan) -> Result<cases::Outcomes, String> {
    let mut outcomes = cases::Outcomes::default();
    host::first_half(work, plan, &mut outcomes);
    node::run(work, plan, &mut outcomes)?;
    host::second_half(work, plan, &mut outcomes);
    Ok(outcomes)
}
