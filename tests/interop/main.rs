//! isamorph and stock CRIU (Debian 12's, on nodes with Debian's kernel) restore each other's images.
//!
//! ```text
//!   each node: ours→criu, criu→ours, ours→ours, park and unpark; trees for the other node, of ours and of
//!              what criu dumped of parked processes
//!   then, on the other node: criu and we restore those
//!   here: crit and `isamorph decode` agree on every file of every tree
//! ```
//!
//! Where CRIU itself does not carry something (`cases::LIMITS`), CRIU alone must fail in the same way.
//!
//! Runs only when `ISAMORPH_E2E=1`, as `migrations` does. `FILTER=TEXT` runs the cases with that in their names.
mod cases;
#[allow(dead_code, reason = "each suite uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod crit;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use cases::{Case, ORDINARY, PORTABLE};

/// Cases that one node runs at a time: they sleep more than they work.
const LANES: usize = 2;
/// The same of those that sleep nearly all of the time.
const TIMED_LANES: usize = 3;
const ISAS: [&str; 2] = ["x86_64", "aarch64"];

fn main() -> ExitCode {
    if std::env::var_os("ISAMORPH_E2E").is_none() {
        println!("interop: not run (ISAMORPH_E2E=1 runs it; cross/test does)");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let work = common::work_directory("interop")?;
    compile(&work)?;
    let filter = std::env::var("FILTER").unwrap_or_default();
    let mut all = cases::all();
    all.retain(|c| c.name().contains(&filter));
    let mut results = BTreeMap::new();
    go(&work, "", TIMED_LANES, &all, &mut results)?;
    // A timer that rings while CRIU dumps is in neither of its images: what sleeps long enough on an idle machine does not
    // on a busy one. Such cases are tried once more, one at a time.
    let again = |c: &&Case| {
        c.is_timed()
            && verdict(&all, &c.name(), &results)
                .is_err_and(|why| why.contains("waited <= ") || why.contains("no PASS"))
    };
    let again: Vec<Case> = all.iter().filter(again).copied().collect();
    if !again.is_empty() {
        println!("{} cases came too late and are tried once more", again.len());
        for case in &again {
            results.remove(&case.name());
            let dir = work.join("t").join(case.name());
            std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        go(&work, "again-", 1, &again, &mut results)?;
    }
    results.insert("crit-and-decode-agree".into(), crit::agrees(&work.join("t")).map(|_| ()));

    let (mut failed, mut passed) = (0, 0);
    for name in all.iter().map(Case::name).chain(["crit-and-decode-agree".into()]) {
        match verdict(&all, &name, &results) {
            Ok(()) => passed += 1,
            Err(why) => {
                failed += 1;
                println!("FAIL {name}: {why}");
            }
        }
    }
    println!("\ninterop: {passed} passed, {failed} failed");
    Ok(failed)
}

/// Both halves of the cases.
fn go(
    work: &Path,
    name: &str,
    timed_lanes: usize,
    cases: &[Case],
    results: &mut BTreeMap<String, Result<(), String>>,
) -> Result<(), String> {
    let first = |case: &Case, isa: &str| (case.from == isa).then(|| case.first());
    round(work, &format!("{name}first"), timed_lanes, cases, results, first)?;
    let on_their_way: Vec<Case> = cases.iter().copied().filter(|c| !results.contains_key(&c.name())).collect();
    let second = |case: &Case, isa: &str| (case.to == isa && case.to != case.from).then(|| case.second());
    round(work, &format!("{name}second"), timed_lanes, &on_their_way, results, second)
}

fn compile(work: &Path) -> Result<(), String> {
    let mut programs: Vec<_> = PORTABLE.iter().map(|p| p.0).collect();
    programs.sort_unstable();
    programs.dedup();
    for program in programs {
        common::compile_pair(work, program)?;
    }
    for (program, _) in ORDINARY {
        for (compiler, isa) in [("gcc", "x86_64"), ("aarch64-linux-gnu-gcc", "aarch64")] {
            let output = work.join(format!("{program}-ordinary-{isa}"));
            common::compile(Command::new(compiler).args(["-O2", "-static", "-o"]).arg(output), program)?;
        }
    }
    Ok(())
}

/// Runs what each node has to do, both at a time.
fn round(
    work: &Path,
    name: &str,
    timed_lanes: usize,
    cases: &[Case],
    results: &mut BTreeMap<String, Result<(), String>>,
    script: impl Fn(&Case, &str) -> Option<String>,
) -> Result<(), String> {
    if cases.is_empty() {
        return Ok(());
    }
    let scripts = ISAS.map(|isa| {
        let lanes = |timed: bool, count: usize| {
            let mut lanes = vec![String::new(); count];
            let mine = cases.iter().filter(|c| c.is_timed() == timed).filter_map(|c| script(c, isa));
            mine.enumerate().for_each(|(n, line)| lanes[n % count] += &line);
            lanes.iter().map(|lane| format!("(\n:\n{lane}) &\n")).collect::<String>() + "wait\n"
        };
        // CRIU finds out about the kernel once, and two of them at a time disturb each other.
        let prepare = "PATIENCE=500\ncriu check > /dev/null 2>&1\n";
        (isa, format!("{prepare}{}{}", lanes(false, LANES), lanes(true, timed_lanes)))
    });
    let outputs = std::thread::scope(|scope| {
        let threads = scripts
            .map(|(isa, body)| scope.spawn(move || common::run_script(work, isa, &format!("{name}-{isa}.sh"), &body)));
        threads.map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    });
    for output in outputs {
        results.extend(output?);
    }
    Ok(())
}

/// What a case's result is worth: where CRIU has a limit, both it and the control must show it.
fn verdict(all: &[Case], name: &str, results: &BTreeMap<String, Result<(), String>>) -> Result<(), String> {
    let result = |name: &str| results.get(name).cloned().unwrap_or_else(|| Err("never ended".into()));
    let found = result(name);
    let Some(case) = all.iter().find(|c| c.name() == name) else { return found };
    let Some(limit) = case.limit() else { return found };
    match found {
        Err(why) if why.contains(limit.says) => {}
        Err(why) => return Err(why),
        Ok(()) => return Err(format!("passes, although CRIU does not carry this: {}", limit.what)),
    }
    let control = case.control();
    match result(&control) {
        // The control itself.
        _ if control == name => Ok(()),
        Err(why) if why.contains(limit.says) => Ok(()),
        Err(why) => Err(format!("CRIU alone fails in another way: {why}")),
        Ok(()) => Err(format!("CRIU alone succeeds: {}", limit.what)),
    }
}
