//! The polls of a stopped portable process: nops to jumps, and back; and whether its text is the file's.
use isamorph_arch::{Isa, RemoteAddr, aarch64, x86_64};

use super::{Error, Result};
use crate::portable::Executable;
use crate::tracee::maps::PAGE;
use crate::tracee::{Errand, Memory};

/// The text of a process beside that of its executable.
#[derive(Debug)]
pub struct Text<'a> {
    executable: &'a Executable,
    /// What the file has.
    file: &'a [u8],
    start: u64,
}

fn damaged(pid: i32, source: crate::portable::Error) -> Error {
    Error::Portable { pid, source }
}

impl<'a> Text<'a> {
    /// The paired text of an executable.
    ///
    /// # Errors
    /// Its manifest leads outside the file, or a poll outside the text.
    pub fn new(pid: i32, executable: &'a Executable) -> Result<Self> {
        let range = &executable.manifest.text;
        let file = executable.range("text", range).map_err(|e| damaged(pid, e))?;
        let text = Self { executable, file, start: range.start };
        for poll in &executable.polls {
            if text.jump(poll.site, poll.target).is_none() {
                return Err(Error::Unsupported {
                    pid,
                    what: format!("a poll at {} that is no nop of its text or cannot reach {}", poll.site, poll.target),
                    reason: "its executable is damaged",
                    remedy: "build it again".into(),
                });
            }
        }
        Ok(text)
    }

    /// Where a poll is in the text, and the jump that it becomes; `None` if the file has no nop there.
    fn jump(&self, site: RemoteAddr, target: RemoteAddr) -> Option<(usize, Vec<u8>)> {
        let (nop, jump): (&[u8], Vec<u8>) = match self.executable.isa {
            Isa::X86_64 => (&x86_64::safepoint::POLL_NOP, x86_64::safepoint::poll_jump(site.0, target.0)?.to_vec()),
            Isa::Aarch64 => (&aarch64::safepoint::POLL_NOP, aarch64::safepoint::poll_jump(site.0, target.0)?.to_vec()),
        };
        let at = usize::try_from(site.0.checked_sub(self.start)?).ok()?;
        (self.file.get(at..at.checked_add(nop.len())?)? == nop).then_some((at, jump))
    }

    /// The text with every poll a jump.
    fn patched(&self) -> Vec<u8> {
        let mut text = self.file.to_vec();
        for poll in &self.executable.polls {
            if let Some((at, jump)) = self.jump(poll.site, poll.target) {
                text[at..at + jump.len()].copy_from_slice(&jump);
            }
        }
        text
    }

    /// Makes the process's text `wanted`, page by page where it differs; returns the addresses of these pages.
    fn make(&self, memory: &Memory, wanted: &[u8]) -> Result<Vec<u64>> {
        let now = memory.read_vec(RemoteAddr(self.start), self.file.len())?;
        let mut pages = Vec::new();
        let mut at = 0;
        while at < wanted.len() {
            let addr = self.start + at as u64;
            let end = (at + (PAGE - addr % PAGE) as usize).min(wanted.len());
            if now[at..end] != wanted[at..end] {
                memory.write(RemoteAddr(addr), &wanted[at..end])?;
                pages.push(addr / PAGE * PAGE);
            }
            at = end;
        }
        Ok(pages)
    }

    /// Turns every poll into a jump.
    ///
    /// # Errors
    /// The process is gone.
    pub fn patch(&self, memory: &Memory) -> Result<()> {
        self.make(memory, &self.patched()).map(drop)
    }

    /// Turns every poll into a nop again.
    ///
    /// # Errors
    /// The process is gone.
    pub fn unpatch(&self, memory: &Memory) -> Result<()> {
        self.make(memory, self.file).map(drop)
    }

    /// Refuses text that is neither the file's nor what a dump leaves when it is killed; repairs the latter.
    /// Returns whether there was anything to repair.
    ///
    /// # Errors
    /// The refusal; the process is gone.
    pub fn repair(&self, memory: &Memory) -> Result<bool> {
        let now = memory.read_vec(RemoteAddr(self.start), self.file.len())?;
        if now == self.file {
            return Ok(false);
        }
        // A jump differs from the nop in its first byte on both instruction sets.
        let mut expected = self.file.to_vec();
        for poll in &self.executable.polls {
            if let Some((at, jump)) = self.jump(poll.site, poll.target)
                && now[at..at + jump.len()] == jump
            {
                expected[at..at + jump.len()].copy_from_slice(&jump);
            }
        }
        if let Some(at) = now.iter().zip(&expected).position(|(a, b)| a != b) {
            let place = self.executable.name(RemoteAddr(self.start + at as u64));
            return Err(Error::Unsupported {
                pid: memory.pid(),
                what: format!("text that differs from its executable at {place}"),
                reason: "it would be lost or wrong elsewhere",
                remedy: "remove breakpoints first; if the executable was replaced, put it back".into(),
            });
        }
        self.unpatch(memory)?;
        Ok(true)
    }

    /// Gives back the copies of text pages that patching made: they are the file's again.
    ///
    /// # Errors
    /// The process is gone.
    pub fn drop_copies(&self, errand: &mut Errand) -> Result<()> {
        let end = self.start + self.file.len() as u64;
        let mut polls: Vec<u64> = self.executable.polls.iter().map(|poll| poll.site.0 / PAGE * PAGE).collect();
        // A jump may lie on a page border.
        polls.extend(self.executable.polls.iter().map(|poll| (poll.site.0 + 4) / PAGE * PAGE));
        polls.sort_unstable();
        polls.dedup();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for page in polls.into_iter().filter(|page| *page < end) {
            match runs.last_mut() {
                Some(run) if run.1 == page => run.1 += PAGE,
                _ => runs.push((page, page + PAGE)),
            }
        }
        for (start, end) in runs {
            let args = [start, end - start, libc::MADV_DONTNEED as u64, 0, 0, 0];
            errand.call("madvise(MADV_DONTNEED) of text", libc::SYS_madvise, args)?;
        }
        Ok(())
    }
}
