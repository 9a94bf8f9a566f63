//! Terminals: of a shell job they are the ones that this program was started at.
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, open as open_file};
use nix::sys::stat::Mode;

use super::files::{inherited, open_reg};
use super::program::Program;
use super::tree::Tree;
use super::{Error, Options, Result};
use crate::image::proto::{FdType, TtyFileEntry, TtyInfoEntry, TtyType};

/// Opens a terminal again.
///
/// # Errors
/// It belongs to a shell, and neither `--shell-job` was given nor is there a terminal here.
pub fn open(tree: &Tree, options: &Options, tty: &TtyFileEntry, number: u32) -> Result<OwnedFd> {
    let info = info(tree, tty)?;
    let key = format!("tty[{:x}:{:x}]", info.rdev, info.dev());
    let flags = tty.flags as i32;
    if let Some(fd) = inherited(options, &key) {
        return reopen(fd, flags);
    }
    if info.r#type() == TtyType::Pty && info.pty.is_some() && is_master(tree, tty) {
        return Err(tree
            .unsupported(format!("descriptor {number} is the master of a pseudo-terminal"), "cannot be restored yet"));
    }
    if let (TtyType::Console | TtyType::Vt | TtyType::Serial, Some(id)) = (info.r#type(), tty.regf_id) {
        return open_reg(tree, tree.reg_file(id, "device of a terminal")?, flags);
    }
    if !options.shell_job {
        return Err(tree.unsupported(
            format!("descriptor {number} is a terminal"),
            "restore with -j (--shell-job) from the terminal that it shall have",
        ));
    }
    match (0..3).find(|fd| is_terminal(*fd)) {
        Some(fd) => reopen(fd, flags),
        None => Err(tree.unsupported(
            format!("descriptor {number} is a terminal"),
            "none of standard input, output and error of this command is one",
        )),
    }
}

fn info<'a>(tree: &'a Tree, tty: &TtyFileEntry) -> Result<&'a TtyInfoEntry> {
    let missing = || tree.inconsistent(format!("tty-info.img has no terminal {:#x}", tty.tty_info_id));
    tree.terminals.get(&tty.tty_info_id).ok_or_else(missing)
}

fn is_master(tree: &Tree, tty: &TtyFileEntry) -> bool {
    let device = tty.regf_id.and_then(|id| tree.files.get(&id)).and_then(|f| f.reg.as_ref());
    device.is_some_and(|d| d.name.ends_with("/ptmx"))
}

fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: takes a number only.
    unsafe { libc::isatty(fd) == 1 }
}

/// A description of its own, with flags of its own.
fn reopen(fd: RawFd, flags: i32) -> Result<OwnedFd> {
    let kept = libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_APPEND;
    let flags = OFlag::from_bits_retain(flags & kept | libc::O_NOCTTY | libc::O_CLOEXEC);
    let path = format!("/proc/self/fd/{fd}");
    match open_file(path.as_str(), flags, Mode::empty()) {
        Ok(opened) => Ok(opened),
        // The node of the terminal may be out of reach (another mount namespace): share the description then.
        Err(_) => {
            // SAFETY: only used for the length of this call; a number that is not open is an error.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            borrowed.try_clone_to_owned().map_err(|e| Error::system(format!("the terminal at descriptor {fd}"), e))
        }
    }
}

/// Adds the calls that give the terminals the modes they had. They come last: a failure before must
/// not leave a shell's terminal in raw mode.
pub fn plan_modes(tree: &Tree, program: &mut Program) {
    let mut done = std::collections::BTreeSet::new();
    for f in tree.fds.iter().filter(|f| f.r#type() == FdType::Tty) {
        let tty = tree.files.get(&f.id).and_then(|file| file.tty.as_ref());
        let Some(info) = tty.and_then(|t| tree.terminals.get(&t.tty_info_id)) else { continue };
        let Some(t) = info.termios.as_ref().filter(|_| done.insert(info.id)) else { continue };
        // The kernel's struct termios: four words, the line discipline, 19 control characters.
        let mut bytes: Vec<u8> =
            [t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag].iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.push(t.c_line as u8);
        bytes.extend(t.c_cc.iter().take(19).map(|c| *c as u8));
        bytes.resize(36, 0);
        let data = program.data(&bytes);
        program.call(
            format!("setting the terminal at descriptor {}", f.fd),
            libc::SYS_ioctl,
            [f.fd.into(), 0x5402.into(), data],
        );
    }
}
