//! Mappings of a process, from `/proc/PID/smaps`, and which of their pages are its own.
use std::os::unix::fs::FileExt;

use isamorph_arch::RemoteAddr;

use super::{Error, Result, proc};

/// Bytes of a page; the only size supported.
pub const PAGE: u64 = 4096;

/// What is behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Nothing; or, if shared, memory that only `inode` names.
    Anonymous,
    /// The heap that `brk` moves.
    Heap,
    /// The initial stack.
    Stack,
    /// The kernel's vDSO.
    Vdso,
    /// The kernel's data for it.
    Vvar,
    /// x86_64's legacy page.
    Vsyscall,
    /// A file, by the path that the kernel shows.
    File {
        /// The path, `" (deleted)"` included.
        path: String,
    },
    /// Something of the kernel's that is none of these.
    Special {
        /// Its name, such as `[uprobes]`.
        name: String,
    },
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Mapping {
    pub start: RemoteAddr,
    pub end: RemoteAddr,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    pub shared: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Device of the file, as `(major, minor)`.
    pub device: (u32, u32),
    pub inode: u64,
    pub backing: Backing,
    /// KiB of it that are in memory or swapped out.
    pub resident: u64,
    /// Two-letter flags (`VmFlags` of proc(5)).
    pub flags: Vec<[u8; 2]>,
}

impl Mapping {
    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no mapping is empty")]
    pub fn len(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it has a flag, such as `gd` (grows down).
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag.as_bytes())
    }

    /// Whether `addr` is in it.
    #[must_use]
    pub fn contains(&self, addr: RemoteAddr) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Its name among `/proc/PID/map_files`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{:x}-{:x}", self.start.0, self.end.0)
    }
}

/// All mappings of a process, in the order of their addresses.
///
/// # Errors
/// If the process is gone, or the kernel's text is not understood.
pub fn read(pid: i32) -> Result<Vec<Mapping>> {
    let text = proc::read_text(pid, "smaps")?;
    parse(&text).map_err(|line| Error::Parse { path: proc::path(pid, "smaps"), what: "mapping", text: line })
}

fn parse(text: &str) -> std::result::Result<Vec<Mapping>, String> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(mapping) = mappings.last_mut() {
                mapping.flags =
                    flags.split_ascii_whitespace().filter_map(|flag| flag.as_bytes().try_into().ok()).collect();
            }
        } else if let Some(size) = line.strip_prefix("Rss:").or_else(|| line.strip_prefix("Swap:")) {
            let kib = size.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            if let Some(mapping) = mappings.last_mut() {
                mapping.resident = mapping.resident.saturating_add(kib.ok_or_else(|| line.to_owned())?);
            }
        } else if line.as_bytes().first().is_some_and(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            mappings.push(mapping(line).ok_or_else(|| line.to_owned())?);
        }
    }
    Ok(mappings)
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.strip_prefix(' ').unwrap_or(tail);
        word
    };
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let (start, end) = word().split_once('-')?;
    let mode = word().as_bytes();
    let offset = hex(word())?;
    let (major, minor) = word().split_once(':')?;
    let inode = word().parse().ok()?;
    let name = rest.trim_start_matches(' ');
    let &[r, w, x, s] = mode else { return None };
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end || start % PAGE != 0 || end % PAGE != 0 {
        return None;
    }
    let backing = match name {
        "" => Backing::Anonymous,
        "[heap]" => Backing::Heap,
        "[stack]" => Backing::Stack,
        "[vdso]" => Backing::Vdso,
        "[vvar]" | "[vvar_vclock]" => Backing::Vvar,
        "[vsyscall]" => Backing::Vsyscall,
        _ if name.starts_with("[anon:") || name.starts_with("[anon_shmem:") || name.starts_with("[stack:") => {
            Backing::Anonymous
        }
        _ if name.starts_with('[') => Backing::Special { name: name.to_owned() },
        // The kernel writes newlines in octal, and nothing else.
        _ => Backing::File { path: name.replace("\\012", "\n") },
    };
    Some(Mapping {
        start: RemoteAddr(start),
        end: RemoteAddr(end),
        read: r == b'r',
        write: w == b'w',
        exec: x == b'x',
        shared: s == b's',
        offset,
        device: (hex(major)? as u32, hex(minor)? as u32),
        inode,
        backing,
        resident: 0,
        flags: Vec::new(),
    })
}

/// A run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first.
    pub start: RemoteAddr,
    /// How many.
    pub pages: u64,
}

/// The runs of pages of a private mapping that are the process's own: present or swapped out, and not
/// the file's. `/proc/PID/pagemap` is read in pieces of 32 MiB of address space; `pause` is called between them.
///
/// # Errors
/// If the process is gone, or `pause` fails.
pub fn own_pages(pid: i32, mapping: &Mapping, pause: impl Fn() -> Result<()>) -> Result<Vec<Run>> {
    const PIECE: u64 = 8192;
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE: u64 = 1 << 61;
    // A reservation of terabytes has nothing to look for.
    if mapping.resident == 0 {
        return Ok(Vec::new());
    }
    let path = proc::path(pid, "pagemap");
    let proc_error = |source| Error::Proc { path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(proc_error)?;
    let from_file = matches!(mapping.backing, Backing::File { .. });
    let (first, last) = (mapping.start.0 / PAGE, mapping.end.0 / PAGE);
    let mut runs: Vec<Run> = Vec::new();
    let mut buffer = vec![0u8; (PIECE * 8) as usize];
    let mut page = first;
    while page < last {
        pause()?;
        let count = PIECE.min(last - page);
        let words = &mut buffer[..(count * 8) as usize];
        file.read_exact_at(words, page * 8).map_err(proc_error)?;
        for (i, word) in words.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            if word & (PRESENT | SWAPPED) == 0 || from_file && word & FILE != 0 {
                continue;
            }
            let addr = (page + i as u64) * PAGE;
            match runs.last_mut() {
                Some(run) if run.start.0 + run.pages * PAGE == addr => run.pages += 1,
                _ => runs.push(Run { start: RemoteAddr(addr), pages: 1 }),
            }
        }
        page += count;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_contain_spaces() {
        let text = "00400000-00452000 r-xp 00001000 08:02 173521      /usr/a b (deleted)\n\
                    Rss:                  4 kB\nVmFlags: rd ex mr mw me \n\
                    7ffc0000-7ffd0000 rw-s 00000000 00:00 0 \n";
        let maps = parse(text).unwrap();
        assert_eq!(maps[0].backing, Backing::File { path: "/usr/a b (deleted)".into() });
        assert_eq!((maps[0].offset, maps[0].device, maps[0].inode), (0x1000, (8, 2), 173_521));
        assert_eq!((maps[0].resident, maps[1].resident), (4, 0));
        assert!(maps[0].has("ex") && !maps[0].has("gd") && maps[0].exec);
        assert_eq!((&maps[1].backing, maps[1].shared), (&Backing::Anonymous, true));
        assert!(parse("0-1000 rwxp zz 0:0 0\n").is_err());
    }

    #[test]
    fn finds_the_pages_that_were_touched() {
        let len = 8 * PAGE as usize;
        // SAFETY: an anonymous mapping of our own.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        for page in [1, 2, 5] {
            // SAFETY: within the mapping.
            unsafe { at.cast::<u8>().add(page * PAGE as usize).write_volatile(1) };
        }
        let start = at as u64;
        let pid = std::process::id() as i32;
        let whole = read(pid).unwrap().into_iter().find(|m| m.contains(RemoteAddr(start))).unwrap();
        let mapping = Mapping { start: RemoteAddr(start), end: RemoteAddr(start + len as u64), ..whole };
        let runs = own_pages(pid, &mapping, || Ok(())).unwrap();
        let run = |page: u64, pages| Run { start: RemoteAddr(start + page * PAGE), pages };
        assert_eq!(runs, [run(1, 2), run(5, 1)]);
        // SAFETY: the mapping above.
        unsafe { libc::munmap(at, len) };
    }
}
