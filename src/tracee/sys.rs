//! ptrace requests as Rust functions: errno to [`Error`], ESRCH to death.
use std::ffi::c_void;
use std::io;

use super::{Error, Result};

/// `PTRACE_O_TRACESYSGOOD`: system-call stops are told apart from SIGTRAP.
pub const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// `NT_PRSTATUS`: general registers.
pub const NT_PRSTATUS: usize = 1;
/// `NT_PRFPREG`: floating-point registers.
pub const NT_PRFPREG: usize = 2;
/// `NT_X86_XSTATE`: the XSAVE area.
pub const NT_X86_XSTATE: usize = 0x202;
/// `NT_ARM_TLS`: `tpidr_el0`.
pub const NT_ARM_TLS: usize = 0x401;
/// `NT_ARM_SYSTEM_CALL`: the number of the call being entered.
pub const NT_ARM_SYSTEM_CALL: usize = 0x404;
/// `NT_ARM_SVE`: scalable vectors.
pub const NT_ARM_SVE: usize = 0x405;
/// `NT_ARM_TAGGED_ADDR_CTRL`: tagged addresses and MTE.
pub const NT_ARM_TAGGED_ADDR_CTRL: usize = 0x409;

// libc's own have another type on musl than on glibc.
/// `PTRACE_CONT`
pub const PTRACE_CONT: u32 = 7;
/// `PTRACE_DETACH`
pub const PTRACE_DETACH: u32 = 17;
/// `PTRACE_SYSCALL`
pub const PTRACE_SYSCALL: u32 = 24;
/// `PTRACE_SEIZE`
pub const PTRACE_SEIZE: u32 = 0x4206;
/// `PTRACE_INTERRUPT`
pub const PTRACE_INTERRUPT: u32 = 0x4207;
const PTRACE_GETSIGINFO: u32 = 0x4202;
const PTRACE_GETREGSET: u32 = 0x4204;
const PTRACE_SETREGSET: u32 = 0x4205;
const PTRACE_PEEKSIGINFO: u32 = 0x4209;
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;

/// One ptrace request.
///
/// # Errors
/// The kernel's, ESRCH as [`Error::Died`].
///
/// # Safety
/// `addr` and `data` must be what `request` takes: pointers to memory of this process that the
/// kernel may read or write in full, or plain numbers.
pub unsafe fn ptrace(name: &'static str, request: u32, pid: i32, addr: *mut c_void, data: *mut c_void) -> Result<i64> {
    // SAFETY: the caller vouches for addr and data.
    let answer = unsafe { libc::syscall(libc::SYS_ptrace, i64::from(request), i64::from(pid), addr, data) };
    if answer != -1 {
        return Ok(answer);
    }
    let source = io::Error::last_os_error();
    if source.raw_os_error() == Some(libc::ESRCH) {
        return Err(Error::Died { pid, how: format!("during ptrace {name}") });
    }
    Err(Error::Ptrace { request: name, pid, source })
}

/// Requests whose arguments are plain numbers.
///
/// # Errors
/// As [`ptrace`].
pub fn simple(name: &'static str, request: u32, pid: i32, data: usize) -> Result<i64> {
    // SAFETY: only called with requests that take numbers (SEIZE, INTERRUPT, CONT, SYSCALL, DETACH, LISTEN).
    unsafe { ptrace(name, request, pid, std::ptr::null_mut(), data as *mut c_void) }
}

/// Reads a register set into `buffer`; returns how many bytes there were.
///
/// # Errors
/// As [`ptrace`]; ENODEV or EINVAL where the machine has no such set.
pub fn get_regset(pid: i32, set: usize, buffer: &mut [u8]) -> Result<usize> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: iov describes `buffer`, which outlives the call.
    unsafe {
        ptrace("GETREGSET", PTRACE_GETREGSET, pid, set as *mut c_void, (&raw mut iov).cast())?;
    }
    Ok(iov.iov_len)
}

/// Writes a register set.
///
/// # Errors
/// As [`ptrace`].
pub fn set_regset(pid: i32, set: usize, bytes: &[u8]) -> Result<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: iov describes `bytes`, which the kernel only reads.
    unsafe {
        ptrace("SETREGSET", PTRACE_SETREGSET, pid, set as *mut c_void, (&raw mut iov).cast())?;
    }
    Ok(())
}

/// The set of blocked signals, bit N-1 for signal N.
///
/// # Errors
/// As [`ptrace`].
pub fn get_sigmask(pid: i32) -> Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes eight bytes into `mask`.
    unsafe {
        ptrace("GETSIGMASK", PTRACE_GETSIGMASK, pid, 8 as *mut c_void, (&raw mut mask).cast())?;
    }
    Ok(mask)
}

/// Sets the set of blocked signals.
///
/// # Errors
/// As [`ptrace`].
pub fn set_sigmask(pid: i32, mask: u64) -> Result<()> {
    let mut mask = mask;
    // SAFETY: the kernel reads eight bytes from `mask`.
    unsafe {
        ptrace("SETSIGMASK", PTRACE_SETSIGMASK, pid, 8 as *mut c_void, (&raw mut mask).cast())?;
    }
    Ok(())
}

/// What `PTRACE_GETEVENTMSG` says of an event: the ID of a new process or thread.
///
/// # Errors
/// As [`ptrace`].
pub fn event_message(pid: i32) -> Result<u64> {
    let mut message = 0u64;
    // SAFETY: the kernel writes an unsigned long.
    unsafe {
        ptrace("GETEVENTMSG", 0x4201, pid, std::ptr::null_mut(), (&raw mut message).cast())?;
    }
    Ok(message)
}

/// The siginfo of a signal-delivery stop; `None` in a group stop.
///
/// # Errors
/// As [`ptrace`].
pub fn get_siginfo(pid: i32) -> Result<Option<[u8; 128]>> {
    let mut info = [0u8; 128];
    // SAFETY: siginfo_t has 128 bytes.
    let answer =
        unsafe { ptrace("GETSIGINFO", PTRACE_GETSIGINFO, pid, std::ptr::null_mut(), info.as_mut_ptr().cast()) };
    match answer {
        Ok(_) => Ok(Some(info)),
        Err(Error::Ptrace { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pending signals with their siginfo, in the order of their arrival; of the process or of the thread alone.
///
/// # Errors
/// As [`ptrace`].
pub fn peek_siginfo(pid: i32, shared: bool) -> Result<Vec<[u8; 128]>> {
    #[repr(C)]
    struct Args {
        off: u64,
        flags: u32,
        nr: i32,
    }
    const BATCH: usize = 32;
    let mut all = Vec::new();
    loop {
        let mut batch = [[0u8; 128]; BATCH];
        let mut args = Args { off: all.len() as u64, flags: u32::from(shared), nr: BATCH as i32 };
        // SAFETY: the kernel reads `args` and writes at most BATCH siginfos of 128 bytes.
        let count = unsafe {
            ptrace("PEEKSIGINFO", PTRACE_PEEKSIGINFO, pid, (&raw mut args).cast(), batch.as_mut_ptr().cast())?
        };
        let count = usize::try_from(count).unwrap_or(0).min(BATCH);
        all.extend_from_slice(&batch[..count]);
        if count == 0 {
            return Ok(all);
        }
    }
}

/// Restartable-sequences registration of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rseq {
    /// Address of `struct rseq`; 0 if there is none.
    pub pointer: u64,
    /// Its size.
    pub size: u32,
    /// Signature before abort handlers.
    pub signature: u32,
    flags: u32,
    pad: u32,
}

/// The thread's rseq registration; `None` where the kernel cannot tell (before 5.13).
///
/// # Errors
/// As [`ptrace`].
pub fn get_rseq(pid: i32) -> Result<Option<Rseq>> {
    let mut rseq = Rseq::default();
    let len = size_of::<Rseq>();
    // SAFETY: the kernel writes at most `len` bytes.
    let answer = unsafe {
        ptrace("GET_RSEQ_CONFIGURATION", PTRACE_GET_RSEQ_CONFIGURATION, pid, len as *mut c_void, (&raw mut rseq).cast())
    };
    match answer {
        Ok(_) => Ok(Some(rseq)),
        Err(Error::Ptrace { source, .. }) if matches!(source.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Which half of a system call a stop is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallStop {
    /// Before the call, with its number.
    Entry(u64),
    /// After the call, with its result (-errno).
    Exit(i64),
    /// No system-call stop.
    None,
}

/// What `PTRACE_GET_SYSCALL_INFO` says of a stop.
///
/// # Errors
/// As [`ptrace`].
pub fn syscall_info(pid: i32) -> Result<SyscallStop> {
    let mut info = [0u64; 11];
    let len = size_of_val(&info);
    // SAFETY: the kernel writes at most `len` bytes of struct ptrace_syscall_info.
    unsafe {
        ptrace("GET_SYSCALL_INFO", 0x420e, pid, len as *mut c_void, info.as_mut_ptr().cast())?;
    }
    // op is the first byte; entry.nr and exit.rval are at offset 24.
    Ok(match info[0] as u8 {
        1 => SyscallStop::Entry(info[3]),
        2 => SyscallStop::Exit(info[3].cast_signed()),
        _ => SyscallStop::None,
    })
}
