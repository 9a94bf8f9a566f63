//! Clocks that go on where they were: a time namespace whose CLOCK_MONOTONIC and CLOCK_BOOTTIME
//! continue from the values in the images.
use std::fs;

use super::tree::Tree;
use super::{Error, Result};
use crate::image::proto::Timespec;

const NANOS: i128 = 1_000_000_000;

/// Makes the time namespace that processes created from now on live in. Without clocks in the
/// images nothing is done.
///
/// # Errors
/// The kernel has no time namespaces, or we may not make one.
pub fn prepare(tree: &Tree) -> Result<()> {
    let Some(clocks) = &tree.clocks else { return Ok(()) };
    let current = offsets();
    // SAFETY: takes a number only.
    if unsafe { libc::unshare(libc::CLONE_NEWTIME) } < 0 {
        return Err(Error::last("making a time namespace (so that CLOCK_MONOTONIC does not jump)"));
    }
    let mut text = String::new();
    let pairs = [
        (1, libc::CLOCK_MONOTONIC, &clocks.monotonic, current.0),
        (7, libc::CLOCK_BOOTTIME, &clocks.boottime, current.1),
    ];
    for (number, clock, then, own_offset) in pairs {
        // What we read has the offset of our own namespace in it; offsets do not add up.
        let offset = nanos(then) - (now(clock) - own_offset);
        text += &format!("{number} {} {}\n", offset.div_euclid(NANOS), offset.rem_euclid(NANOS));
    }
    fs::write("/proc/self/timens_offsets", &text)
        .map_err(|e| Error::system(format!("setting the clocks ({})", text.trim().replace('\n', ", ")), e))
}

fn nanos(t: &Timespec) -> i128 {
    i128::from(t.tv_sec) * NANOS + i128::from(t.tv_nsec)
}

fn now(clock: i32) -> i128 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes `t`; both clocks exist on every kernel.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    i128::from(t.tv_sec) * NANOS + i128::from(t.tv_nsec)
}

/// The offsets of the namespace that this program is in: monotonic, boottime.
fn offsets() -> (i128, i128) {
    // After an unshare the file shows the new namespace; this is read before. It shows the one for
    // children, which is our own until then.
    parse(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default())
}

fn parse(text: &str) -> (i128, i128) {
    let of = |name: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(name));
        let mut numbers = line.unwrap_or_default().split_whitespace().map(|n| n.parse::<i128>().unwrap_or(0));
        numbers.next().unwrap_or(0) * NANOS + numbers.next().unwrap_or(0)
    };
    (of("monotonic"), of("boottime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_parsed_with_their_sign() {
        let text = "monotonic         -3 500000000\nboottime           7         1\n";
        assert_eq!(parse(text), (-2_500_000_000, 7_000_000_001));
        assert_eq!(parse(""), (0, 0));
    }
}
