//! A dump never harms: killed at each step of its protocol, or at random moments, it leaves the process as it was.
//!
//! The process is `portable.c`: the real runtime with polls written by hand (parked), or the same frozen
//! wherever it is (`--no-park`). Needs root, and compilers unless `ISAMORPH_TEST_PROGRAMS` is a directory with what
//! `tests/dump/build` makes; `ISAMORPH_TEST_BINARY` is the command if it is not where cargo put it; both are for a node.
//! `ISAMORPH_TEST_SEED` replays the random moments.
mod threads;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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

/// The directory with `portable` and `refused`.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<(Option<TempDir>, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAMS.get_or_init(|| {
        if let Some(path) = std::env::var_os("ISAMORPH_TEST_PROGRAMS") {
            return (None, path.into());
        }
        let dir = tempfile::tempdir().unwrap();
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dump/build");
        let status = Command::new(build).arg(std::env::consts::ARCH).arg(dir.path()).status().unwrap();
        assert!(status.success(), "tests/dump/build failed");
        let path = dir.path().to_owned();
        (Some(dir), path)
    });
    path
}

fn program() -> PathBuf {
    programs().join("portable")
}

fn isamorph() -> Command {
    Command::new(std::env::var_os("ISAMORPH_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_isamorph").into()))
}

/// A running process; killed when dropped.
struct Process {
    child: Child,
    dir: TempDir,
    /// It was restored under its old ID, and is nobody's child.
    detached: bool,
}

impl Process {
    fn start(what: &str) -> Self {
        Self::of("portable", what)
    }

    fn of(program: &str, what: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = File::create(dir.path().join("out")).unwrap();
        let mut command = Command::new(programs().join(program));
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
        let process = Self { child: command.spawn().unwrap(), dir, detached: false };
        process.wait_for(|text| text.contains("READY") || text.contains("UNAVAILABLE"));
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
        let mut command = isamorph();
        command.args(["dump", "-t", &self.pid().to_string(), "-R", "-D"]).arg(self.images()).args(more);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// A dump that ends the process, with something done half a second into it.
    fn dump_for_good(&self, env: &[(&str, &str)], meanwhile: impl FnOnce()) -> Output {
        let mut command = isamorph();
        command.args(["dump", "-t", &self.pid().to_string(), "-D"]).arg(self.images()).envs(env.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        meanwhile();
        child.wait_with_output().unwrap()
    }

    /// The same process, out of its images.
    fn restored(mut self) -> Self {
        self.child.wait().unwrap();
        let output = isamorph().args(["restore", "-d", "-D"]).arg(self.images()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.detached = true;
        self
    }

    fn descriptors(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        entries.map(|e| fs::read_link(e.unwrap().path()).unwrap()).collect()
    }

    /// Why the process is not yet as if nothing had happened.
    fn harm(&self, descriptors: &BTreeSet<PathBuf>) -> Option<String> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
            // One that ends in this moment is unharmed.
            let Ok(status) = fs::read_to_string(thread.unwrap().path().join("status")) else { continue };
            let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("").trim().to_owned();
            if field("State:").starts_with(['t', 'T']) || field("TracerPid:") != "0" {
                return Some(format!("thread {} is stopped or traced by {}", field("Pid:"), field("TracerPid:")));
            }
            if field("SigBlk:") != "0000000000000800" {
                return Some(format!("the signal mask of thread {} is {}", field("Pid:"), field("SigBlk:")));
            }
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
        // They may be being removed in this moment.
        if let Ok(entries) = fs::read_dir(self.images()) {
            let names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
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
        if self.detached {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGKILL);
        }
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
    for (mode, more, _) in modes() {
        let process = Process::start("loop");
        let descriptors = process.descriptors();
        // As long as a dump takes here.
        let begun = Instant::now();
        process.dumps_well(more);
        let span = begun.elapsed().as_micros() as u64;
        for round in 0..20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let delay = Duration::from_micros((state >> 33) % span.max(1));
            let mut dump = process.dump(more).spawn().unwrap();
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
            process.unharmed_soon(&descriptors, &format!("{delay:?} (round {round}, {mode})"));
        }
        process.dumps_well(more);
    }
}

#[test]
fn a_signal_that_comes_meanwhile_interrupts_the_call() {
    if !root() {
        return;
    }
    let (woken, again) = (|text: &str| text.contains("woken 1"), |text: &str| text.contains("woken 2"));
    let process = Process::start("pause");
    std::thread::sleep(Duration::from_millis(100));
    let mut dump = stalled(&process, "asked", &[]);
    kill(Pid::from_raw(process.pid()), Signal::SIGUSR1).unwrap();
    dump.kill().unwrap();
    dump.wait().unwrap();
    process.wait_for(woken);
    // Into the images, and out of them.
    let output = process.dump_for_good(&[("ISAMORPH_STALL", "frozen:300")], || {
        std::thread::sleep(Duration::from_millis(100));
        kill(Pid::from_raw(process.pid()), Signal::SIGUSR1).unwrap();
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let process = process.restored();
    process.wait_for(again);
    assert!(!process.out().contains("FAIL"), "{}", process.out());
}

#[test]
fn a_signal_that_is_let_in_comes_before_the_call_returns() {
    if !root() {
        return;
    }
    let process = Process::start("block");
    for _ in 0..25 {
        process.dumps_well(&[]);
    }
    assert!(!process.out().contains("FAIL"), "{}", process.out());
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
        isamorph().args([command, "-t", &pid]).output().unwrap()
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
        ("tcp", "a socket"),
        ("unix", "a socket"),
        ("netlink", "a socket"),
        ("leader", "a first thread that has ended"),
        ("thread-files", "descriptors of its own (its thread"),
        ("thread-directory", "a working directory of its own (its thread"),
        ("thread-net", "(net) (its thread"),
        ("thread-child", "a child"),
        ("child", "a child"),
        ("zombie", "a child"),
        ("deleted", "it was deleted"),
        ("replaced", "it was deleted"),
        ("mapped-deleted", "a mapping of the deleted file"),
        ("no-directory", "cwd at"),
        ("proc", "a file of /proc about itself"),
        ("flock", "a file lock"),
        ("posix-lock", "a file lock"),
        ("lease", "a file lock"),
        ("pipe", "a pipe to another process"),
        ("packets", "a pipe in packet mode"),
        ("fifo", "a named pipe"),
        ("memfd", "a memory file"),
        ("inotify", "inotify"),
        ("fanotify", "fanotify"),
        ("io_uring", "io_uring"),
        ("aio", "asynchronous I/O"),
        ("userfaultfd", "userfaultfd"),
        ("pidfd", "pidfd"),
        ("semaphore", "a semaphore eventfd"),
        ("epoll-closed", "an epoll instance that watches"),
        ("sysv-shm", "System V shared memory"),
        ("uts", "(uts)"),
        ("mnt", "(mnt)"),
        ("net", "(net)"),
        ("ipc", "(ipc)"),
        ("pid-for-children", "(pid) for its children"),
        ("seccomp", "a seccomp filter"),
        ("deadline", "SCHED_DEADLINE"),
    ];
    for (what, name) in cases {
        let process = Process::of("refused", what);
        if process.out().contains("UNAVAILABLE") {
            println!("not on this machine: {}", process.out().trim());
            continue;
        }
        // Refused while it runs: the step after the survey is never reached.
        let output = process.dump(&[]).env("ISAMORPH_STALL", "surveyed:1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{what}: {said}");
        assert!(!said.contains("stalled"), "{what} was refused too late: {said}");
        assert!(!process.images().exists());
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let state = if what == "leader" { "State:\tZ" } else { "State:\tS" };
        assert!(status.contains(state) && status.contains("TracerPid:\t0"), "{status}");
        let _ = kill(Pid::from_raw(-process.pid()), Signal::SIGKILL);
    }
}
