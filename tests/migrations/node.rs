//! The halves of the cases that run on an aarch64 node: one script for all of them, one boot.
use crate::cases::{Case, Outcomes, Plan, Route};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Shell functions of the node's script; `$W` is the work directory.
const PRELUDE: &str = r#"
finish() { # case seconds-before-the-stop
    sleep "$2"; : > "$W/t/$1/stop"; i=0
    while [ $i -lt 1200 ]; do
        if grep -q '^FAIL' "$W/t/$1/out"; then echo "RESULT $1 $(grep '^FAIL' "$W/t/$1/out" | head -n 1)"; return; fi
        if grep -q '^PASS' "$W/t/$1/out"; then echo "RESULT $1 ok"; return; fi
        i=$((i+1)); sleep 0.05
    done
    echo "RESULT $1 no PASS on the node: $(tail -n 1 "$W/t/$1/out")"
}
start() { # case program seed variant seconds
    mkdir -p "$W/t/$1"; cd "$W/t/$1"
    setsid "$W/$2_aarch64" "$W/t/$1/stop" "$3" "$4" < /dev/null > out 2>&1 &
    PID=$!; i=0
    while ! grep -q '^READY' out; do i=$((i+1)); [ $i -gt 400 ] && { echo "RESULT $1 did not start"; return 1; }; sleep 0.05; done
    sleep "$5"
}
dump() { # case pid folder arch...
    if ! E=$("$W/isamorph-aarch64" dump -v4 -o dump.log -t "$2" -D "$W/t/$1/$3" $4 $5 2>&1 < /dev/null); then
        kill -9 "$2"; echo "RESULT $1 dump on the node: $E"; return 1
    fi
}
restore() { # case folder
    if ! E=$("$W/isamorph-aarch64" restore -v4 -o restore.log -d --pidfile "$W/t/$1/pid" -D "$W/t/$1/$2" 2>&1 < /dev/null); then
        echo "RESULT $1 restore on the node: $E"; return 1
    fi
}
"#;

/// Runs the node's part of every case that has not ended yet.
pub fn run(work: &Path, plan: &Plan, outcomes: &mut Outcomes) -> Result<(), String> {
    let mut script = format!("W={}\n{PRELUDE}", work.display());
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
    let path = work.join("node.sh");
    std::fs::write(&path, script).map_err(|e| format!("{}: {e}", path.display()))?;
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/node");
    let output = Command::new(&node)
        .args(["run", "--isa", "aarch64", "--mem", "4096", "--dir"])
        .arg(work)
        .arg("--")
        .arg("sh")
        .arg(&path)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", node.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("RESULT ") else {
            println!("node: {line}");
            continue;
        };
        let (name, result) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(case) = plan.cases.iter().find(|c| c.name == name) {
            outcomes.record(case, if result == "ok" { Ok(()) } else { Err(result.into()) });
        }
    }
    if !output.status.success() {
        return Err(format!("the node's script ended with {}", output.status));
    }
    Ok(())
}

fn steps(case: &Case) -> String {
    let Case { name, program, variant, seed, delays, .. } = case;
    let [first, second, last] = delays.map(|d| d.as_secs_f64());
    let start = format!("start '{name}' {program} {seed} '{variant}' {first}");
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
