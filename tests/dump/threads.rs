//! The same of a process with several threads, and what parking them has of its own: handlers that others wait for, faults.
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Process, isamorph, modes, root, stalled, steps, worker_of};

#[test]
fn every_thread_is_unharmed() {
    if !root() {
        return;
    }
    for (mode, more, parked) in modes() {
        let process = Process::start("many");
        let descriptors = process.descriptors();
        for step in steps(parked) {
            for worker in [false, true] {
                let mut dump = stalled(&process, step, more);
                let killed = if worker { worker_of(dump.id()) } else { dump.id() as i32 };
                kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
                assert!(!dump.wait().unwrap().success());
                process.unharmed_soon(&descriptors, &format!("{step} ({mode}, worker: {worker})"));
            }
        }
        process.dumps_well(more);
    }
}

#[test]
fn threads_are_parked_around_a_handler() {
    if !root() {
        return;
    }
    let process = Process::start("many");
    for n in 1..4 {
        kill(Pid::from_raw(process.pid()), Signal::SIGUSR1).unwrap();
        process.wait_for(|text| text.contains(&format!("handler {n}")));
        process.dumps_well(&[]);
        assert!(process.out().contains(&format!("left {n}")));
    }
    let output = process.dump_for_good(&[], || {});
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    process.restored().goes_on();
}

#[test]
fn the_handler_of_a_fault_returns_to_the_threads_own_mask() {
    if !root() {
        return;
    }
    let process = Process::start("faults");
    let descriptors = process.descriptors();
    for n in 0..30 {
        let output = process.dump(&[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(process.images()).unwrap();
        assert_eq!(process.harm(&descriptors).filter(|harm| !harm.contains("is 0000000000000c00")), None, "dump {n}");
    }
    process.goes_on();
}

#[test]
fn a_handler_may_wait_for_another_thread() {
    if !root() {
        return;
    }
    let process = Process::start("wait");
    process.goes_on();
    for n in 1..4 {
        // To the thread that does not answer.
        // SAFETY: a plain system call.
        unsafe { libc::syscall(libc::SYS_tgkill, process.pid(), process.pid(), libc::SIGUSR1) };
        process.wait_for(|text| text.contains(&format!("handler {n}")));
        let output = process.dump(&[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(process.out().contains(&format!("left {n}")));
        fs::remove_dir_all(process.images()).unwrap();
    }
    process.goes_on();
    assert_eq!(process.harm(&process.descriptors()), None);
}

#[test]
fn a_thread_that_does_not_get_there_is_named() {
    if !root() {
        return;
    }
    let process = Process::start("does not return");
    process.goes_on();
    let descriptors = process.descriptors();
    let tids = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let mut tids = tids.map(|e| e.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap());
    let tid = tids.find(|tid| *tid != process.pid()).unwrap();
    // SAFETY: a plain system call.
    unsafe { libc::syscall(libc::SYS_tgkill, process.pid(), tid, libc::SIGUSR1) };
    process.wait_for(|text| text.contains("handler 1"));
    let output = process.dump(&["--timeout", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&format!("thread {tid} is in a signal handler, at ")), "{said}");
    // The handler's own mask; the leader's comes first.
    let harm = process.harm(&descriptors).filter(|harm| !harm.ends_with("is 0000000000000a00"));
    assert_eq!(harm, None);
    process.goes_on();
    // As it is, it can be dumped.
    process.dumps_well(&["--no-park"]);
}

#[test]
fn every_thread_waits_in_the_gate() {
    if !root() {
        return;
    }
    let process = Process::start("many");
    let descriptors = process.descriptors();
    let run = |command: &str| {
        let output = isamorph().args([command, "-t", &process.pid().to_string()]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for _ in 0..3 {
        run("park");
        let lines = process.lines();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(process.lines(), lines);
        run("park");
        run("unpark");
        process.unharmed_soon(&descriptors, "unpark");
    }
    // Dumped as it is held, restored, and only then let go.
    run("park");
    let output = process.dump_for_good(&[], || {});
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let process = process.restored();
    let output = isamorph().args(["unpark", "-t", &process.pid().to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    process.goes_on();
}
