//! Damaged images: whatever is cut off or flipped, restore neither panics nor hangs, says what is wrong, and
//! leaves nothing behind.
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::Dumped;

/// xorshift64*, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// Restores, whatever comes of it; whether it succeeded.
fn attempt(dumped: &Dumped, what: &str) -> bool {
    let mut command = dumped.restore();
    let mut child = command.arg("-d").stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("{what}: restore hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(status.signal(), None, "{what}: {said}");
    if status.success() {
        // The process in the images is one that job control stopped: it has not made a step.
        let pid = fs::read_to_string(dumped.pidfile()).unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        waitpid(Pid::from_raw(pid), None).unwrap();
        fs::remove_file(dumped.pidfile()).unwrap();
        return true;
    }
    assert_eq!(status.code(), Some(1), "{what}: {said}");
    let reason = said.strip_prefix("isamorph: restoring from ").and_then(|s| s.split_once(": "));
    assert!(
        reason.is_some_and(|(_, reason)| reason.trim().len() > 8) && !said.contains("panicked"),
        "{what}: {said:?}"
    );
    assert!(!dumped.pidfile().exists(), "{what}: a failed restore left its pidfile");
    assert!(!Path::new(&format!("/proc/{}", dumped.pid)).exists(), "{what}: a failed restore left a process");
    false
}

#[test]
fn damaged_images_are_refused_with_a_reason_or_restored_but_nothing_else() {
    // SAFETY: takes numbers only. Restored processes become our children, so that their IDs are free again.
    unsafe { nix::libc::prctl(nix::libc::PR_SET_CHILD_SUBREAPER, 1) };
    let dumped = Dumped::new("root");
    dumped.edit_core(|c| c.tc.as_mut().unwrap().task_state = 3);
    assert!(attempt(&dumped, "undamaged"));
    let mut random = Random(0x1505_2026);
    let mut names: Vec<String> =
        fs::read_dir(dumped.images()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let (mut refused, mut restored) = (0, 0);
    for name in names.iter().filter(|n| n.ends_with(".img")) {
        let path = dumped.images().join(name);
        let whole = fs::read(&path).unwrap();
        let mut one = |what: String, bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            *(if attempt(&dumped, &what) { &mut restored } else { &mut refused }) += 1;
        };
        for len in [0, 3, 7, 8, 11, whole.len() - 1] {
            one(format!("{name} cut to {len} bytes"), &whole[..len.min(whole.len() - 1)]);
        }
        for _ in 0..6 {
            let len = random.below(whole.len());
            one(format!("{name} cut to {len} bytes"), &whole[..len]);
        }
        // A page is a page, whatever is in it.
        for _ in 0..if name.starts_with("pages-") { 0 } else { 24 } {
            let (at, bit) = (random.below(whole.len()), random.below(8));
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            one(format!("{name} with bit {bit} of byte {at} flipped"), &bytes);
        }
        fs::write(&path, &whole).unwrap();
    }
    println!("{refused} refused, {restored} restored");
    assert!(refused > 150, "{refused} refused, {restored} restored: damage goes unnoticed");
    assert!(attempt(&dumped, "undamaged again"));
}
