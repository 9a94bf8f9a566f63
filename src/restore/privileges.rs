//! User and group IDs, capabilities, no_new_privs: given up where the process had less than we.
use super::program::{Arg, Program};
use super::tree::Tree;
use super::{Error, Result};
use crate::image::proto::CredsEntry;

/// CAP_SYS_RESOURCE.
pub const SYS_RESOURCE: u32 = 24;
const LAST_CAP: u32 = 63;
const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;

/// This program's own, from /proc/self/status.
#[derive(Debug, Default, PartialEq)]
struct Own {
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privs: bool,
}

impl Own {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/status").map_err(|e| Error::system("/proc/self/status", e))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut own = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let numbers = || value.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let mask = || u64::from_str_radix(value.trim(), 16).unwrap_or(0);
            match key {
                "Uid" => own.uids = numbers(),
                "Gid" => own.gids = numbers(),
                "Groups" => own.groups = numbers(),
                "CapInh" => own.inheritable = mask(),
                "CapPrm" => own.permitted = mask(),
                "CapEff" => own.effective = mask(),
                "CapBnd" => own.bounding = mask(),
                "CapAmb" => own.ambient = mask(),
                "NoNewPrivs" => own.no_new_privs = value.trim() == "1",
                _ => {}
            }
        }
        own
    }
}

/// Whether this program has a capability.
#[must_use]
pub fn has(capability: u32) -> bool {
    Own::read().is_ok_and(|own| own.effective & (1 << capability) != 0)
}

fn mask(words: &[u32]) -> u64 {
    words.iter().take(2).enumerate().fold(0, |all, (n, w)| all | u64::from(*w) << (32 * n))
}

/// A capability by its name in capabilities(7), or by its number if it is newer than this list.
#[must_use]
pub fn name(capability: u32) -> String {
    #[rustfmt::skip]
    let names = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ];
    names.get(capability as usize).map_or_else(|| format!("capability {capability}"), |name| format!("CAP_{name}"))
}

/// Names of all capabilities in a set.
fn names(set: u64) -> String {
    (0..=LAST_CAP).filter(|cap| set & (1 << cap) != 0).map(name).collect::<Vec<_>>().join(", ")
}

/// The capabilities that the process had and that it cannot have here, because this program does not.
///
/// # Errors
/// /proc cannot be read.
pub fn missing(tree: &Tree) -> Result<u64> {
    let own = Own::read()?;
    let lacking = |creds: &CredsEntry| mask(&creds.cap_prm) & !own.permitted | mask(&creds.cap_bnd) & !own.bounding;
    Ok(tree.threads().fold(0, |all, thread| all | lacking(&thread.creds)))
}

/// Adds the calls that make our privileges those of a thread; `without` are capabilities that it loses.
///
/// # Errors
/// It had some that this program lacks, and that it is not to lose.
pub fn plan(tree: &Tree, c: &CredsEntry, program: &mut Program, without: u64) -> Result<()> {
    let own = Own::read()?;
    let [inheritable, permitted, effective, bounding, ambient] =
        [&c.cap_inh, &c.cap_prm, &c.cap_eff, &c.cap_bnd, &c.cap_amb].map(|words| mask(words) & !without);
    for (set, want, have) in [("permitted", permitted, own.permitted), ("bounding", bounding, own.bounding)] {
        let lacking = want & !have;
        if lacking != 0 {
            return Err(tree.unsupported(
                format!("{} in its {set} set of capabilities", names(lacking)),
                "this command does not have that, so the process cannot have it here; run as a user who has it, or \
                 restore the process without it: --drop-missing-caps",
            ));
        }
    }
    if own.no_new_privs && c.no_new_privs() == 0 {
        return Err(tree.unsupported("no_new_privs is off", "this command has it on, and nothing turns it off"));
    }
    for cap in (0..=LAST_CAP).filter(|cap| own.bounding & !bounding & (1 << cap) != 0) {
        let args = [libc::PR_CAPBSET_DROP.into(), cap.into()];
        program.call(format!("dropping capability {cap} from the bounding set"), libc::SYS_prctl, args);
    }
    // The order of /proc: real, effective, saved, file system.
    let uids = [c.uid, c.euid, c.suid, c.fsuid];
    let gids = [c.gid, c.egid, c.sgid, c.fsgid];
    let groups_differ = {
        let (mut a, mut b) = (own.groups.clone(), c.groups.clone());
        a.sort_unstable();
        b.sort_unstable();
        a != b
    };
    let uids_differ = own.uids != uids;
    if uids_differ {
        // Capabilities must survive the change of user; they are set just below.
        let args = [libc::PR_SET_SECUREBITS.into(), SECBIT_NO_SETUID_FIXUP.into()];
        program.call("keeping capabilities for a moment", libc::SYS_prctl, args);
    }
    if groups_differ {
        let bytes: Vec<u8> = c.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        let list = program.data(&bytes);
        program.call("setting groups", libc::SYS_setgroups, [Arg::Value(c.groups.len() as u64), list]);
    }
    if own.gids != gids {
        program.call("setting group IDs", libc::SYS_setresgid, [c.gid.into(), c.egid.into(), c.sgid.into()]);
        program.call("setting the file system's group ID", libc::SYS_setfsgid, [c.fsgid.into()]);
    }
    if uids_differ {
        program.call("setting user IDs", libc::SYS_setresuid, [c.uid.into(), c.euid.into(), c.suid.into()]);
        program.call("setting the file system's user ID", libc::SYS_setfsuid, [c.fsuid.into()]);
    }
    if uids_differ || own_securebits() != c.secbits {
        program.call("setting secure bits", libc::SYS_prctl, [libc::PR_SET_SECUREBITS.into(), c.secbits.into()]);
    }
    if uids_differ || (own.inheritable, own.permitted, own.effective) != (inheritable, permitted, effective) {
        // _LINUX_CAPABILITY_VERSION_3; pid 0 is the caller. Then low and high words of each set.
        let mut data = 0x2008_0522u32.to_le_bytes().to_vec();
        data.extend([0; 4]);
        let header = program.data(&data);
        let words = [effective, permitted, inheritable];
        let sets: Vec<u8> =
            [0, 32].iter().flat_map(|s| words.map(|w| (w >> s) as u32)).flat_map(u32::to_le_bytes).collect();
        let sets = program.data(&sets);
        program.call("setting capabilities", libc::SYS_capset, [header, sets]);
    }
    if uids_differ || own.ambient != ambient {
        const PR_CAP_AMBIENT: i32 = 47;
        const RAISE: i32 = 2;
        const CLEAR_ALL: i32 = 4;
        let clear = [PR_CAP_AMBIENT.into(), CLEAR_ALL.into(), 0.into(), 0.into(), 0.into()];
        program.call("clearing ambient capabilities", libc::SYS_prctl, clear);
        for cap in (0..=LAST_CAP).filter(|cap| ambient & (1 << cap) != 0) {
            let args = [PR_CAP_AMBIENT.into(), RAISE.into(), cap.into(), 0.into(), 0.into()];
            program.call(format!("raising ambient capability {cap}"), libc::SYS_prctl, args);
        }
    }
    if c.no_new_privs() != 0 {
        let args = [libc::PR_SET_NO_NEW_PRIVS.into(), 1.into(), 0.into(), 0.into(), 0.into()];
        program.call("setting no_new_privs", libc::SYS_prctl, args);
    }
    Ok(())
}

fn own_securebits() -> u32 {
    // SAFETY: takes a number only.
    let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
    u32::try_from(bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_their_numbers() {
        // capability.h: the first, two in the middle, the last that has a name here, and one after it.
        assert_eq!(name(0), "CAP_CHOWN");
        assert_eq!(name(SYS_RESOURCE), "CAP_SYS_RESOURCE");
        assert_eq!(name(34), "CAP_SYSLOG");
        assert_eq!(names(1 << 40 | 1 << 41 | 1 << 21), "CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE, capability 41");
    }

    #[test]
    fn status_is_parsed() {
        let own = Own::parse("Name:\tx\nUid:\t1\t2\t3\t4\nGroups:\t5 6 \nCapEff:\t000001fffeffffff\nNoNewPrivs:\t1\n");
        assert_eq!(own.uids, [1, 2, 3, 4]);
        assert_eq!(own.groups, [5, 6]);
        assert_eq!(own.effective, 0x1ff_feff_ffff);
        assert!(own.no_new_privs);
        assert_eq!(mask(&[0xffff_ffff, 1]), 0x1_ffff_ffff);
    }
}
