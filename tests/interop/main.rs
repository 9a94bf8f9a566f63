//! isamorph and stock CRIU (Debian 12's, on nodes with Debian's kernel) restore each other's images.
//!
//! ```text
//!   x86_64 node: ours→criu, criu→ours, park + criu dump, trees for aarch64
//!   aarch64 node: the same natively; criu and we restore the translated trees; trees for x86_64
//!   x86_64 node: criu and we restore those
//!   here: crit decodes every file of every tree
//! ```
//!
//! Runs only when `ISAMORPH_E2E=1`, as `migrations` does.
#[allow(dead_code, reason = "each suite uses a part")]
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Portable programs that take part, and a variant of each.
const PORTABLE: &[(&str, &str)] = &[
    ("callbacks", ""),
    ("files", ""),
    ("hotloop", ""),
    ("signals", ""),
    ("stdio", ""),
    ("tls", ""),
    ("blocked", "nanosleep"),
    ("blocked", "read"),
    ("blocked", "epoll_wait"),
];

/// Programs that an ordinary compiler makes: dumped wherever they are.
const ORDINARY: &[(&str, &str)] = &[("callbacks", ""), ("files", ""), ("signals", ""), ("blocked", "read")];

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

type Results = BTreeMap<String, Option<Result<(), String>>>;

fn run() -> Result<usize, String> {
    let work = common::work_directory("interop")?;
    let mut programs: Vec<_> = PORTABLE.iter().map(|p| p.0).collect();
    programs.dedup();
    for program in programs {
        common::compile_pair(&work, program)?;
    }
    for (program, _) in ORDINARY {
        for (compiler, isa) in [("gcc", "x86_64"), ("aarch64-linux-gnu-gcc", "aarch64")] {
            let output = work.join(format!("{program}-ordinary-{isa}"));
            common::compile(Command::new(compiler).args(["-O2", "-static", "-o"]).arg(output), program)?;
        }
    }
    let mut results = Results::new();
    let first = native(&mut results, "x86_64") + &leave(&mut results, "x86_64", "aarch64");
    record(&mut results, common::run_script(&work, "x86_64", "first.sh", &first)?);
    let second = native(&mut results, "aarch64")
        + &arrive(&results, "x86_64", "aarch64")
        + &leave(&mut results, "aarch64", "x86_64");
    record(&mut results, common::run_script(&work, "aarch64", "second.sh", &second)?);
    let third = arrive(&results, "aarch64", "x86_64");
    record(&mut results, common::run_script(&work, "x86_64", "third.sh", &third)?);
    results.insert("crit-decodes-every-file".into(), Some(crit_decodes(&work.join("t"))));

    let mut failed = 0;
    for (name, result) in &results {
        match result {
            Some(Ok(())) => {}
            Some(Err(why)) => {
                failed += 1;
                println!("{name}: {why}");
            }
            None => {
                failed += 1;
                println!("{name}: never ended");
            }
        }
    }
    println!("\ninterop: {} passed, {failed} failed", results.len() - failed);
    Ok(failed)
}

fn record(results: &mut Results, found: Vec<common::CaseResult>) {
    for (name, result) in found {
        // The first word counts: a case that failed on one node is not saved by the next.
        let entry = results.entry(name).or_insert(None);
        if !matches!(entry, Some(Err(_))) {
            *entry = Some(result);
        }
    }
}

fn case(results: &mut Results, parts: &[&str]) -> String {
    let name = parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("-");
    results.insert(name.clone(), None);
    name
}

fn suffix(isa: &str) -> &'static str {
    if isa == "x86_64" { "x86-64" } else { "aarch64" }
}

/// Both tools restore each other's images of processes that stay on their ISA.
fn native(results: &mut Results, isa: &str) -> String {
    let mut script = String::new();
    for (program, variant) in PORTABLE {
        let exe = format!("{program}_{}", suffix(isa));
        let c = case(results, &[isa, "portable", program, variant, "ours-criu"]);
        script += &format!(
            "start {c} {exe} 11 '{variant}' 0.3 && dump {c} $PID img && criu_restore {c} img && finish {c} 0.2\n"
        );
        let c = case(results, &[isa, "portable", program, variant, "criu-ours"]);
        script += &format!(
            "start {c} {exe} 12 '{variant}' 0.3 && criu_dump {c} $PID img && restore {c} img && finish {c} 0.2\n"
        );
        let c = case(results, &[isa, "portable", program, variant, "park-unpark"]);
        script += &format!(
            "start {c} {exe} 13 '{variant}' 0.3 && park {c} $PID && sleep 0.1 && unpark {c} $PID && finish {c} 0.2\n"
        );
    }
    for (program, variant) in ORDINARY {
        let exe = format!("{program}-ordinary-{isa}");
        let c = case(results, &[isa, "ordinary", program, variant, "ours-criu"]);
        script += &format!(
            "start {c} {exe} 14 '{variant}' 0.3 && dump {c} $PID img && criu_restore {c} img && finish {c} 0.2\n"
        );
        let c = case(results, &[isa, "ordinary", program, variant, "criu-ours"]);
        script += &format!(
            "start {c} {exe} 15 '{variant}' 0.3 && criu_dump {c} $PID img && restore {c} img && finish {c} 0.2\n"
        );
        let c = case(results, &[isa, "ordinary", program, variant, "ours-ours"]);
        script +=
            &format!("start {c} {exe} 16 '{variant}' 0.3 && dump {c} $PID img && restore {c} img && finish {c} 0.2\n");
    }
    script
}

/// Trees translated for the other ISA: from our dumps, and from CRIU's of parked processes.
fn leave(results: &mut Results, from: &str, to: &str) -> String {
    let mut script = String::new();
    for (program, variant) in PORTABLE {
        let exe = format!("{program}_{}", suffix(from));
        let c = case(results, &[from, "to", to, program, variant, "ours-criu"]);
        script += &format!("start {c} {exe} 21 '{variant}' 0.3 && dump {c} $PID img --arch {to}\n");
        let c = case(results, &[from, "to", to, program, variant, "criu-ours"]);
        script += &format!(
            "start {c} {exe} 22 '{variant}' 0.3 && park {c} $PID && criu_dump {c} $PID img && transform {c} img {to}\n"
        );
        let c = case(results, &[from, "to", to, program, variant, "criu-criu"]);
        script += &format!(
            "start {c} {exe} 23 '{variant}' 0.3 && park {c} $PID && criu_dump {c} $PID img && transform {c} img {to}\n"
        );
    }
    script
}

fn arrive(results: &Results, from: &str, to: &str) -> String {
    let mut script = String::new();
    for (name, result) in results {
        if result.is_none() && name.starts_with(&format!("{from}-to-{to}-")) {
            let restore = if name.ends_with("-criu") { "criu_restore" } else { "restore" };
            script += &format!("{restore} {name} img/{to} && finish {name} 0.2\n");
        }
    }
    script
}

/// CRIU's own image tool must understand all that we and CRIU wrote.
fn crit_decodes(trees: &Path) -> Result<(), String> {
    let mut images = Vec::new();
    collect(trees, &mut images).map_err(|e| e.to_string())?;
    let mut complaints = Vec::new();
    for image in &images {
        let output = Command::new("crit")
            .args(["decode", "-i"])
            .arg(image)
            .output()
            .map_err(|e| format!("crit: {e}: apt-get install criu"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            complaints.push(format!("{}: {}", image.display(), why.lines().last().unwrap_or_default()));
        }
    }
    if images.is_empty() {
        return Err("no image was found".into());
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

fn collect(dir: &Path, images: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), images)?;
        } else if name.ends_with(".img") && !name.starts_with("pages-") {
            images.push(entry.path());
        }
    }
    Ok(())
}
