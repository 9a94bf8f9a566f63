//! What the suites that need nodes share: the work directory, and scripts run on a node.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Makes the one directory that nodes get too, with `dist/`'s binaries in it.
pub fn work_directory(name: &str) -> Result<PathBuf, String> {
    let work = root().join("target").join(name);
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    }
    fs::create_dir_all(work.join("t")).map_err(|e| format!("{}: {e}", work.display()))?;
    for isa in ["x86_64", "aarch64"] {
        let from = root().join(format!("dist/isamorph-{isa}"));
        fs::copy(&from, work.join(format!("isamorph-{isa}")))
            .map_err(|e| format!("{}: {e}; cross/dist makes it", from.display()))?;
    }
    Ok(work)
}

/// Compiles `tests/programs/PROGRAM.c` to a pair in the work directory.
pub fn compile_pair(work: &Path, program: &str) -> Result<(), String> {
    let cc = std::env::var_os("ISAMORPH_CC").map_or_else(|| root().join("target/release/isamorph-cc"), PathBuf::from);
    compile(Command::new(cc).args(["-O2", "-g", "-o"]).arg(work.join(program)), program)
}

/// Runs a C compiler's command line on a program of `tests/programs`, or of this directory.
pub fn compile(command: &mut Command, program: &str) -> Result<(), String> {
    let sources = ["programs", "common"].map(|dir| root().join(format!("tests/{dir}/{program}.c")));
    let source =
        sources.iter().find(|path| path.exists()).ok_or_else(|| format!("{} is missing", sources[0].display()))?;
    let status = command.arg(source).arg("-lm").status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// How one case ended: its name, and what was wrong.
pub type CaseResult = (String, Result<(), String>);

/// Runs a script on one fresh node; the pairs (case, result) that it printed.
///
/// # Errors
/// The node did not boot, or the script itself failed.
pub fn run_script(work: &Path, isa: &str, name: &str, body: &str) -> Result<Vec<CaseResult>, String> {
    // Cases say how they ended; the script's own status is about the node.
    let script = format!("W={}\n{}\n{body}\nexit 0\n", work.display(), include_str!("node.sh"));
    let path = work.join(name);
    fs::write(&path, script).map_err(|e| format!("{}: {e}", path.display()))?;
    let node = root().join("cross/node");
    // In files, so that one can look on.
    let log = |extension| {
        let path = path.with_extension(extension);
        fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let status = Command::new(&node)
        .args(["run", "--isa", isa, "--cpus", "2", "--mem", "4096", "--dir"])
        .arg(work)
        .args(["--", "sh"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(log("out")?)
        .stderr(log("err")?)
        .status()
        .map_err(|e| format!("{}: {e}", node.display()))?;
    let out = path.with_extension("out");
    let printed = fs::read(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut results = Vec::new();
    for line in String::from_utf8_lossy(&printed).lines() {
        match line.strip_prefix("RESULT ").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            Some((case, "ok")) => results.push((case.to_owned(), Ok(()))),
            Some((case, why)) => results.push((case.to_owned(), Err(why.to_owned()))),
            None => println!("{isa} node: {line}"),
        }
    }
    if !status.success() {
        return Err(format!(
            "{name} on the {isa} node ended with {status}; see {}",
            path.with_extension("err").display()
        ));
    }
    Ok(results)
}
