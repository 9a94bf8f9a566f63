//! One QEMU machine: its devices, its life and its first steps.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Capture, Session};
use crate::place::{self, Isa, Lock};
use crate::wire::{Command, Ending};

/// Booting takes seconds; a machine that shares two cores with a build may need much longer.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What stock CRIU needs, and fails to initialise without.
const CRIU_MODULES: &str =
    "unix_diag inet_diag tcp_diag udp_diag af_packet_diag netlink_diag raw_diag tun veth nfnetlink nf_tables";
/// Paths of the node itself; a shared directory must not hide them.
const OWN_PATHS: [&str; 11] = ["/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"];

/// What a node is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name among the running nodes of this user.
    pub name: String,
    /// Its instruction set.
    pub isa: Isa,
    /// Directories that it shares with this host, at the same absolute path.
    pub dirs: Vec<PathBuf>,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Whether to load the modules that stock CRIU needs.
    pub criu: bool,
    /// Whether the node outlives this process.
    pub detached: bool,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    dir: PathBuf,
    qemu: Child,
    daemons: Vec<Child>,
    detached: bool,
    _lock: Lock,
}

impl Node {
    /// Boots a node and returns when it takes commands.
    ///
    /// # Errors
    /// Whatever kept it from booting; the text ends with the node's last words.
    pub fn boot(spec: &Spec) -> io::Result<Node> {
        let dirs = shared_dirs(&spec.dirs)?;
        let (dir, lock) = place::create(&spec.name)?;
        let mut daemons = Vec::new();
        let mut qemu = qemu_command(spec, &dir)?;
        for (index, shared) in dirs.iter().enumerate() {
            let socket = dir.join(format!("fs{index}"));
            daemons.push(virtiofsd(shared, &socket, &dir, spec.detached)?);
            qemu.arg("-chardev").arg(format!("socket,id=fs{index},path={}", socket.display()));
            let device = match spec.isa {
                Isa::X86_64 => "vhost-user-fs-pci",
                Isa::Aarch64 => "vhost-user-fs-device,iommu_platform=on",
            };
            qemu.arg("-device").arg(format!("{device},chardev=fs{index},tag=dir{index},queue-size=1024"));
        }
        let log = File::create(dir.join("qemu.log"))?;
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        tie(&mut qemu, spec.detached, Some(&lock));
        let qemu = qemu
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("start QEMU: {error}: run cross/setup")))?;
        let mut node = Node { dir, qemu, daemons, detached: spec.detached, _lock: lock };
        if let Err(error) = node.greet(spec, &dirs) {
            let words = node.last_words();
            node.detached = false;
            return Err(io::Error::new(error.kind(), format!("node {} did not come up: {error}{words}", spec.name)));
        }
        Ok(node)
    }

    /// The directory with this node's sockets and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn greet(&mut self, spec: &Spec, dirs: &[PathBuf]) -> io::Result<()> {
        let deadline = Instant::now() + BOOT_PATIENCE;
        // QEMU listens on its sockets before it starts the machine; but not at once.
        while !self.dir.join(format!("port{}", client::PORTS - 1)).exists() {
            if let Some(status) = self.qemu.try_wait()? {
                return Err(io::Error::other(format!("QEMU ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(ErrorKind::TimedOut, "QEMU does not listen"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut script = String::from("set -e; ip link set lo up\n");
        for dir in &spec.dirs {
            // A name that leads through symbolic links here leads there by one.
            let (named, real) = (std::path::absolute(dir)?, fs::canonicalize(dir)?);
            if let (true, Some(parent)) = (named != real, named.parent()) {
                let [named, real, parent] = [&named, &real, parent].map(|path| quote(&path.to_string_lossy()));
                script += &format!("mkdir -p {parent}; [ -e {named} ] || ln -s {real} {named}\n");
            }
        }
        for (index, dir) in dirs.iter().enumerate() {
            let quoted = quote(&dir.to_string_lossy());
            script += &format!("mkdir -p {quoted}; mount -t virtiofs dir{index} {quoted}\n");
        }
        if spec.criu {
            script += &format!("modprobe -a {CRIU_MODULES}\n");
        }
        script += &format!("echo {} >/proc/sys/kernel/ns_last_pid\n", first_pid(spec.isa));
        let mut output = Capture::default();
        let command = Command {
            argv: vec![b"sh".to_vec(), b"-c".to_vec(), script.into_bytes()],
            env: vec![format!("PATH={DEFAULT_PATH}").into_bytes()],
            cwd: b"/".to_vec(),
            input: false,
        };
        let ending = Session::open(&self.dir, deadline)?.run(command, &mut output, Some(deadline))?;
        if ending != Ending::Exited(0) {
            return Err(io::Error::other(format!(
                "its set-up ended with {ending:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        fs::write(self.dir.join("qemu.pid"), self.qemu.id().to_string())?;
        let mut list = String::new();
        for dir in dirs {
            list += &format!("{}\n", dir.display());
        }
        fs::write(self.dir.join("dirs"), list)?;
        fs::write(self.dir.join("ready"), spec.isa.name())
    }

    fn last_words(&self) -> String {
        let mut words = String::new();
        for log in ["qemu.log", "console.log", "virtiofsd.log"] {
            let text = String::from_utf8_lossy(&fs::read(self.dir.join(log)).unwrap_or_default()).into_owned();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            for line in tail.iter().rev() {
                words += &format!("\n  {log}: {line}");
            }
        }
        words
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        for daemon in &mut self.daemons {
            // They end by themselves when QEMU is gone; the kill is for one that QEMU never reached.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(self.dir.with_extension("lock"));
    }
}

/// Runs a command on the node in `dir` and returns how it ended.
///
/// # Errors
/// `TimedOut` if it runs longer than `timeout`.
pub fn exec(
    dir: &Path,
    argv: Vec<Vec<u8>>,
    cwd: &Path,
    input: bool,
    timeout: Option<Duration>,
    sink: &mut dyn client::Sink,
) -> io::Result<Ending> {
    use std::os::unix::ffi::OsStrExt;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    // A working directory that the node does not have would be an error of the tool, not of the command.
    let shared = fs::read_to_string(dir.join("dirs")).unwrap_or_default();
    let cwd = if shared.lines().any(|dir| cwd.starts_with(dir)) { cwd } else { Path::new("/root") };
    let mut env = vec![
        format!("PATH={DEFAULT_PATH}").into_bytes(),
        b"HOME=/root".to_vec(),
        b"USER=root".to_vec(),
        b"SHELL=/bin/sh".to_vec(),
        b"TERM=dumb".to_vec(),
    ];
    for (name, value) in env::vars_os() {
        let name = name.as_bytes();
        if name.starts_with(b"ISAMORPH_") || name.starts_with(b"RUST_") {
            env.push([name, b"=", value.as_bytes()].concat());
        }
    }
    let command = Command { argv, env, cwd: cwd.as_os_str().as_bytes().to_vec(), input };
    let session = Session::open(dir, deadline.unwrap_or_else(|| Instant::now() + BOOT_PATIENCE))?;
    session.run(command, sink, deadline)
}

/// Switches the node in `dir` off and removes its directory.
///
/// # Errors
/// Those of removing it; a node that does not react is killed.
pub fn stop(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let pid: Option<libc::pid_t> =
        fs::read_to_string(dir.join("qemu.pid")).ok().and_then(|pid| pid.trim().parse().ok());
    if let Ok(session) = Session::open(dir, deadline) {
        let _ = session.power_off(deadline);
    }
    let lock_path = dir.with_extension("lock");
    // QEMU holds the node's lock as long as it lives.
    let mut lock = Lock::try_take(&lock_path)?;
    while lock.is_none() {
        if let Some(pid) = pid.filter(|_| Instant::now() > deadline) {
            // SAFETY: kill has no preconditions. The held lock says that this pid is still the node's.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(10));
        lock = Lock::try_take(&lock_path)?;
    }
    fs::remove_dir_all(dir)?;
    fs::remove_file(lock_path)
}

/// Absolute, without symlinks, without those that lie in another one.
fn shared_dirs(dirs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut real = Vec::new();
    for dir in dirs {
        let path = fs::canonicalize(dir)
            .map_err(|error| io::Error::new(error.kind(), format!("--dir {}: {error}", dir.display())))?;
        if !path.is_dir() {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("--dir {}: not a directory", dir.display())));
        }
        if OWN_PATHS.iter().any(|own| path == Path::new(own)) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("--dir {}: it would hide the node's own", path.display()),
            ));
        }
        if path.to_string_lossy().contains(['\n', ',']) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("--dir {}: a comma or a line break in its path", path.display()),
            ));
        }
        real.push(path);
    }
    real.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in real {
        if !kept.iter().any(|outer| path.starts_with(outer)) {
            kept.push(path);
        }
    }
    Ok(kept)
}

fn virtiofsd(shared: &Path, socket: &Path, dir: &Path, detached: bool) -> io::Result<Child> {
    // Debian 12 keeps it in qemu-system-common, later ones in a package of its own.
    let program =
        ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"].into_iter().find(|path| Path::new(path).exists());
    let program =
        program.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "virtiofsd is missing: run cross/setup"))?;
    let log = File::options().create(true).append(true).open(dir.join("virtiofsd.log"))?;
    let mut process = Process::new(program);
    process.arg(format!("--socket-path={}", socket.display())).arg("-f");
    // Without a timeout every look at a name or an attribute asks the host: both sides may change a file.
    process
        .arg("-o")
        .arg(format!("source={},cache=auto,timeout=0,xattr,allow_direct_io,log_level=err", shared.display()));
    // Raising the limit needs a capability that not every root has.
    process.arg("--rlimit-nofile=0");
    process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    tie(&mut process, detached, None);
    let mut child = process.spawn()?;
    let start = Instant::now();
    while !socket.exists() {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(dir.join("virtiofsd.log")).unwrap_or_default();
            return Err(io::Error::other(format!(
                "virtiofsd for {} ended with {status}: {}",
                shared.display(),
                log.trim()
            )));
        }
        if start.elapsed() > BOOT_PATIENCE {
            let _ = child.kill();
            return Err(io::Error::new(ErrorKind::TimedOut, "virtiofsd does not listen"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

fn qemu_command(spec: &Spec, dir: &Path) -> io::Result<Process> {
    let image = env::var_os("ISAMORPH_NODE_IMAGE")
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "ISAMORPH_NODE_IMAGE is not set: call cross/node"))?;
    let accel = env::var("ISAMORPH_NODE_ACCEL").unwrap_or_else(|_| "tcg".into());
    let mut qemu;
    let console;
    match spec.isa {
        Isa::X86_64 => {
            qemu = Process::new("qemu-system-x86_64");
            let cpu = if accel == "kvm" { "host" } else { "max" };
            qemu.args(["-machine", "q35,memory-backend=mem,i8042=off", "-accel", &accel, "-cpu", cpu]);
            console = "ttyS0";
        }
        Isa::Aarch64 => {
            qemu = Process::new("qemu-system-aarch64");
            // `max` boots several times slower under emulation; this one has what Armv8.0 demands.
            qemu.args(["-machine", "virt,memory-backend=mem", "-accel", "tcg", "-cpu", "cortex-a72"]);
            // The daemons write files into the node's memory behind the emulator's back, and it goes on with what it
            // translated of a page's former code: its DC ZVA, which clears a page on its way from one use to the next, drops
            // only the blocks of code at every 64th byte (fixed in QEMU 8.2). So their data takes a way through the node's
            // own hands: buffers (swiotlb) from which its processor copies. That needs a device which honours them, and
            // QEMU has that on the memory-mapped bus only.
            qemu.args(["-global", "virtio-mmio.force-legacy=false"]);
            console = "ttyAMA0 swiotlb=force";
        }
    }
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]);
    qemu.arg("-name").arg(format!("isamorph-{}", spec.name));
    // virtio-fs works on memory that QEMU shares with the daemon.
    qemu.arg("-object").arg(format!("memory-backend-memfd,id=mem,size={}M,share=on", spec.memory_mib));
    qemu.arg("-m").arg(format!("{}M", spec.memory_mib)).arg("-smp").arg(spec.cpus.to_string());
    qemu.arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
    qemu.arg("-append").arg(format!("console={console} quiet panic=-1 oops=panic audit=0"));
    qemu.arg("-serial").arg(format!("file:{}", dir.join("console.log").display()));
    qemu.arg("-drive")
        .arg(format!("file={},if=none,id=root,format=raw,snapshot=on", image.join("root.ext4").display()));
    qemu.args(["-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"]);
    qemu.args(["-device", "virtio-serial-pci,id=ports"]);
    for index in 0..client::PORTS {
        let name = if index + 1 == client::PORTS { "last".to_string() } else { index.to_string() };
        qemu.arg("-chardev").arg(format!(
            "socket,id=port{index},path={},server=on,wait=off",
            dir.join(format!("port{index}")).display()
        ));
        qemu.arg("-device").arg(format!("virtserialport,bus=ports.0,chardev=port{index},name=isamorph.{name}"));
    }
    Ok(qemu)
}

/// Ties a child to this process's life, or sets it free; a child that gets the lock holds it as long as it lives.
fn tie(process: &mut Process, detached: bool, lock: Option<&Lock>) {
    let lock = lock.map(|lock| lock.file.as_raw_fd());
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        process.pre_exec(move || {
            if let Some(fd) = lock {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            // Keys pressed at the terminal are for this tool, which cleans up.
            libc::setsid();
            if !detached {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            Ok(())
        });
    }
}

/// Where a node starts to number processes. A process that was born on a node is restored on other nodes and on this host
/// under the same pid, so each ISA has a range of its own, away from where a host's usual processes are.
fn first_pid(isa: Isa) -> u32 {
    let max: u32 =
        fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|max| max.trim().parse().ok()).unwrap_or(32768);
    match isa {
        Isa::X86_64 => max / 8 * 6,
        Isa::Aarch64 => max / 8 * 7,
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
