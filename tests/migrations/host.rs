//! The halves of the cases that run on this x86_64 machine.
use crate::cases::{Case, Outcomes, Plan, Route};
use crate::common;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest a program may take to end once it is told to stop.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Cases that compute, side by side.
pub const BUSY: usize = 2;

/// Builds the programs and makes the one directory that the node gets too.
pub fn prepare(plan: &Plan) -> Result<PathBuf, String> {
    let work = common::work_directory("migrations")?;
    for program in plan.programs().into_iter().chain(["launch"]) {
        common::compile_pair(&work, program)?;
    }
    Ok(work)
}

/// Everything up to the moment a case leaves for the node.
pub fn first_half(work: &Path, plan: &Plan, outcomes: &mut Outcomes) {
    let here: Vec<_> = plan.cases.iter().filter(|c| c.route.starts_on_host()).collect();
    side_by_side(&here, plan.waiting(), outcomes, |case| match (start_and_move(work, case), case.route) {
        (Ok(()), Route::XA | Route::XaX) => None,
        (result, _) => Some(result),
    });
}

/// The ends of the cases that came back from the node.
pub fn second_half(work: &Path, plan: &Plan, outcomes: &mut Outcomes) {
    let back: Vec<_> =
        plan.cases.iter().filter(|c| matches!(c.route, Route::AX | Route::XaX) && !outcomes.ended(c)).collect();
    side_by_side(&back, plan.waiting(), outcomes, |case| {
        let dir = work.join("t").join(&case.name);
        Some(restore(work, &dir.join("second/x86_64")).and_then(|()| finish(&dir, case.delays[2])))
    });
}

/// Does something with every case: those that compute [`BUSY`] at a time, then those that wait `waiting` at a time, so
/// that nothing disturbs their timing. Records what has an end.
fn side_by_side(
    cases: &[&Case],
    waiting: usize,
    outcomes: &mut Outcomes,
    act: impl Fn(&Case) -> Option<Result<(), String>> + Sync,
) {
    let outcomes = Mutex::new(outcomes);
    for (waits, workers) in [(false, BUSY), (true, waiting)] {
        let of_kind = Mutex::new(cases.iter().filter(|c| c.waits() == waits));
        let work = || {
            loop {
                let case = of_kind.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(case) = case else { return };
                if let Some(result) = act(case) {
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).record(case, result);
                }
            }
        };
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    }
}

fn start_and_move(work: &Path, case: &Case) -> Result<(), String> {
    let dir = work.join("t").join(&case.name);
    fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let out = File::create(dir.join("out")).map_err(|e| e.to_string())?;
    let err = out.try_clone().map_err(|e| e.to_string())?;
    let mut command = Command::new(work.join(format!("{}_x86-64", case.program)));
    command.arg(dir.join("stop")).arg(case.seed.to_string()).arg(case.variant);
    if !case.argument().is_empty() {
        command.arg(case.argument());
    }
    command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir(&dir);
    // SAFETY: setsid and close_range are async-signal-safe and touch no memory of ours.
    unsafe {
        command.pre_exec(|| {
            // Descriptors that whoever runs the tests forgot to close would be the program's: pipes to the outside.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            nix::unistd::setsid().map(drop).map_err(Into::into)
        });
    }
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    wait_for(&dir, "READY")?;
    sleep(case.delays[0]);
    if case.route == Route::NativeX {
        let result = finish(&dir, Duration::ZERO);
        drop(child.wait());
        return result;
    }
    let images = dir.join("first");
    let mut dump = Command::new(work.join("isamorph-x86_64"));
    dump.args(["dump", "-v4", "-o", "dump.log", "-t"]).arg(child.id().to_string()).arg("-D").arg(&images);
    if case.route != Route::XX {
        dump.args(["--arch", "aarch64"]);
    }
    let result = run(&mut dump);
    if result.is_err() {
        drop(child.kill());
    }
    drop(child.wait());
    result?;
    if case.route == Route::XX {
        restore(work, &images)?;
        return finish(&dir, case.delays[2]);
    }
    Ok(())
}

fn restore(work: &Path, images: &Path) -> Result<(), String> {
    run(Command::new(work.join("isamorph-x86_64"))
        .args(["restore", "-v4", "-o", "restore.log", "-d", "-D"])
        .arg(images))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// Lets the program work a little longer, tells it to stop, and reads what it found.
fn finish(dir: &Path, delay: Duration) -> Result<(), String> {
    sleep(delay);
    File::create(dir.join("stop")).map_err(|e| e.to_string())?;
    wait_for(dir, "PASS")
}

/// Waits for a line that starts with `word`; a FAIL line or too long a wait is an error.
fn wait_for(dir: &Path, word: &str) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(dir.join("out")).unwrap_or_default();
        if let Some(fail) = text.lines().find(|l| l.starts_with("FAIL")) {
            return Err(fail.into());
        }
        if text.lines().any(|l| l.starts_with(word)) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("no {word} within {PATIENCE:?}; out: {text:?}"));
        }
        sleep(Duration::from_millis(5));
    }
}
