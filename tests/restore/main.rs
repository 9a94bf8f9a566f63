//! A restored process has all the state it had, and a restore that fails leaves nothing behind.
//!
//! `state.c` gives itself state of every kind and checks it after the restore; `threads.c` does so in every thread. Needs
//! root and a C compiler.
mod damage;
mod images;
mod machine;
mod terminal;

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use isamorph::image::{Entry, ImageDir, ImageEntry, PageWriter, proto};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The program that has a mode. They are compiled here; `ISAMORPH_RESTORE_PROGRAMS` is a folder of those that were compiled
/// elsewhere, for machines without a compiler.
fn program(mode: &str) -> PathBuf {
    static PROGRAMS: OnceLock<TempDir> = OnceLock::new();
    let name = if mode == "threads" { "threads" } else { "state" };
    if let Some(folder) = std::env::var_os("ISAMORPH_RESTORE_PROGRAMS") {
        return PathBuf::from(folder).join(name);
    }
    let programs = PROGRAMS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        for name in ["state", "threads"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/restore/{name}.c"));
            let flags = ["-std=gnu11", "-O1", "-Wall", "-Wno-format-security", "-frounding-math", "-pthread"];
            let mut cc = Command::new("cc");
            let status = cc.args(flags).arg("-o").arg(dir.path().join(name)).arg(source).arg("-lm").status().unwrap();
            assert!(status.success(), "{name}.c does not compile");
        }
        // Users without privileges run it, too.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), readable).unwrap();
        dir
    });
    programs.path().join(name)
}

/// A process and its images.
struct Dumped {
    dir: TempDir,
    pid: i32,
}

fn wait_for(path: &Path, wanted: &str) {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(!text.contains("FAIL"), "{text}");
        if text.contains(wanted) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waiting for {wanted:?}, saw {text:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(dir: &Path, mode: &str) -> Child {
    let out = File::create(dir.join("out")).unwrap();
    let mut command = Command::new(program(mode));
    command.arg(mode).stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).current_dir(dir);
    // SAFETY: setsid and close_range only; nothing is allocated after the fork.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, 4 /* CLOEXEC */);
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    wait_for(&dir.join("out"), "READY");
    child
}

impl Dumped {
    fn new(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), readable).unwrap();
        let mut child = start(dir.path(), mode);
        let pid = child.id() as i32;
        let dump = Command::new(env!("CARGO_BIN_EXE_isamorph"))
            .args(["dump", "--no-park", "-t", &pid.to_string(), "-D"])
            .arg(dir.path().join("images"))
            .output()
            .unwrap();
        assert!(dump.status.success(), "dump: {}", String::from_utf8_lossy(&dump.stderr));
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        Self { dir, pid }
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn tree(&self) -> ImageDir {
        ImageDir::open(self.images()).unwrap()
    }

    fn restore(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph"));
        command.arg("restore").arg("-D").arg(self.images()).arg("--pidfile").arg(self.pidfile());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn pidfile(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    /// Restores, lets it check itself, and returns how the command ended.
    fn run(&self) -> Output {
        self.run_as(&mut self.restore())
    }

    fn run_as(&self, restore: &mut Command) -> Output {
        let child = restore.spawn().unwrap();
        let start = Instant::now();
        while !self.pidfile().exists() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        // The process may not be released in this very moment; signals wait for it.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGUSR2);
        child.wait_with_output().unwrap()
    }

    /// A restore that must fail, with this in its message.
    fn refused(&self, wanted: &str) {
        let output = self.restore().arg("-d").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        assert_eq!(output.status.code(), Some(1), "wanted {wanted:?}, got {said:?}");
        assert!(said.contains(wanted), "wanted {wanted:?}, got {said:?}");
        assert!(!self.pidfile().exists(), "a failed restore left its pidfile");
        assert!(!Path::new(&format!("/proc/{}", self.pid)).exists(), "a failed restore left a process");
    }

    fn edit_core(&self, change: impl FnOnce(&mut proto::CoreEntry)) {
        self.edit::<proto::CoreEntry>(self.pid as u64, |entries| change(entries[0].edit().unwrap()));
    }

    /// Changes an image.
    fn edit<T: ImageEntry>(&self, id: impl Into<Option<u64>>, change: impl FnOnce(&mut Vec<Entry<T>>)) {
        let id = id.into();
        let mut entries = self.tree().read_or_empty::<T>(id).unwrap();
        change(&mut entries);
        self.tree().write(id, &entries).unwrap();
    }

    /// Restores it, and it must find everything as it was.
    fn runs(&self) {
        let output = self.run();
        let text = fs::read_to_string(self.dir.path().join("out")).unwrap();
        assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn all_state_is_restored_and_the_exit_status_passed_through() {
    let dumped = Dumped::new("root");
    let output = dumped.run();
    let text = fs::read_to_string(dumped.dir.path().join("out")).unwrap();
    assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("OK\n"), "{text}");
    assert_eq!(fs::read_to_string(dumped.pidfile()).unwrap(), dumped.pid.to_string());
}

#[test]
fn a_process_without_privileges_stays_without() {
    let dumped = Dumped::new("nobody");
    let output = dumped.run();
    let text = fs::read_to_string(dumped.dir.path().join("out")).unwrap();
    assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_thread_has_its_own_state() {
    let dumped = Dumped::new("threads");
    let output = dumped.run();
    let text = fs::read_to_string(dumped.dir.path().join("out")).unwrap();
    assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("OK\n"), "{text}");
}

#[test]
fn nothing_of_the_restorer_is_left_in_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), "root");
    let pid = child.id() as i32;
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let links = || {
        let mut all: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap())
            .collect();
        all.sort_unstable();
        all
    };
    let kept =
        ["Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "CapInh", "CapPrm"];
    let kept = [&kept[..], &["CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"]].concat();
    let status = || -> Vec<String> {
        let key = |l: &str| l.split(':').next().unwrap_or_default().to_owned();
        of("status").lines().filter(|l| kept.contains(&key(l).as_str())).map(str::to_owned).collect()
    };
    // Without inode numbers, which shared memory has new ones of, and without the lowest address of
    // the stack: the dump puts a signal frame below it, which may make it grow by a page.
    let maps = || -> Vec<String> {
        let line = |l: &str| {
            let l = if l.ends_with("[stack]") { l.split_once('-').map_or(l, |(_, rest)| rest) } else { l };
            let words: Vec<&str> = l.split_whitespace().collect();
            [&words[..3], &words[5..]].concat().join(" ")
        };
        of("maps").lines().map(line).collect()
    };
    let facts = || {
        let mut all =
            vec![("status", status().join("\n")), ("maps", maps().join("\n")), ("fd", format!("{:?}", links()))];
        all.extend(
            ["limits", "timers", "oom_score_adj", "cmdline", "environ", "personality"].map(|file| (file, of(file))),
        );
        all
    };
    let before = facts();
    let images = dir.path().join("images");
    let dump = Command::new(env!("CARGO_BIN_EXE_isamorph"))
        .args(["dump", "--no-park", "-t", &pid.to_string(), "-D"])
        .arg(&images)
        .output()
        .unwrap();
    assert!(dump.status.success(), "dump: {}", String::from_utf8_lossy(&dump.stderr));
    child.wait().unwrap();
    let pidfile = dir.path().join("pid");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph"));
    let restore = command.arg("restore").arg("-D").arg(&images).arg("--pidfile").arg(&pidfile).spawn().unwrap();
    wait_for(&pidfile, &pid.to_string());
    std::thread::sleep(Duration::from_millis(50));
    for (before, after) in before.into_iter().zip(facts()) {
        assert_eq!(after, before);
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(restore.wait_with_output().unwrap().status.code(), Some(128 + 9));
}

#[test]
fn bad_images_are_refused_by_name_and_leave_nothing() {
    let dumped = Dumped::new("root");
    let images = dumped.images();
    let keep = |name: &str| fs::read(images.join(name)).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(images.join(name), bytes).unwrap();

    // Every image cut in the middle, and missing.
    for entry in fs::read_dir(&images).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("stats") || name.starts_with("ids-") || !name.ends_with(".img") {
            continue;
        }
        let whole = keep(&name);
        put(&name, &whole[..whole.len() / 2 + 1]);
        dumped.refused(&name);
        let optional = ["timens-0.img", "pipes-data.img"].contains(&name.as_str());
        fs::remove_file(images.join(&name)).unwrap();
        if !optional {
            dumped.refused("");
        }
        put(&name, &whole);
    }

    // A failure in the middle of the restore, when half of the process is there.
    let core = format!("core-{}.img", dumped.pid);
    let whole = keep(&core);
    dumped.edit_core(|c| c.tc.as_mut().unwrap().personality = u32::MAX);
    dumped.edit_core(|c| c.thread_core.as_mut().unwrap().futex_rla_len = 7);
    dumped.edit_core(|c| c.thread_core.as_mut().unwrap().futex_rla = 4096);
    dumped.refused("robust futex list");
    put(&core, &whole);

    // Two threads, another instruction set, a namespace.
    dumped.edit_core(|c| c.mtype = if c.mtype == 1 { 3 } else { 1 });
    dumped.refused("isamorph transform -D");
    put(&core, &whole);
    let ids = format!("ids-{}.img", dumped.pid);
    let whole_ids = keep(&ids);
    let mut entries = dumped.tree().read::<proto::TaskKobjIdsEntry>(dumped.pid as u64).unwrap();
    entries[0].edit().unwrap().net_ns_id = Some(4711);
    dumped.tree().write(dumped.pid as u64, &entries).unwrap();
    dumped.refused("network namespace");
    put(&ids, &whole_ids);
    dumped.edit_core(|c| c.thread_core.as_mut().unwrap().seccomp_mode = Some(2));
    dumped.refused("seccomp");
    put(&core, &whole);

    // Files that are not what they were.
    let file = dumped.dir.path().join("file");
    let contents = fs::read(&file).unwrap();
    fs::write(&file, &contents[1..]).unwrap();
    dumped.refused("bring back the file as it was");
    fs::remove_file(&file).unwrap();
    dumped.refused("must be brought along");
    fs::write(&file, &contents).unwrap();

    // A process ID in use.
    let thief = Command::new(env!("CARGO_BIN_EXE_isamorph")).arg("restore").arg("-D").arg(&images).spawn().unwrap();
    let start = Instant::now();
    while !Path::new(&format!("/proc/{}", dumped.pid)).exists() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = dumped.restore().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("pid {} is in use", dumped.pid)), "{said}");
    let _ = kill(Pid::from_raw(dumped.pid), Signal::SIGUSR2);
    assert_eq!(thief.wait_with_output().unwrap().status.code(), Some(42));
}

#[test]
fn pages_come_through_chains_of_trees_and_a_missing_parent_is_named() {
    let dumped = Dumped::new("root");
    let child = ImageDir::create(dumped.dir.path().join("images/child")).unwrap();
    for entry in fs::read_dir(dumped.images()).unwrap() {
        let name = entry.unwrap().file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".img") && !text.starts_with("pages-") && !text.starts_with("pagemap-") {
            fs::copy(dumped.images().join(&name), child.path().join(&name)).unwrap();
        }
    }
    let pid = dumped.pid as u64;
    let (_, runs) = isamorph::image::read_runs(&dumped.tree(), isamorph::image::ImageKind::Pagemap, pid).unwrap();
    child.link_parent("..").unwrap();
    let pages = isamorph::image::PageReader::open(&dumped.tree(), pid).unwrap();
    let mut writer = PageWriter::create(&child, pid, 1).unwrap();
    for (n, run) in runs.iter().enumerate() {
        if n % 3 == 0 {
            let mut bytes = vec![0; (run.pages * 4096) as usize];
            pages.read(run.addr, &mut bytes).unwrap();
            writer.present(run.addr, &bytes).unwrap();
        } else {
            writer.in_parent(run.addr, run.pages).unwrap();
        }
    }
    writer.finish().unwrap();
    // Shared memory has stores of its own.
    for (kind, id) in dumped.tree().images().unwrap() {
        if kind == isamorph::image::ImageKind::ShmemPagemap {
            let id = id.unwrap();
            let (pages_id, _) = isamorph::image::read_runs(&dumped.tree(), kind, id).unwrap();
            for name in [format!("pagemap-shmem-{id}.img"), format!("pages-{pages_id}.img")] {
                fs::copy(dumped.images().join(&name), child.path().join(&name)).unwrap();
            }
        }
    }
    let dumped = Dumped { dir: dumped.dir, pid: dumped.pid };
    let away = dumped.dir.path().join("away");
    fs::rename(child.path(), &away).unwrap();
    let parent = dumped.images();
    let whole = dumped.dir.path().join("whole");
    fs::rename(&parent, &whole).unwrap();
    fs::rename(&away, &parent).unwrap();
    dumped.refused("--flatten");
    fs::remove_file(parent.join("parent")).unwrap();
    dumped.refused("--flatten");
    dumped.tree().link_parent("../whole").unwrap();
    let output = dumped.run();
    let text = fs::read_to_string(dumped.dir.path().join("out")).unwrap();
    assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
