//! The verifier accepts a pair that holds and refuses every mutation of it, by name.
//!
//! The pairs are `testdata/pair/{good,bad}_*`, made by `testdata/pair/regenerate` from the sources there.
use isamorph::portable::verify::{Kind, VerifiedPair, Violation, verify_pair};
use isamorph::portable::{Executable, Place, Value};
use isamorph_arch::{Isa, RemoteAddr};
use std::path::Path;

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pair").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn good() -> [Vec<u8>; 2] {
    [read("good_x86-64"), read("good_aarch64")]
}

fn verify(pair: &[Vec<u8>; 2]) -> Result<VerifiedPair, Vec<Violation>> {
    verify_pair(&pair[0], &pair[1])
}

/// Offset in the file of an address.
fn offset(file: &[u8], addr: u64) -> usize {
    Executable::parse(file).unwrap().file_offset(RemoteAddr(addr), 1).unwrap() as usize
}

fn symbol(file: &[u8], name: &str) -> u64 {
    Executable::parse(file).unwrap().symbols.iter().find(|s| s.name == name).expect("a symbol of the fixture").addr
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|w| w == needle).expect("a pattern of the fixture")
}

fn refused(pair: &[Vec<u8>; 2], what: &str, wanted: impl Fn(&Kind) -> bool) -> Vec<Violation> {
    let violations = verify(pair).expect_err(what);
    assert!(violations.iter().any(|v| wanted(&v.kind)), "{what}: {violations:#?}");
    violations
}

#[test]
fn a_good_pair_holds() {
    let pair = good();
    let verified = verify(&pair).unwrap_or_else(|v| panic!("{v:#?}"));
    assert_eq!((verified.stats.functions, verified.stats.sites, verified.stats.polls), (5, 8, [1, 1]));
    for isa in Isa::ALL {
        let table = verified.get(isa);
        assert_eq!(table.len(), 8);
        // `constants` keeps one constant in a register across its first call.
        let site = table.by_id(7).unwrap();
        let constant = |v: &isamorph::portable::Residue| v.value == Value::Constant(305_419_896_012_345);
        assert!(site.residue.iter().any(constant), "{isa}: {site:x?}");
        assert_eq!(site.slots_len, 16);
        // `through` has no slots.
        assert_eq!(table.by_id(4).unwrap().slots_len, 0);
        for site in table.iter() {
            let frame_pointer = match isa {
                Isa::X86_64 => isamorph_arch::x86_64::dwarf::FP,
                Isa::Aarch64 => isamorph_arch::aarch64::dwarf::FP,
            };
            assert!(site.saved.iter().any(|saved| saved.reg == frame_pointer), "{isa}: {site:x?}");
            let return_address = site.saved.iter().any(|saved| saved.reg == isamorph_arch::aarch64::dwarf::RA);
            assert_eq!(return_address, isa == Isa::Aarch64);
            for residue in site.residue {
                assert!(!matches!(residue.place, Place::Stack(at) if at >= 0));
            }
        }
    }
}

#[test]
fn a_stripped_pair_holds() {
    let mut pair = good();
    for file in &mut pair {
        // What `strip --strip-section-headers` leaves: e_shoff, e_shnum, e_shstrndx are 0.
        file[0x28..0x30].fill(0);
        file[0x3c..0x40].fill(0);
    }
    assert!(Executable::parse(&*pair[0]).unwrap().symbols.is_empty());
    assert_eq!(verify(&pair).unwrap().get(Isa::X86_64), verify(&good()).unwrap().get(Isa::X86_64));
}

#[test]
fn each_bad_function_is_refused() {
    let violations = verify(&[read("bad_x86-64"), read("bad_aarch64")]).unwrap_err();
    let has = |isa: Isa, function: &str, wanted: &dyn Fn(&Kind) -> bool| {
        let at = |v: &&Violation| {
            v.isa == Some(isa)
                && (v.function.as_deref() == Some(function) || v.to_string().contains(&format!("in {function})")))
        };
        let found: Vec<_> = violations.iter().filter(at).collect();
        assert!(found.iter().any(|v| wanted(&v.kind)), "{isa} {function}: {found:#?}");
    };
    for isa in Isa::ALL {
        let register =
            |name: &'static str| move |kind: &Kind| matches!(kind, Kind::Live { place, .. } if place == name);
        let (general, float) = if isa == Isa::X86_64 { ("rbx", "CFA-24") } else { ("x19", "d8") };
        has(isa, "live_register", &register(general));
        has(isa, "live_float", &register(float));
        has(isa, "phi_of_constants", &register(general));
        has(isa, "no_site", &|kind| matches!(kind, Kind::CallWithoutSite { target, .. } if target == "callee"));
        has(isa, "no_site_indirect", &|kind| matches!(kind, Kind::CallWithoutSite { .. }));
        has(isa, "escape", &|kind| matches!(kind, Kind::FrameEscape { .. }));
        has(isa, "escape_by_store", &|kind| matches!(kind, Kind::FrameEscape { .. }));
        has(isa, "tail_jump", &|kind| matches!(kind, Kind::TailJump { .. }));
        has(isa, "variable_frame", &|kind| matches!(kind, Kind::StackPointer { .. }));
        has(isa, "system_call", &|kind| matches!(kind, Kind::SystemCall { .. }));
        has(isa, "not_modelled", &|kind| matches!(kind, Kind::NotModelled(_)));
        has(isa, "not_restored", &|kind| matches!(kind, Kind::NotRestored { .. }));
        let (argument, result) = if isa == Isa::X86_64 { ("r11", "r11") } else { ("x9", "x5") };
        let no_argument = |kind: &Kind| matches!(kind, Kind::NoArgument { register, .. } if register == argument);
        has(isa, "no_argument", &no_argument);
        has(isa, "no_result", &register(result));
        has(isa, "stack_argument", &|kind| matches!(kind, Kind::Live { .. }));
    }
    let unwritten = |v: &Violation| matches!(v.kind, Kind::SlotNotWritten { offset: 0, .. });
    assert!(violations.iter().any(|v| unwritten(v) && v.function.as_deref() == Some("unwritten_slot")));
    // The one function that holds.
    assert!(!violations.iter().any(|v| v.function.as_deref() == Some("callee")));
}

#[test]
fn a_violation_names_function_site_location_and_definition() {
    let violations = verify(&[read("bad_x86-64"), read("bad_aarch64")]).unwrap_err();
    let text = violations.iter().map(ToString::to_string).find(|t| t.contains("x86_64: live_register")).unwrap();
    for part in ["site 0x2", "rbx is live", "mov rbx, rdi"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_moved_symbol() {
    let mut pair = good();
    let addr = symbol(&pair[0], "count").to_le_bytes();
    // The symbol table is behind everything that is loaded.
    let table = pair[0].windows(8).rposition(|w| w == addr).unwrap();
    pair[0][table] += 8;
    refused(&pair, "moved symbol", |kind| matches!(kind, Kind::Symbol { name, .. } if name == "count"));
}

#[test]
fn a_function_elsewhere() {
    let mut pair = good();
    let executable = Executable::parse(&*pair[1]).unwrap();
    let inner = symbol(&pair[1], "inner").to_le_bytes();
    let map = executable.manifest.bbmap;
    let start = offset(&pair[1], map.start);
    let at = start + find(&pair[1][start..start + (map.end - map.start) as usize], &inner);
    pair[1][at] += 4;
    refused(&pair, "moved function", |kind| matches!(kind, Kind::FunctionMissing { .. }));
}

/// Offset in the file of the record with an ID.
fn record(file: &[u8], id: u64) -> usize {
    let executable = Executable::parse(file).unwrap();
    let maps = executable.manifest.stackmaps.clone();
    let start = offset(file, maps.start);
    // Behind the header and the functions' entries.
    let functions = executable.stackmaps().unwrap().functions.len();
    let from = start + 16 + 24 * functions;
    from + find(&file[from..start + (maps.end - maps.start) as usize], &id.to_le_bytes())
}

#[test]
fn a_missing_site() {
    let mut pair = good();
    let at = record(&pair[0], 3);
    // The record is dropped: it names a place where there is no call.
    pair[0][at + 8..at + 12].copy_from_slice(&1u32.to_le_bytes());
    let violations = refused(&pair, "dropped record", |kind| matches!(kind, Kind::RecordWithoutCall { id: 3, .. }));
    let inner = |kind: &Kind| matches!(kind, Kind::CallWithoutSite { target, .. } if target == "inner");
    assert!(violations.iter().any(|v| inner(&v.kind)), "{violations:#?}");
}

#[test]
fn ids_that_differ_or_repeat() {
    for (id, twice) in [(44u64, false), (3, true)] {
        let mut pair = good();
        let at = record(&pair[1], 4);
        pair[1][at..at + 8].copy_from_slice(&id.to_le_bytes());
        refused(&pair, "other ID", |kind| matches!(kind, Kind::IdMissing { id: 4, isa: Isa::X86_64 }));
        let repeated = |kind: &Kind| matches!(kind, Kind::IdTwice { id: 3, count: 2 });
        assert_eq!(verify(&pair).unwrap_err().iter().any(|v| repeated(&v.kind)), twice);
    }
}

#[test]
fn clobbered_slots() {
    // The slots of `inner` are said to be where its saved registers are, or below its stack pointer.
    for distance in [16, 24, -200] {
        let mut pair = good();
        let at = record(&pair[0], 1) + 16 + 8;
        let old = i32::from_le_bytes(pair[0][at..at + 4].try_into().unwrap());
        pair[0][at..at + 4].copy_from_slice(&(old + distance).to_le_bytes());
        refused(&pair, "clobbered slots", |kind| matches!(kind, Kind::SlotsClobbered { .. }));
    }
}

#[test]
fn slots_of_two_lengths() {
    let mut pair = good();
    let at = record(&pair[0], 1) + 16 + 12 + 8;
    pair[0][at..at + 4].copy_from_slice(&8u32.to_le_bytes());
    refused(&pair, "slots' length", |kind| matches!(kind, Kind::SlotsLen { x86_64: 8, aarch64: 16 }));
}

#[test]
fn other_data_segments_or_manifests() {
    let mut pair = good();
    let at = offset(&pair[0], symbol(&pair[0], "count"));
    pair[0][at] ^= 1;
    refused(&pair, "initial data", |kind| matches!(kind, Kind::Data { name, .. } if name == "count"));

    let mut pair = good();
    // p_memsz of the fourth program header
    pair[1][64 + 3 * 56 + 40] += 8;
    refused(&pair, "segment", |kind| matches!(kind, Kind::Segment { index: 3, .. }));

    let mut pair = good();
    let manifest = find(&pair[0], b"ISAMPAIR");
    pair[0][manifest + 24] += 32;
    refused(&pair, "manifest", |kind| matches!(kind, Kind::Manifest { what: "stubs", .. }));

    let mut pair = good();
    let manifest = find(&pair[0], b"ISAMPAIR");
    pair[0][manifest + 256] = 1;
    refused(&pair, "IDs", |kind| matches!(kind, Kind::Ids));

    let pair = good();
    let swapped = [pair[1].clone(), pair[0].clone()];
    refused(&swapped, "swapped", |kind| matches!(kind, Kind::Input(_)));
}

#[test]
fn patched_polls_and_code() {
    let pair = good();
    for (n, file) in pair.iter().enumerate() {
        let poll = Executable::parse(&**file).unwrap().polls[0];
        let mut patched = pair.clone();
        let at = offset(file, poll.site.0);
        // `nop` of one byte; `yield`
        patched[n][at] = if n == 0 { 0x90 } else { 0x3f };
        assert!(verify(&patched).is_err());
    }
    // A leaf that calls the system: over the `lea` or `add` of `leaf`.
    for (n, bytes) in [&[0x0f, 0x05, 0x90, 0x90][..], &0xd400_0001u32.to_le_bytes()[..]].into_iter().enumerate() {
        let mut patched = pair.clone();
        let at = offset(&pair[n], symbol(&pair[n], "leaf"));
        patched[n][at..at + 4].copy_from_slice(bytes);
        refused(&patched, "leaf", |kind| matches!(kind, Kind::Leaf { why: "a system call", .. }));
    }
    // Code where there should be padding: behind the last function.
    let mut patched = pair.clone();
    let end = Executable::parse(&*pair[0]).unwrap().manifest.text.end;
    let at = offset(&pair[0], end - 4);
    patched[0][at..at + 3].copy_from_slice(&[0x48, 0x89, 0xd8]);
    refused(&patched, "padding", |kind| matches!(kind, Kind::Uncovered { .. }));
}

#[test]
fn wrong_call_frame_information() {
    let pair = good();
    let range = Executable::parse(&*pair[0]).unwrap().manifest.eh_frame;
    let start = offset(&pair[0], range.start);
    let mut refusals = 0;
    for at in start..start + (range.end - range.start) as usize {
        let mut patched = pair.clone();
        patched[0][at] ^= 1;
        if let Err(violations) = verify(&patched) {
            refusals += violations.iter().filter(|v| matches!(v.kind, Kind::Cfi(_) | Kind::Input(_))).count();
        }
    }
    assert!(refusals > 50, "{refusals}");
}

/// xorshift64, so that a failure can be repeated.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn no_mutation_makes_it_panic() {
    let mut state = 0x1234_5678_9abc_def1;
    let pair = good();
    for _ in 0..400 {
        let mut mutant = pair.clone();
        let n = (random(&mut state) % 2) as usize;
        for _ in 0..1 + random(&mut state) % 4 {
            let at = (random(&mut state) % mutant[n].len() as u64) as usize;
            mutant[n][at] = random(&mut state) as u8;
        }
        if random(&mut state).is_multiple_of(8) {
            let len = random(&mut state) as usize % mutant[n].len();
            mutant[n].truncate(len);
        }
        let _ = verify(&mutant);
    }
}
