//! Memory of another process, through `/proc/PID/mem`: also where the process itself may not write.
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use isamorph_arch::RemoteAddr;

use super::{Error, Result};

/// Memory of one process.
#[derive(Debug)]
pub struct Memory {
    pid: i32,
    file: File,
}

impl Memory {
    /// Opens the memory of a process that this program may trace.
    ///
    /// # Errors
    /// If it may not.
    pub fn open(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/mem");
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Self { pid, file }),
            Err(source) => Err(Error::Proc { path: path.into(), source }),
        }
    }

    /// Fills `buffer` from `addr` on.
    ///
    /// # Errors
    /// If a page of it is not mapped.
    pub fn read(&self, addr: RemoteAddr, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, addr.0).map_err(|source| Error::Memory {
            pid: self.pid,
            access: "reading",
            addr,
            len: buffer.len(),
            source,
        })
    }

    /// `len` bytes from `addr` on. `len` must come from this program, not from the process.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn read_vec(&self, addr: RemoteAddr, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        self.read(addr, &mut buffer)?;
        Ok(buffer)
    }

    /// What can be read of `len` bytes from `addr` on: less, or nothing, where memory ends.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn read_some(&self, addr: RemoteAddr, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        let mut done = 0;
        while done < len {
            match self.file.read_at(&mut buffer[done..], addr.0.wrapping_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // EIO: no page there; EINVAL: no address.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EFAULT | libc::EINVAL)) => break,
                Err(source) => return Err(Error::Memory { pid: self.pid, access: "reading", addr, len, source }),
            }
        }
        buffer.truncate(done);
        Ok(buffer)
    }

    /// The 64-bit word at `addr`.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn read_u64(&self, addr: RemoteAddr) -> Result<u64> {
        let mut word = [0; 8];
        self.read(addr, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Writes `bytes` at `addr`, whatever the protection there; private pages are copied.
    ///
    /// # Errors
    /// If a page of it is not mapped, or is a shared mapping without write permission.
    pub fn write(&self, addr: RemoteAddr, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, addr.0).map_err(|source| Error::Memory {
            pid: self.pid,
            access: "writing",
            addr,
            len: bytes.len(),
            source,
        })
    }

    /// Whose memory this is.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}
