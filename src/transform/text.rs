//! Pages of the executable's read-only segments: equal to the file, or the translation ends.
//!
//! A dump holds such a page only if it was written to and so copied: by a patched poll that was patched back, or by a
//! debugger. Equal ones are dropped, for the target's come from the peer's file.
use super::error::TransformError;
use super::space::Mapped;
use crate::image::{PAGE_SIZE, PageReader};
use crate::portable::pair::Member;
use isamorph_arch::RemoteAddr;

/// Compares every stored page of the executable's read-only mappings with its file.
///
/// # Errors
/// The first difference.
pub fn check(store: &PageReader, text: &[Mapped], member: &Member) -> Result<(), TransformError> {
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut expected = vec![0; PAGE_SIZE as usize];
    for mapping in text {
        let segments = store.segments();
        let first = segments.partition_point(|segment| segment.end() <= mapping.range.start);
        for segment in segments[first..].iter().take_while(|segment| segment.addr < mapping.range.end) {
            let from = segment.addr.max(mapping.range.start);
            let to = segment.end().min(mapping.range.end);
            for addr in (from..to).step_by(PAGE_SIZE as usize) {
                store.read(addr, &mut page)?;
                file_page(member.executable.bytes(), mapping.offset + (addr - mapping.range.start), &mut expected);
                if let Some(at) = (0..page.len()).find(|at| page[*at] != expected[*at]) {
                    let at = RemoteAddr(addr + at as u64);
                    let name = member.executable.name(at);
                    return Err(TransformError::Text { at, name, path: member.path.clone() });
                }
            }
        }
    }
    Ok(())
}

/// A page as the kernel maps it: zeros behind the end of the file.
fn file_page(file: &[u8], offset: u64, page: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
    let len = rest.len().min(page.len());
    page[..len].copy_from_slice(&rest[..len]);
    page[len..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_the_end_of_a_file_there_are_zeros() {
        let mut page = [9; 8];
        file_page(&[1, 2, 3], 1, &mut page);
        assert_eq!(page, [2, 3, 0, 0, 0, 0, 0, 0]);
        file_page(&[1, 2, 3], u64::MAX, &mut page);
        assert_eq!(page, [0; 8]);
    }
}
