//! The stored memory of a process: read through the image chain, changed page by page.
use super::unwind::{Memory, MemoryError};
use crate::image::{PAGE_SIZE, PageReader, Problem, proto, vma};
use isamorph_arch::RemoteAddr;
use std::collections::BTreeMap;

/// Bytes of one page.
type Page = Vec<u8>;

/// The memory of a process: its pages as stored, and those that a translation changed.
#[derive(Debug)]
pub struct ImageMemory<'a> {
    store: &'a PageReader,
    vmas: &'a [proto::VmaEntry],
    cache: BTreeMap<u64, Page>,
    changed: BTreeMap<u64, Page>,
}

impl<'a> ImageMemory<'a> {
    /// The memory in `store`; `vmas` say where a page that is not stored is one of zeros.
    #[must_use]
    pub fn new(store: &'a PageReader, vmas: &'a [proto::VmaEntry]) -> Self {
        Self { store, vmas, cache: BTreeMap::new(), changed: BTreeMap::new() }
    }

    /// Writes bytes; what is read afterwards is still what was stored.
    ///
    /// # Errors
    /// If a page is neither stored nor one of zeros.
    pub fn write(&mut self, at: RemoteAddr, bytes: &[u8]) -> Result<(), MemoryError> {
        self.write_or_zero(at, bytes, 0..0)
    }

    /// As [`ImageMemory::write`], but pages in `fresh` that are not stored begin as zeros: a stack that grows.
    ///
    /// # Errors
    /// As [`ImageMemory::write`].
    pub fn write_or_zero(
        &mut self,
        at: RemoteAddr,
        bytes: &[u8],
        fresh: std::ops::Range<u64>,
    ) -> Result<(), MemoryError> {
        let mut rest = bytes;
        let mut addr = at.0;
        while !rest.is_empty() {
            let base = addr - addr % PAGE_SIZE;
            if !self.changed.contains_key(&base) {
                let page = match self.page(base) {
                    Ok(page) => page.clone(),
                    Err(_) if fresh.contains(&base) => vec![0; PAGE_SIZE as usize],
                    Err(error) => return Err(error),
                };
                self.changed.insert(base, page);
            }
            let from = (addr - base) as usize;
            let len = rest.len().min(PAGE_SIZE as usize - from);
            if let Some(page) = self.changed.get_mut(&base) {
                page[from..from + len].copy_from_slice(&rest[..len]);
            }
            rest = &rest[len..];
            addr = addr.wrapping_add(len as u64);
        }
        Ok(())
    }

    /// The changed pages by address.
    #[must_use]
    pub fn into_changed(self) -> BTreeMap<u64, Page> {
        self.changed
    }

    fn page(&mut self, base: u64) -> Result<&Page, MemoryError> {
        // Looked up twice because a returned borrow of a map cannot end before the insertion.
        if !self.cache.contains_key(&base) {
            let mut page = vec![0; PAGE_SIZE as usize];
            match self.store.read(base, &mut page) {
                Ok(()) => {}
                Err(error) if matches!(error.problem, Problem::NoPage { .. }) && self.is_zero(base) => {}
                Err(error) => return Err(MemoryError { at: RemoteAddr(base), why: error.to_string() }),
            }
            self.cache.insert(base, page);
        }
        self.cache.get(&base).ok_or(MemoryError { at: RemoteAddr(base), why: "lost".into() })
    }

    /// Whether an address that is not stored is untouched anonymous memory.
    fn is_zero(&self, addr: u64) -> bool {
        let after = self.vmas.partition_point(|vma| vma.end <= addr);
        self.vmas.get(after).is_some_and(|vma| vma.start <= addr && vma.status & vma::ANON_PRIVATE != 0)
    }
}

impl Memory for ImageMemory<'_> {
    fn read(&mut self, at: RemoteAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let (mut addr, mut rest) = (at.0, into);
        while !rest.is_empty() {
            let base = addr - addr % PAGE_SIZE;
            let from = (addr - base) as usize;
            let len = rest.len().min(PAGE_SIZE as usize - from);
            let page = self.page(base)?;
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&page[from..from + len]);
            rest = later;
            addr = addr.wrapping_add(len as u64);
        }
        Ok(())
    }
}
