//! From the initial RAM disk to a real root file system with the ports to the host open.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT_DISK: &str = "/dev/vda";
/// Devices appear asynchronously after their driver was loaded; under emulation on a busy machine that takes a while.
const DEVICE_PATIENCE: Duration = Duration::from_secs(30);

/// Brings the machine up and returns the ports to the host.
pub fn boot() -> io::Result<Vec<File>> {
    mount("devtmpfs", "/dev", "devtmpfs", 0, "")?;
    mount("proc", "/proc", "proc", 0, "")?;
    mount("sysfs", "/sys", "sysfs", 0, "")?;
    // In the order in which the image's builder numbered them.
    let mut modules: Vec<PathBuf> = fs::read_dir("/modules")?.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for module in &modules {
        load_module(module)?;
    }
    wait_for(Path::new(ROOT_DISK))?;
    mount(ROOT_DISK, "/root", "ext4", libc::MS_NOATIME, "")?;
    switch_root()?;
    load_mmio()?;

    fs::create_dir_all("/dev/pts")?;
    fs::create_dir_all("/dev/shm")?;
    mount("devpts", "/dev/pts", "devpts", 0, "gid=0,mode=620,ptmxmode=666")?;
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")?;
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")?;
    let _ = std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd");
    // As on a machine with systemd; a process from a large host keeps its pid here.
    fs::write("/proc/sys/kernel/pid_max", "4194304")?;
    fs::write("/proc/sys/kernel/hostname", fs::read("/etc/hostname")?)?;
    open_ports()
}

fn mount(source: &str, target: &str, fstype: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let describe = |error: io::Error| io::Error::new(error.kind(), format!("mount {source} on {target}: {error}"));
    let [source_c, target_c, fstype_c, data_c] = [source, target, fstype, data].map(CString::new);
    let (source_c, target_c, fstype_c, data_c) = (source_c?, target_c?, fstype_c?, data_c?);
    // SAFETY: all pointers are NUL-terminated strings that outlive the call.
    let result =
        unsafe { libc::mount(source_c.as_ptr(), target_c.as_ptr(), fstype_c.as_ptr(), flags, data_c.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(describe(io::Error::last_os_error())) }
}

/// The bus of shared directories on aarch64.
fn load_mmio() -> io::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let module = format!("/usr/lib/modules/{}/kernel/drivers/virtio/virtio_mmio.ko", release.trim());
    if Path::new(&module).exists() { load_module(Path::new(&module)) } else { Ok(()) }
}

fn load_module(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open for the call and the parameters are an empty C string.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    let error = io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::EEXIST) {
        Ok(())
    } else {
        Err(io::Error::new(error.kind(), format!("load {}: {error}", path.display())))
    }
}

fn wait_for(path: &Path) -> io::Result<()> {
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() > DEVICE_PATIENCE {
            return Err(io::Error::other(format!("{} did not appear", path.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Makes the disk on /root the root of every mount namespace to come: CRIU cannot dump tasks whose root is the initial RAM disk.
fn switch_root() -> io::Result<()> {
    for dir in ["/dev", "/proc", "/sys"] {
        mount(dir, &format!("/root{dir}"), "", libc::MS_MOVE, "")?;
    }
    std::env::set_current_dir("/root")?;
    mount(".", "/", "", libc::MS_MOVE, "")?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Opens every port of the virtio console that is named `isamorph.N`, in the order of N.
fn open_ports() -> io::Result<Vec<File>> {
    let start = Instant::now();
    loop {
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.starts_with("isamorph.") {
                named.push((name.trim().to_string(), Path::new("/dev").join(entry.file_name())));
            }
        }
        // The host created all ports before it started this machine, and the last one is announced by its name.
        let complete = named.iter().any(|(name, _)| name == "isamorph.last");
        if complete && named.iter().all(|(_, path)| path.exists()) {
            named.sort();
            return named
                .into_iter()
                .map(|(_, path)| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path))
                .collect();
        }
        if start.elapsed() > DEVICE_PATIENCE {
            return Err(io::Error::other(format!("{} ports to the host appeared, the last did not", named.len())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
