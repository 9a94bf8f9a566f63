//! A dump never harms: killed at each step of its protocol, or at random moments, it leaves the process as it was.
//!
//! The process is `portable.c`: the real runtime with polls written by hand (parked), or the same frozen
//! wherever it is (`--no-park`). Needs root, and clang unless `ISAMORPH_TEST_PROGRAM` is what
//! `tests/dump/build` made; `ISAMORPH_TEST_SEED` replays the random moments.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use isamorph::portable::Executable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Every step that `ISAMORPH_STALL` knows, in order; those of parking only happen to a parked process.
const STEPS: [&str; 16] = [
    "surveyed",
    "seized",
    "stopped",
    "masked",
    "patched",
    "running",
    "cancelled",
    "parked",
    "unpatched",
    "frozen",
    "errand",
    "asked",
    "pages",
    "images",
    "written",
    "translated",
];
const OF_PARKING: [&str; 6] = ["masked", "patched", "running", "cancelled", "parked", "unpatched"];
/// What the issue allows.
const LIMIT: Duration = Duration::from_secs(2);

fn program() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        if let Some(path) = std::env::var_os("ISAMORPH_TEST_PROGRAM") {
            return (dir, path.into());
        }
        let path = dir.path().join("portable");
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dump/build");
        let status = Command::new(build).arg(std::env::consts::ARCH).arg(&path).status().unwrap();
        assert!(status.success(), "tests/dump/build failed");
        (dir, path)
    });
    path
}

/// A running process; killed when dropped.
struct Process {
    child: Child,
    dir: TempDir,
}

impl Process {
    fn start(what: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = File::create(dir.path().join("out")).unwrap();
        let mut command = Command::new(program());
        command.arg(what).stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).current_dir(dir.path());
        // SAFETY: setsid and close_range only; nothing is allocated after the fork.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                // What the test runner left open is none of the process's business.
                libc_close_from(3);
                Ok(())
            });
        }
        let process = Self { child: command.spawn().unwrap(), dir };
        process.wait_for(|text| text.contains("READY"));
        process
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn out(&self) -> String {
        fs::read_to_string(self.dir.path().join("out")).unwrap()
    }

    fn wait_for(&self, seen: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !seen(&self.out()) {
            assert!(start.elapsed() < Duration::from_secs(40), "only saw {:?}", self.out());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn lines(&self) -> usize {
        self.out().lines().count()
    }

    fn goes_on(&self) {
        let before = self.lines();
        self.wait_for(|text| text.lines().count() > before + 1);
        assert!(!self.out().contains("FAIL"), "{}", self.out());
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn dump(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph"));
        command.args(["dump", "-t", &self.pid().to_string(), "-R", "-D"]).arg(self.images()).args(more);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn descriptors(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        entries.map(|e| fs::read_link(e.unwrap().path()).unwrap()).collect()
    }

    /// Why the process is not yet as if nothing had happened.
    fn harm(&self, descriptors: &BTreeSet<PathBuf>) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("").trim().to_owned();
        if field("State:").starts_with(['t', 'T']) || field("TracerPid:") != "0" {
            return Some(format!("stopped or traced: {} {}", field("State:"), field("TracerPid:")));
        }
        if field("SigBlk:") != "0000000000000800" {
            return Some(format!("its signal mask is {}", field("SigBlk:")));
        }
        if self.descriptors() != *descriptors {
            return Some(format!("its descriptors are {:?}", self.descriptors()));
        }
        let executable = Executable::parse(fs::read(program()).unwrap()).unwrap();
        let range = executable.manifest.text.clone();
        let mut text = vec![0; (range.end - range.start) as usize];
        File::open(format!("/proc/{}/mem", self.pid())).unwrap().read_exact_at(&mut text, range.start).unwrap();
        if text != executable.range("text", &range).unwrap() {
            return Some("its text is not the file's".into());
        }
        if self.images().exists() {
            let names: Vec<_> = fs::read_dir(self.images()).unwrap().map(|e| e.unwrap().file_name()).collect();
            return Some(format!("images are left: {names:?}"));
        }
        None
    }

    fn unharmed_soon(&self, descriptors: &BTreeSet<PathBuf>, when: &str) {
        let start = Instant::now();
        while let Some(harm) = self.harm(descriptors) {
            assert!(start.elapsed() < LIMIT, "after a kill at {when}: {harm}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.goes_on();
    }

    fn dumps_well(&self, more: &[&str]) {
        let output = self.dump(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(self.images()).unwrap();
        self.goes_on();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn libc_close_from(first: u32) {
    // SAFETY: a plain system call, in a child between fork and exec.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

fn worker_of(pid: u32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

/// Starts a dump that stalls at `step`, and waits until it does.
fn stalled(process: &Process, step: &str, more: &[&str]) -> Child {
    let mut child = process.dump(more).env("ISAMORPH_STALL", step).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains(&format!("stalled at {step}")) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "no stall at {step}: {said}");
    }
    child
}

fn steps(parked: bool) -> impl Iterator<Item = &'static str> {
    STEPS.into_iter().filter(move |step| parked || !OF_PARKING.contains(step))
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn modes() -> [(&'static str, &'static [&'static str], bool); 2] {
    [("parked", &[], true), ("wherever it is", &["--no-park"], false)]
}

#[test]
fn the_command_killed_at_each_step() {
    if !root() {
        return;
    }
    for (mode, more, parked) in modes() {
        for what in ["loop", "sleep"] {
            let process = Process::start(what);
            let descriptors = process.descriptors();
            for step in steps(parked) {
                if what == "sleep" && ["patched", "running", "cancelled", "parked", "unpatched"].contains(&step) {
                    continue; // A thread that is in the stub already needs no polls.
                }
                let mut dump = stalled(&process, step, more);
                dump.kill().unwrap();
                dump.wait().unwrap();
                process.unharmed_soon(&descriptors, &format!("{step} ({mode}, {what})"));
            }
            process.dumps_well(more);
        }
    }
}

#[test]
fn the_worker_killed_at_each_step() {
    if !root() {
        return;
    }
    for (mode, more, parked) in modes() {
        let process = Process::start("loop");
        let descriptors = process.descriptors();
        for step in steps(parked) {
            let mut dump = stalled(&process, step, more);
            kill(Pid::from_raw(worker_of(dump.id())), Signal::SIGKILL).unwrap();
            assert!(!dump.wait().unwrap().success());
            process.unharmed_soon(&descriptors, &format!("{step} (worker, {mode})"));
        }
        process.dumps_well(more);
    }
}

#[test]
fn both_killed_and_the_next_dump_repairs() {
    if !root() {
        return;
    }
    for step in ["stopped", "patched", "running", "cancelled", "parked", "errand", "asked", "images"] {
        let process = Process::start("loop");
        let descriptors = process.descriptors();
        let mut dump = stalled(&process, step, &[]);
        let worker = worker_of(dump.id());
        // Stopped first, so that neither sees the other die.
        kill(Pid::from_raw(worker), Signal::SIGSTOP).unwrap();
        dump.kill().unwrap();
        dump.wait().unwrap();
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        println!("both killed at {step}");
        // With every poll taken it goes on, if slowly.
        let state = || fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let start = Instant::now();
        while !state().contains("TracerPid:\t0") || !state().contains("State:\tR") {
            assert!(start.elapsed() < LIMIT, "{}", state());
        }
        let _ = fs::remove_dir_all(process.images());
        process.dumps_well(&[]);
        let harm = process.harm(&descriptors).filter(|harm| !harm.contains("signal mask"));
        assert_eq!(harm, None, "after both died at {step}");
    }
}

#[test]
fn killed_at_random_moments() {
    if !root() {
        return;
    }
    let seed = std::env::var("ISAMORPH_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| std::process::id().into());
    println!("ISAMORPH_TEST_SEED={state}");
    let process = Process::start("loop");
    let descriptors = process.descriptors();
    for round in 0..20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = Duration::from_micros((state >> 33) % 60_000);
        let mut dump = process.dump(&[]).spawn().unwrap();
        std::thread::sleep(delay);
        dump.kill().unwrap();
        if dump.wait().unwrap().success() {
            fs::remove_dir_all(process.images()).unwrap();
        }
        // A dump that was complete before it was killed leaves its images.
        std::thread::sleep(Duration::from_millis(50));
        if process.images().join("stats-dump").exists() && process.images().join("inventory.img").exists() {
            fs::remove_dir_all(process.images()).unwrap();
        }
        process.unharmed_soon(&descriptors, &format!("{delay:?} (round {round})"));
    }
    process.dumps_well(&[]);
}

#[test]
fn blocked_calls_return_what_they_would_have() {
    if !root() {
        return;
    }
    for what in ["sleep", "epoll", "timedwait"] {
        let process = Process::start(what);
        // Early and late in the three seconds, so that what is left differs.
        for delay in [200, 1500, 2600] {
            std::thread::sleep(Duration::from_millis(delay));
            process.dumps_well(&[]);
        }
        assert!(!process.out().contains("FAIL"), "{what}: {}", process.out());
    }
}

#[test]
fn a_handler_is_let_out_first() {
    if !root() {
        return;
    }
    let process = Process::start("hot");
    kill(Pid::from_raw(process.pid()), Signal::SIGUSR1).unwrap();
    process.wait_for(|text| text.contains("handler 1"));
    let output = process.dump(&[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(process.out().contains("left 1"));
}

#[test]
fn a_parked_process_waits_in_the_gate() {
    if !root() {
        return;
    }
    let process = Process::start("loop");
    let run = |command: &str| {
        let pid = process.pid().to_string();
        Command::new(env!("CARGO_BIN_EXE_isamorph")).args([command, "-t", &pid]).output().unwrap()
    };
    assert!(run("park").status.success());
    let lines = process.lines();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(process.lines(), lines);
    // Signals wait, too: their handlers would leave the equivalence point.
    kill(Pid::from_raw(process.pid()), Signal::SIGUSR1).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(!process.out().contains("handler"), "{}", process.out());
    assert!(run("park").status.success(), "parking what is parked");
    assert!(run("unpark").status.success());
    process.wait_for(|text| text.contains("handler 1"));
    process.goes_on();
    let again = run("unpark");
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not parked"));
    process.goes_on();
}

#[test]
fn what_cannot_be_dumped_is_refused_by_name_and_goes_on() {
    if !root() {
        return;
    }
    let cases = [
        ("import socket; s = socket.socket()", "a socket"),
        ("import threading; threading.Thread(target=lambda: time.sleep(100)).start()", "2 threads"),
        ("import os; os.fork() or time.sleep(100)", "a child"),
        ("import os; f = open('gone', 'w'); os.unlink('gone')", "it was deleted"),
        ("import fcntl; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)", "a file lock"),
        ("import os; p = os.pipe(); os.close(p[0])", "a pipe to another process"),
    ];
    for (code, name) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", &format!("import time\n{code}\nprint('READY', flush=True)\ntime.sleep(100)")]);
        command.stdin(Stdio::null()).stdout(File::create(dir.path().join("out")).unwrap()).stderr(Stdio::null());
        command.current_dir(dir.path());
        // SAFETY: as above.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                libc_close_from(3);
                Ok(())
            });
        }
        let process = Process { child: command.spawn().unwrap(), dir };
        process.wait_for(|text| text.contains("READY"));
        let output = process.dump(&[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{code}: {said}");
        assert!(!process.images().exists());
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        assert!(status.contains("State:\tS"), "{status}");
        let _ = kill(Pid::from_raw(-process.pid()), Signal::SIGKILL);
    }
}
