//! Bits of `VmaEntry::status`: what a mapping is.

/// Any mapping with contents of its own kind; nearly always set.
pub const REGULAR: u32 = 1 << 0;
/// The main thread's stack.
pub const STACK: u32 = 1 << 1;
/// x86_64's fixed vsyscall page; never mapped anew.
pub const VSYSCALL: u32 = 1 << 2;
/// The kernel's vDSO.
pub const VDSO: u32 = 1 << 3;
/// The brk heap.
pub const HEAP: u32 = 1 << 5;
/// A private mapping of a file.
pub const FILE_PRIVATE: u32 = 1 << 6;
/// A shared mapping of a file.
pub const FILE_SHARED: u32 = 1 << 7;
/// Shared anonymous memory.
pub const ANON_SHARED: u32 = 1 << 8;
/// Private anonymous memory.
pub const ANON_PRIVATE: u32 = 1 << 9;
/// A System V shared memory segment.
pub const SYSVIPC: u32 = 1 << 10;
/// A mapped packet socket.
pub const SOCKET: u32 = 1 << 11;
/// The data pages of the vDSO.
pub const VVAR: u32 = 1 << 12;
/// A ring of io_setup(2).
pub const AIORING: u32 = 1 << 13;
/// A memfd.
pub const MEMFD: u32 = 1 << 14;
/// A shadow stack.
pub const SHSTK: u32 = 1 << 15;
/// Guard pages inside a mapping (MADV_GUARD_INSTALL).
pub const GUARD: u32 = 1 << 16;
/// The kernel's uprobe trampoline page.
pub const UPROBES: u32 = 1 << 17;
/// Restored by a plug-in of CRIU.
pub const EXT_PLUGIN: u32 = 1 << 27;
