//! What two executables must have in common: segments, TLS, manifests, data, symbols, functions, IDs.
use super::violation::{Kind, Violation};
use crate::portable::executable::{Segment, SymbolKind};
use crate::portable::{Error, Executable};
use isamorph_arch::{Isa, RemoteAddr};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong between the two.
pub fn check(x86: &Executable, a64: &Executable) -> Vec<Violation> {
    let mut found = Vec::new();
    let isas = [(x86, Isa::X86_64), (a64, Isa::Aarch64)];
    for (executable, isa) in isas {
        if executable.isa != isa {
            let error = Error::Machine { what: "this place of the pair", found: isa.elf_machine().into(), isa };
            found.push(Kind::Input(error));
        }
    }
    segments(x86, a64, &mut found);
    tls(x86, a64, &mut found);
    manifests(x86, a64, &mut found);
    data(x86, a64, &mut found);
    symbols(x86, a64, &mut found);
    if let Err(error) = functions(x86, a64, &mut found) {
        found.push(Kind::Input(error));
    }
    if let Err(error) = ids(x86, a64, &mut found) {
        found.push(Kind::Input(error));
    }
    found.into_iter().map(|kind| Violation { isa: None, function: None, site: None, kind }).collect()
}

fn segments(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) {
    let show = |segment: Option<&Segment>| segment.map_or("missing".to_owned(), |s| format!("{s:x?}"));
    for index in 0..x86.segments.len().max(a64.segments.len()) {
        let (x, a) = (x86.segments.get(index), a64.segments.get(index));
        if x != a {
            found.push(Kind::Segment { index, x86_64: show(x), aarch64: show(a) });
        }
    }
}

fn tls(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) {
    if x86.tls != a64.tls {
        found.push(Kind::Tls(format!("{:x?} on x86_64, {:x?} on aarch64", x86.tls, a64.tls)));
    }
    let Some(tls) = x86.tls else { return };
    if Isa::ALL.iter().any(|isa| tls.layout.thread_pointer_offset(*isa).is_none()) {
        found.push(Kind::Tls(format!("its size or alignment is out of range: {:x?}", tls.layout)));
    } else if tls.vaddr % tls.layout.align != 0 {
        found.push(Kind::Tls(format!("{:#x} is no multiple of its alignment {:#x}", tls.vaddr, tls.layout.align)));
    }
}

fn manifests(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) {
    let (x, a) = (&x86.manifest, &a64.manifest);
    let ranges = [("stubs", &x.stubs, &a.stubs), ("leaves", &x.leaves, &a.leaves), ("text", &x.text, &a.text)];
    for (what, x, a) in ranges {
        if x != a {
            found.push(Kind::Manifest { what, x86_64: format!("{x:x?}"), aarch64: format!("{a:x?}") });
        }
    }
    let addresses = [
        ("syscall_entry", x.syscall_entry, a.syscall_entry),
        ("safepoint", x.safepoint, a.safepoint),
        ("restore_rt", x.restore_rt, a.restore_rt),
        ("syscall_cp_entry", x.syscall_cp_entry, a.syscall_cp_entry),
        ("setjmp_entry", x.setjmp_entry, a.setjmp_entry),
    ];
    for (what, x, a) in addresses {
        if x != a {
            found.push(Kind::Manifest { what, x86_64: format!("{x:#x}"), aarch64: format!("{a:#x}") });
        }
    }
    if (x.own_id, x.peer_id) != (a.peer_id, a.own_id) {
        found.push(Kind::Ids);
    }
}

/// Writable data is what migrates: its initial bytes must mean the same, so be the same.
fn data(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) {
    for segment in x86.segments.iter().filter(|s| s.flags & object::elf::PF_W.0 != 0) {
        let bytes = |e: &Executable| e.read(RemoteAddr(segment.vaddr), segment.filesz).map(<[u8]>::to_vec);
        let (Some(x), Some(a)) = (bytes(x86), bytes(a64)) else { continue };
        if let Some(at) = x.iter().zip(&a).position(|(x, a)| x != a) {
            let addr = segment.vaddr + at as u64;
            found.push(Kind::Data { addr, name: x86.name(RemoteAddr(addr)) });
        }
    }
}

/// Names are for people, and yet: where both executables have them, they must agree.
fn symbols(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) {
    let paired = |executable: &Executable| {
        let manifest = &executable.manifest;
        let own = executable.segment_at(executable.manifest_addr).copied();
        let mut names: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for symbol in &executable.symbols {
            let addr = symbol.addr;
            let per_isa = manifest.native.contains(&addr)
                || own.is_some_and(|s| (s.vaddr..s.vaddr + s.memsz).contains(&addr))
                || manifest.sites.contains(&addr);
            // A label inside a stub is where that ISA's code has it.
            let label = symbol.kind == SymbolKind::Label;
            if symbol.kind == SymbolKind::Tls || !per_isa && !label {
                names.entry(symbol.name.clone()).or_default().push(addr);
            }
        }
        names.values_mut().for_each(|addresses| addresses.sort_unstable());
        names
    };
    if x86.symbols.is_empty() || a64.symbols.is_empty() {
        return;
    }
    let (x, a) = (paired(x86), paired(a64));
    for name in x.keys().chain(a.keys()).collect::<BTreeSet<_>>() {
        let (x, a) = (x.get(name), a.get(name));
        if x != a {
            let addresses = |known: Option<&Vec<u64>>| known.cloned().unwrap_or_default();
            found.push(Kind::Symbol { name: name.clone(), x86_64: addresses(x), aarch64: addresses(a) });
        }
    }
}

fn functions(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) -> Result<(), Error> {
    let starts = |executable: &Executable| -> Result<BTreeSet<u64>, Error> {
        Ok(executable.bbmap()?.iter().map(|function| function.addr).collect())
    };
    let (x, a) = (starts(x86)?, starts(a64)?);
    for addr in x.symmetric_difference(&a) {
        let (isa, executable) = if x.contains(addr) { (Isa::X86_64, x86) } else { (Isa::Aarch64, a64) };
        found.push(Kind::FunctionMissing { addr: *addr, name: executable.name(RemoteAddr(*addr)), isa });
    }
    Ok(())
}

fn ids(x86: &Executable, a64: &Executable, found: &mut Vec<Kind>) -> Result<(), Error> {
    let count = |executable: &Executable| -> Result<BTreeMap<u64, usize>, Error> {
        let mut ids = BTreeMap::new();
        for record in executable.stackmaps()?.records {
            *ids.entry(record.id).or_insert(0) += 1;
        }
        Ok(ids)
    };
    let (x, a) = (count(x86)?, count(a64)?);
    for (isa, own, other) in [(Isa::X86_64, &x, &a), (Isa::Aarch64, &a, &x)] {
        for (id, count) in own {
            if *count != 1 {
                found.push(Kind::IdTwice { id: *id, count: *count });
            }
            if !other.contains_key(id) {
                found.push(Kind::IdMissing { id: *id, isa });
            }
        }
    }
    Ok(())
}
