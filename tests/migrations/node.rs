//! The halves of the cases that run on an aarch64 node: one script for all of them, one boot.
use crate::cases::{Case, Outcomes, Plan, Route};
use crate::{common, host};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Runs the node's part of every case that has not ended yet.
pub fn run(work: &Path, plan: &Plan, outcomes: &mut Outcomes) -> Result<(), String> {
    let open: Vec<&Case> = plan.cases.iter().filter(|c| !outcomes.ended(c)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let mut script = format!("LAUNCH=\"$W/launch_$T {:x}\"\n", capabilities()?);
    // Process IDs made on the node must be free on the host later, and the other way round: as far away as can be.
    let _ = writeln!(script, "echo {} > /proc/sys/kernel/ns_last_pid", far_from_here());
    for (waits, workers) in [(false, host::BUSY), (true, plan.waiting())] {
        let cases: Vec<_> = open.iter().filter(|c| c.waits() == waits).collect();
        for worker in 0..workers {
            script.push_str("(\n");
            cases.iter().skip(worker).step_by(workers).for_each(|case| script.push_str(&steps(case)));
            script.push_str(":) &\n");
        }
        script.push_str("wait\n");
    }
    for (name, result) in common::run_script(work, "aarch64", "node.sh", &script)? {
        if let Some(case) = plan.cases.iter().find(|c| c.name == name) {
            outcomes.record(case, result);
        }
    }
    Ok(())
}

/// What this machine can grant a process that comes from the node.
fn capabilities() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).ok_or_else(|| "no CapBnd in status".into())
}

/// A process ID half the range away from those that this machine is using.
fn far_from_here() -> u32 {
    let number = |name: &str| -> Option<u32> {
        fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
    };
    // What a node with few processors has.
    const RANGE: u32 = 32_768;
    let last = number("ns_last_pid").unwrap_or(0);
    (last + RANGE / 2) % RANGE.min(number("pid_max").unwrap_or(RANGE)).max(1_000)
}

fn steps(case: &Case) -> String {
    let Case { name, program, variant, seed, delays, .. } = case;
    let [first, second, last] = delays.map(|d| d.as_secs_f64());
    let argument = case.argument();
    let start = format!("start '{name}' {program}_aarch64 {seed} '{variant}' {first} '{argument}'");
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
