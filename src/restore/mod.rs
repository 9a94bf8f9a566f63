//! Image tree to live tree: plan, fork, blob; the same file names as `dump`.
//!
//! 1. `tree` reads the images and refuses by name what cannot be restored.
//! 2. Each kind of state adds its system calls to one list, the `program`; files are opened by
//!    this program itself. Nothing exists yet that would have to be taken back.
//! 3. `launch` makes the process, which makes those calls, exchanges its address space thereby and
//!    waits; then it gets its registers and is released.
//!
//! A failure at any point leaves nothing behind. Control groups are those of this program.

mod clock;
mod elf;
mod error;
mod files;
mod host;
mod launch;
mod memfd;
mod memory;
mod privileges;
mod program;
mod special;
mod task;
mod terminal;
mod tree;
mod vdso;

use std::path::PathBuf;

pub use error::{Error, Result};
pub use files::Inherit;

/// `task_state` of a running process.
const TASK_ALIVE: u32 = 1;
/// `task_state` of one stopped by job control.
const TASK_STOPPED: u32 = 3;

/// What to restore, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The image tree.
    pub tree: PathBuf,
    /// The process belongs to a shell's session: it joins ours, and gets our terminal.
    pub shell_job: bool,
    /// File that the process ID is written to.
    pub pidfile: Option<PathBuf>,
    /// Descriptors of ours that stand for resources of the process.
    pub inherit: Vec<Inherit>,
    /// The process loses capabilities that this program does not have; otherwise that is an error.
    pub drop_missing_capabilities: bool,
}

/// A process that has been restored. It runs, and is a child of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its process ID.
    pub pid: u32,
    /// System calls that it took.
    pub calls: usize,
    /// Bytes of memory that were read from the images.
    pub bytes: u64,
    /// Names of capabilities that it had and has no more.
    pub dropped_capabilities: Vec<String>,
}

/// Restores one process.
///
/// Puts this program into a new time namespace for its children if the images hold clocks.
///
/// # Errors
/// What is wrong with the images, or which step failed; nothing of the process is left then.
pub fn restore(options: &Options) -> Result<Restored> {
    check_machine()?;
    let tree = tree::Tree::read(&options.tree)?;
    tree::check_leftovers(&tree)?;
    for thread in tree.threads() {
        host::check_fp(&tree, &thread.core)?;
        check_id(thread.tid)?;
    }

    let mut program = program::Program::default();
    let mut helpers = files::Helpers::new(&tree)?;
    let pipes = launch::Pipes::new(&helpers)?;
    let vdso = vdso::plan(&tree)?;
    pipes.plan_start(&mut program);
    unregister_rseq(&mut program);
    task::plan_session(&tree, options, &mut program)?;
    let mut memfds = memfd::Objects::default();
    files::plan(&tree, options, &mut program, &mut helpers, &mut memfds)?;
    files::plan_directories(&tree, &mut program, &mut helpers)?;
    memory::plan(&tree, &vdso, &mut program, &mut helpers, &mut memfds)?;
    let exe = files::open_executable(&tree, &mut helpers)?;
    task::plan_attributes(&tree, &mut program, exe)?;
    let without = if options.drop_missing_capabilities { privileges::missing(&tree)? } else { 0 };
    task::plan_actions(&tree, &mut program)?;
    task::plan_thread(&tree, &tree.leader, &mut program);
    task::plan_others(&tree, &pipes, &mut program, without)?;
    task::plan_pending(&tree, &mut program)?;
    task::plan_rights(&tree, &mut program, without)?;
    terminal::plan_modes(&tree, &mut program);
    pipes.plan_end(&mut program, &helpers);

    let base = memory::find_hole(&tree, &vdso.target(), program.area_len())?;
    clock::prepare(&tree)?;
    let finish = launch::Finish { pidfile: options.pidfile.as_deref(), patches: vdso.patches() };
    launch::launch(&tree, &program, base, pipes, &finish)?;
    let bytes = tree.pages.segments().iter().map(|s| s.len).sum();
    let dropped_capabilities = (0..64).filter(|cap| without & (1 << cap) != 0).map(privileges::name).collect();
    Ok(Restored { pid: tree.pid(), calls: program.len(), bytes, dropped_capabilities })
}

/// Refuses machines with another page size than the images.
fn check_machine() -> Result<()> {
    // SAFETY: takes a number only.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if u64::try_from(size) == Ok(program::PAGE) {
        return Ok(());
    }
    Err(Error::System {
        what: format!("this kernel has pages of {size} bytes, and images are of pages of {}", program::PAGE),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}

/// Says early what the clone would say late.
fn check_id(pid: u32) -> Result<()> {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => Err(Error::PidInUse { pid, by: format!(" by {}", name.trim()) }),
        Err(_) => Ok(()),
    }
}

/// A C library may have registered this thread for restartable sequences; the child inherits that,
/// and a second registration would be refused.
fn unregister_rseq(program: &mut program::Program) {
    #[cfg(target_env = "gnu")]
    {
        const UNREGISTER: i32 = 1;
        #[cfg(target_arch = "x86_64")]
        const SIGNATURE: u32 = 0x5305_3053;
        #[cfg(target_arch = "aarch64")]
        const SIGNATURE: u32 = 0xd428_bc00;
        let (offset, size) = rseq_symbols();
        // SAFETY: null, or data symbols that glibc has had since 2.35; the types are those of <sys/rseq.h>.
        unsafe {
            if offset.is_null() || size.is_null() || *size == 0 {
                return;
            }
            // The size that was registered: 32 at least, whatever of it is in use.
            let area = thread_pointer().wrapping_add_signed(*offset as i64);
            let args = [area.into(), (*size).max(32).into(), UNREGISTER.into(), SIGNATURE.into()];
            program.call("leaving the restorer's restartable sequences", libc::SYS_rseq, args);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = program;
}

/// `__rseq_offset` and `__rseq_size`, null where the C library has none. Weak references: a static program has no dlsym(3).
#[cfg(target_env = "gnu")]
fn rseq_symbols() -> (*const isize, *const u32) {
    let (offset, size);
    // SAFETY: loads two addresses from the global offset table.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "mov {}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {}, qword ptr [rip + __rseq_size@GOTPCREL]",
            out(reg) offset, out(reg) size, options(nostack, readonly),
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "adrp {0}, :got:__rseq_offset",
            "ldr {0}, [{0}, :got_lo12:__rseq_offset]",
            "adrp {1}, :got:__rseq_size",
            "ldr {1}, [{1}, :got_lo12:__rseq_size]",
            out(reg) offset, out(reg) size, options(nostack, readonly),
        );
    }
    (offset, size)
}

#[cfg(target_env = "gnu")]
fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: reads one register; on x86_64 the word at its segment's start is its own address (psABI, section 3.4.6).
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem));
    }
    pointer
}

/// Waits for a restored process, as a shell waits for its job; returns the status to exit with: its
/// own, or 128 and the number of the signal that ended it.
///
/// # Errors
/// It is not our child.
pub fn wait(pid: u32) -> Result<std::process::ExitCode> {
    // Keys of the terminal go to the whole group: the process decides what they mean.
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes `status`.
        let got = unsafe { libc::waitpid(pid.cast_signed(), &raw mut status, libc::WUNTRACED) };
        if got < 0 {
            let error = Error::last(format!("waiting for process {pid}"));
            if matches!(&error, Error::System { source, .. } if source.kind() == std::io::ErrorKind::Interrupted) {
                continue;
            }
            return Err(error);
        }
        if libc::WIFSTOPPED(status) {
            // SAFETY: both take numbers only. Our shell sees the job stop; when it goes on, so does the process.
            unsafe {
                libc::raise(libc::SIGSTOP);
                libc::kill(pid.cast_signed(), libc::SIGCONT);
            }
            continue;
        }
        let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
        return Ok(std::process::ExitCode::from(code as u8));
    }
}
