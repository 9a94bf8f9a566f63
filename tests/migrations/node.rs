//! The halves of the cases that run on an aarch64 node: one script for all of them, one boot.
use crate::cases::{Case, Outcomes, Plan, Route};
use crate::common;
use std::fmt::Write as _;
use std::path::Path;

/// Runs the node's part of every case that has not ended yet.
pub fn run(work: &Path, plan: &Plan, outcomes: &mut Outcomes) -> Result<(), String> {
    let mut script = String::new();
    // Process IDs made on the node must be free on the host later: a range that the host is not using.
    let last: u32 =
        std::fs::read_to_string("/proc/sys/kernel/ns_last_pid").ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    let base = if last < 20_000 { 22_000 } else { 4_000 };
    let _ = writeln!(script, "echo {base} > /proc/sys/kernel/ns_last_pid");
    let mut any = false;
    for case in plan.cases.iter().filter(|c| !outcomes.ended(c)) {
        any = true;
        script.push_str(&steps(case));
    }
    if !any {
        return Ok(());
    }
    for (name, result) in common::run_script(work, "aarch64", "node.sh", &script)? {
        if let Some(case) = plan.cases.iter().find(|c| c.name == name) {
            outcomes.record(case, result);
        }
    }
    Ok(())
}

fn steps(case: &Case) -> String {
    let Case { name, program, variant, seed, delays, .. } = case;
    let [first, second, last] = delays.map(|d| d.as_secs_f64());
    let start = format!("start '{name}' {program}_aarch64 {seed} '{variant}' {first}");
    match case.route {
        Route::NativeX | Route::XX => String::new(),
        Route::NativeA => format!("{start} && finish '{name}' {last}\n"),
        Route::AA => {
            format!("{start} && dump '{name}' $PID first && restore '{name}' first && finish '{name}' {last}\n")
        }
        Route::XA => format!("restore '{name}' first/aarch64 && finish '{name}' {last}\n"),
        Route::AX => format!("{start} && dump '{name}' $PID second --arch x86_64\n"),
        Route::XaX => format!(
            "restore '{name}' first/aarch64 && sleep {second} && dump '{name}' $(cat \"$W/t/{name}/pid\") second --arch x86_64\n"
        ),
    }
}
