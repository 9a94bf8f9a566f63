//! The linker script: one layout for both ISAs (`docs/architecture.md` §4.5).
//!
//! ```text
//!   0x400000  ELF header, program headers, build ID, .rodata      R    paired
//!             .text: stubs, leaves, functions                     RX   paired
//!             .text.native                                        RX   per ISA, padded to the larger
//!             .isamorph.manifest, .rodata.native, .eh_frame, …    R    per ISA, padded to the larger
//!             .tdata .tbss .init_array .fini_array .data .bss     RW   paired
//!             .isamorph.sites                                     R    header only; grown after verification
//! ```
use std::collections::BTreeSet;
use std::fmt::Write as _;

use isamorph_arch::Isa;

use crate::pair::elf::{Relocatable, Section};
use crate::pair::{BBMAP_SECTION, PAIRED_PREFIX};
use crate::resolve::Resolution;

/// Alignment of segments: the largest page of an aarch64 kernel.
pub const SEGMENT_ALIGN: u64 = 0x1_0000;
/// Bytes that `.isamorph.sites` has before verification: its header.
pub const SITES_HEADER: u64 = 64;
/// Where the image starts.
const BASE: u64 = 0x40_0000;
/// Symbols that the script defines.
pub const SYMBOLS: &[&str] = &[
    "__ehdr_start",
    "__executable_start",
    "__isam_stub_start",
    "__isam_stub_end",
    "__isam_leaf_start",
    "__isam_leaf_end",
    "__isam_text_start",
    "__isam_text_end",
    "__isam_native_start",
    "__isam_native_end",
    "__isam_polls_start",
    "__isam_polls_end",
    "__isam_bbmap_start",
    "__isam_bbmap_end",
    "__isam_stackmaps_start",
    "__isam_stackmaps_end",
    "__isam_eh_frame_start",
    "__isam_eh_frame_end",
    "__isam_sites_start",
    "__isam_tls_image_start",
    "__isam_tls_filesz",
    "__isam_tls_memsz",
    "__isam_tls_align",
    "__preinit_array_start",
    "__preinit_array_end",
    "__init_array_start",
    "__init_array_end",
    "__fini_array_start",
    "__fini_array_end",
    "__bss_start",
    "_GLOBAL_OFFSET_TABLE_",
    "_DYNAMIC",
    "__data_start",
    "etext",
    "_etext",
    "edata",
    "_edata",
    "end",
    "_end",
];

/// What the script depends on besides the layout.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Bytes that the per-ISA text of either needs at most.
    pub native: u64,
    /// Bytes that the per-ISA read-only sections of either need at most.
    pub tables: u64,
    /// Alignment of the TLS block, at least 16.
    pub tls_align: u64,
    /// Paired sections with names of their own: (name without prefix, code, writable, no bits).
    pub named: BTreeSet<(String, bool, bool)>,
}

impl Measures {
    /// Measures what is to be linked.
    #[must_use]
    pub fn of(resolution: &Resolution) -> Self {
        let mut measures = Self { tls_align: 16, ..Self::default() };
        let mut weak = BTreeSet::new();
        for (isa, natives) in Isa::ALL.into_iter().zip(&resolution.native) {
            let (mut native, mut tables) = (0, 0);
            let halves = resolution.objects.iter().map(|linked| match isa {
                Isa::X86_64 => &linked.fat.x86_64,
                Isa::Aarch64 => &linked.fat.aarch64,
            });
            for object in halves.chain(natives.iter().map(|n| &n.object)) {
                for section in object.sections.iter().filter(|s| s.is_alloc()) {
                    let bytes = section.size.saturating_add(section.align);
                    match section.name.strip_prefix(PAIRED_PREFIX) {
                        Some(name) => measures.see(name, section),
                        None if section.is_code() => native += bytes,
                        None => tables += bytes,
                    }
                }
                weak.extend(weak_symbols(object));
            }
            measures.native = measures.native.max(native);
            measures.tables = measures.tables.max(tables);
        }
        // Static code reaches weak symbols through the GOT on aarch64 (8 bytes each); and each output section may
        // begin with up to 64 bytes of alignment.
        measures.tables += 8 * weak.len() as u64 + 4096;
        measures.native = measures.native.next_multiple_of(64) + 64;
        measures
    }

    fn see(&mut self, name: &str, section: &Section) {
        if section.flags & object::elf::SHF_TLS.0 != 0 {
            self.tls_align = self.tls_align.max(section.align);
        }
        let usual = [".text", ".rodata", ".data", ".bss", ".tdata", ".tbss", ".init_array", ".fini_array"];
        let usual_arrays = [".preinit_array"];
        let is_usual = usual
            .iter()
            .chain(&usual_arrays)
            .any(|u| name.strip_prefix(u).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        if !is_usual {
            self.named.insert((name.to_owned(), section.is_code(), section.is_writable()));
        }
    }
}

fn weak_symbols(object: &Relocatable) -> impl Iterator<Item = String> + '_ {
    object.symbols.iter().filter(|s| s.is_weak()).map(|s| s.name.clone())
}

/// The script; between the ISAs it differs only in what fills gaps in code: traps on x86_64, `nop`s on aarch64.
#[must_use]
pub fn script(entry: &str, measures: &Measures, isa: Isa) -> String {
    let fill = match isa {
        Isa::X86_64 => "0xcccccccc",
        Isa::Aarch64 => "0x1f2003d5",
    };
    let Measures { native, tables, tls_align, named } = measures;
    let h = PAIRED_PREFIX;
    // A section with the name of a C identifier also gets `__start_NAME` and `__stop_NAME` from the linker.
    let own = |code: bool, writable: bool, segment: &str| {
        let gaps = if code { format!(" ={fill}") } else { String::new() };
        let mut text = String::new();
        for (name, c, w) in named {
            if (*c, *w) == (code, writable) {
                let _ = writeln!(text, "  \"{name}\" : {{ KEEP(*(\"{h}{name}\")) }} :{segment}{gaps}");
            }
        }
        text
    };
    let (own_rodata, own_text, own_data) =
        (own(false, false, "rodata"), own(true, false, "text"), own(false, true, "data"));
    format!(
        r#"ENTRY({entry})
PHDRS {{
  rodata PT_LOAD FILEHDR PHDRS FLAGS(4);
  text PT_LOAD FLAGS(5);
  native PT_LOAD FLAGS(5);
  tables PT_LOAD FLAGS(4);
  data PT_LOAD FLAGS(6);
  sites PT_LOAD FLAGS(4);
  tls PT_TLS FLAGS(4);
  note PT_NOTE FLAGS(4);
  stack PT_GNU_STACK FLAGS(6);
}}
SECTIONS {{
  __executable_start = {BASE:#x};
  . = {BASE:#x} + SIZEOF_HEADERS;
  .note.gnu.build-id : {{ *(.note.gnu.build-id) }} :rodata :note
  .rodata : ALIGN(64) {{ *({h}.rodata {h}.rodata.*) }} :rodata
{own_rodata}
  . = ALIGN({SEGMENT_ALIGN:#x});
  .text : ALIGN(64) {{
    __isam_text_start = .;
    __isam_stub_start = .;
    KEEP(*({h}.text.isam.stub {h}.text.isam.stub.*))
    __isam_stub_end = .;
    . = ALIGN(64);
    __isam_leaf_start = .;
    KEEP(*({h}.text.isam.leaf {h}.text.isam.leaf.*))
    __isam_leaf_end = .;
    . = ALIGN(64);
    *({h}.text {h}.text.*)
  }} :text ={fill}
{own_text}
  __isam_text_end = .; PROVIDE(etext = .); PROVIDE(_etext = .);
  . = ALIGN({SEGMENT_ALIGN:#x});
  .text.native : ALIGN(64) {{
    __isam_native_start = .;
    *(.text .text.*)
    __isam_native_end = .;
    . = __isam_native_start + {native:#x};
  }} :native ={fill}
  . = ALIGN({SEGMENT_ALIGN:#x});
  .isamorph.manifest : ALIGN(64) {{ __isam_tables_start = .; KEEP(*(.isamorph.manifest)) }} :tables
  .isamorph.polls : ALIGN(16) {{ __isam_polls_start = .; KEEP(*(.isamorph.polls)) __isam_polls_end = .; }} :tables
  .isamorph.bbmap : ALIGN(16) {{ __isam_bbmap_start = .; KEEP(*({BBMAP_SECTION})) __isam_bbmap_end = .; }} :tables
  .llvm_stackmaps : ALIGN(16) {{ __isam_stackmaps_start = .; KEEP(*(.llvm_stackmaps)) __isam_stackmaps_end = .; }} :tables
  .rodata.native : ALIGN(64) {{ *(.rodata .rodata.*) }} :tables
  .got : ALIGN(16) {{ *(.got .got.plt) }} :tables
  .eh_frame : ALIGN(16) {{ __isam_eh_frame_start = .; KEEP(*(.eh_frame)) __isam_eh_frame_end = .; }} :tables
  .isamorph.pad : {{ BYTE(0) . = __isam_tables_start + {tables:#x}; }} :tables
  . = ALIGN({SEGMENT_ALIGN:#x});
  __isam_tls_image_start = .;
  .tdata : ALIGN({tls_align}) {{ *({h}.tdata.isam {h}.tdata.isam.*) *({h}.tdata {h}.tdata.*) . = ALIGN({tls_align}); }} :data :tls
  .tbss : ALIGN({tls_align}) {{ *({h}.tbss {h}.tbss.*) . = ALIGN({tls_align}); }} :data :tls
  __isam_tls_filesz = SIZEOF(.tdata);
  __isam_tls_memsz = SIZEOF(.tdata) + SIZEOF(.tbss);
  __isam_tls_align = {tls_align};
  .preinit_array : ALIGN(64) {{ __preinit_array_start = .; KEEP(*({h}.preinit_array)) __preinit_array_end = .; }} :data
  .init_array : ALIGN(8) {{
    __init_array_start = .;
    KEEP(*(SORT_BY_INIT_PRIORITY({h}.init_array.*)))
    KEEP(*({h}.init_array))
    __init_array_end = .;
  }} :data
  .fini_array : ALIGN(8) {{
    __fini_array_start = .;
    KEEP(*(SORT_BY_INIT_PRIORITY({h}.fini_array.*)))
    KEEP(*({h}.fini_array))
    __fini_array_end = .;
  }} :data
  .data : ALIGN(64) {{ PROVIDE(__data_start = .); *({h}.data {h}.data.*) BYTE(0) }} :data
{own_data}
  PROVIDE(edata = .); PROVIDE(_edata = .);
  .bss : ALIGN(64) {{ __bss_start = .; *({h}.bss {h}.bss.*) . = ALIGN(16); }} :data
  PROVIDE(end = .); PROVIDE(_end = .);
  . = ALIGN({SEGMENT_ALIGN:#x});
  .isamorph.sites : {{ __isam_sites_start = .; QUAD(0) . = __isam_sites_start + {SITES_HEADER}; }} :sites
  /DISCARD/ : {{ *(.note.GNU-stack) *(.note.gnu.property) *(.llvm_addrsig) *(.eh_frame_hdr) }}
}}
"#
    )
}
