//! Terminals that stay here (`--shell-job`): `tty-info.img`.
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use super::files::Descriptor;
use super::{Error, Result};
use crate::image::proto;

/// `c_cc` entries that images have.
const NCC: usize = 19;

/// The settings of a terminal.
///
/// # Errors
/// It cannot be asked.
pub fn info(descriptor: &Descriptor) -> Result<proto::TtyInfoEntry> {
    let fd = descriptor.duplicate()?;
    let raw = fd.as_raw_fd();
    let rdev = descriptor.stat.rdev();
    let (major, minor) = (libc::major(rdev), libc::minor(rdev));
    let is_pty = major >= 136;
    // CRIU numbers pseudo-terminals by index, the user's sides even; 1006 is /dev/tty.
    let index = if is_pty { (major - 136) * 256 + minor } else { 1006 };
    let id = index << 1;
    let number = |request: u64| -> u32 {
        let mut value = 0i32;
        // SAFETY: these requests write one int.
        let answer = unsafe { libc::ioctl(raw, request as _, &raw mut value) };
        if answer < 0 { 0 } else { value.cast_unsigned() }
    };
    const TIOCGPTLCK: u64 = 0x8004_5439;
    const TIOCGPKT: u64 = 0x8004_5438;
    const TIOCGEXCL: u64 = 0x8004_5440;
    let mut size = [0u16; 4];
    // SAFETY: the request writes a struct winsize: four u16.
    if unsafe { libc::ioctl(raw, libc::TIOCGWINSZ as _, size.as_mut_ptr()) } < 0 {
        return Err(Error::last_os(format!("asking terminal {} for its size", descriptor.name.display())));
    }
    let session = crate::tracee::proc::Stat::read(descriptor.pid)?;
    Ok(proto::TtyInfoEntry {
        id,
        r#type: if is_pty { proto::TtyType::Pty } else { proto::TtyType::Ctty }.into(),
        locked: number(TIOCGPTLCK) != 0,
        exclusive: number(TIOCGEXCL) != 0,
        packet_mode: number(TIOCGPKT) != 0,
        // Only a controlling terminal has a session; ours to ask for is the process's own.
        sid: if session.tty_nr != 0 { session.session.unsigned_abs() } else { 0 },
        pgrp: if session.tty_nr != 0 { session.tpgid.max(0).unsigned_abs() } else { 0 },
        rdev: rdev as u32,
        termios: Some(termios(raw, 0x5401, descriptor)?),
        termios_locked: Some(termios(raw, 0x5456, descriptor)?),
        winsize: Some(proto::WinsizeEntry {
            ws_row: size[0].into(),
            ws_col: size[1].into(),
            ws_xpixel: size[2].into(),
            ws_ypixel: size[3].into(),
        }),
        pty: is_pty.then_some(proto::TtyPtyEntry { index }),
        dev: Some(descriptor.stat.dev() as u32),
        uid: Some(descriptor.stat.uid()),
        gid: Some(descriptor.stat.gid()),
    })
}

/// The kernel's `struct termios`: four flag words, the line discipline, 19 characters.
fn termios(fd: i32, request: u64, descriptor: &Descriptor) -> Result<proto::TermiosEntry> {
    let mut raw = [0u8; 64];
    // SAFETY: TCGETS and TIOCGLCKTRMIOS write 36 bytes.
    if unsafe { libc::ioctl(fd, request as _, raw.as_mut_ptr()) } < 0 {
        return Err(Error::last_os(format!("asking terminal {} for its settings", descriptor.name.display())));
    }
    let word = |i: usize| u32::from_le_bytes(raw[4 * i..4 * i + 4].try_into().unwrap_or_default());
    Ok(proto::TermiosEntry {
        c_iflag: word(0),
        c_oflag: word(1),
        c_cflag: word(2),
        c_lflag: word(3),
        c_line: raw[16].into(),
        c_ispeed: 0,
        c_ospeed: 0,
        c_cc: raw[17..17 + NCC].iter().map(|&c| c.into()).collect(),
    })
}
