//! What the verifier demands of functions that call `setjmp`, on the pairs `testdata/pair/{jumps,bad_jumps}_*`.
use isamorph::portable::verify::{Kind, VerifiedPair, Violation, verify_pair};
use isamorph::portable::{Executable, Place, Value};
use isamorph_arch::Isa;
use std::path::Path;

fn pair(name: &str) -> [Vec<u8>; 2] {
    Isa::ALL.map(|isa| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pair");
        let path = folder.join(format!("{name}_{}", isa.pair_suffix()));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

fn verify(pair: &[Vec<u8>; 2]) -> Result<VerifiedPair, Vec<Violation>> {
    verify_pair(&pair[0], &pair[1])
}

#[test]
fn jumps_that_hold() {
    let verified = verify(&pair("jumps")).unwrap_or_else(|v| panic!("{v:#?}"));
    for isa in Isa::ALL {
        let table = verified.get(isa);
        let cells: Vec<u32> = (1..=5).map(|id| table.by_id(id).unwrap().cells).collect();
        assert_eq!(cells, [0, 1, 1, 2, 2], "{isa}");
        // What `steady` keeps in its frame has to be there after a move from either site.
        for id in [4, 5] {
            let site = table.by_id(id).unwrap();
            let on_stack: Vec<_> = site.residue.iter().filter(|r| matches!(r.place, Place::Stack(_))).collect();
            assert_eq!(on_stack.len(), 1, "{isa}: {site:x?}");
            assert_eq!((on_stack[0].size, on_stack[0].value), (8, Value::Constant(77)), "{isa}");
        }
    }
}

#[test]
fn each_bad_function_is_refused() {
    let violations = verify(&pair("bad_jumps")).unwrap_err();
    let has = |isa: Option<Isa>, function: &str, wanted: &dyn Fn(&Kind) -> bool| {
        let found: Vec<_> =
            violations.iter().filter(|v| v.isa == isa && v.function.as_deref() == Some(function)).collect();
        assert!(found.iter().any(|v| wanted(&v.kind)), "{isa:?} {function}: {found:#?}");
    };
    for isa in Isa::ALL.map(Some) {
        let live = |kind: &Kind| matches!(kind, Kind::Live { .. });
        has(isa, "no_cells", &|kind| matches!(kind, Kind::NoJumpCells { .. }));
        has(isa, "cells_differ", &|kind| matches!(kind, Kind::JumpCellsDiffer { first: 1, other: 0, id: 4 }));
        has(isa, "changing", &live);
        has(isa, "changing_slot", &live);
        has(isa, "live", &live);
    }
    has(None, "no_address", &|kind| matches!(kind, Kind::SlotNotWritten { offset: 0, .. }));
    assert!(!violations.iter().any(|v| v.function.as_deref() == Some("work")));
}

/// Offset in the file of the stack-map record with an ID.
fn record(file: &[u8], id: u64) -> usize {
    let executable = Executable::parse(file).unwrap();
    let maps = executable.manifest.stackmaps.clone();
    let start = executable.file_offset(isamorph_arch::RemoteAddr(maps.start), 1).unwrap() as usize;
    let from = start + 16 + 24 * executable.stackmaps().unwrap().functions.len();
    let at = file[from..].windows(8).position(|w| w == id.to_le_bytes());
    from + at.expect("a record of the fixture")
}

/// Makes the third location of a site's record say another number of cells.
fn set_cells(file: &mut [u8], id: u64, cells: u32) {
    let at = record(file, id) + 16 + 2 * 12 + 8;
    assert!((1..3).contains(&u32::from_le_bytes(file[at..at + 4].try_into().unwrap())));
    file[at..at + 4].copy_from_slice(&cells.to_le_bytes());
}

#[test]
fn cells_that_differ_between_the_executables() {
    let mut mutant = pair("jumps");
    for id in [2, 3] {
        set_cells(&mut mutant[1], id, 7);
    }
    let violations = verify(&mutant).unwrap_err();
    let differs = |kind: &Kind| matches!(kind, Kind::JumpSite { x86_64: (1, true), aarch64: (7, true) });
    assert!(violations.iter().any(|v| differs(&v.kind)), "{violations:#?}");

    let mut mutant = pair("jumps");
    set_cells(&mut mutant[0], 3, 2);
    let violations = verify(&mutant).unwrap_err();
    let differs = |kind: &Kind| matches!(kind, Kind::JumpCellsDiffer { first: 1, other: 2, id: 3 });
    assert!(violations.iter().any(|v| differs(&v.kind)), "{violations:#?}");

    let mut mutant = pair("jumps");
    set_cells(&mut mutant[0], 3, 0);
    assert!(verify(&mutant).unwrap_err().iter().any(|v| matches!(v.kind, Kind::Input(_))));
}

#[test]
fn another_stub_in_one_manifest() {
    let mut mutant = pair("jumps");
    let at = mutant[0].windows(8).position(|w| w == b"ISAMPAIR").unwrap();
    let word = at + 232;
    let entry = Executable::parse(&*mutant[0]).unwrap().manifest.setjmp_entry;
    assert_eq!(mutant[0][word..word + 8], entry.to_le_bytes());
    mutant[0][word..word + 8].fill(0);
    let violations = verify(&mutant).unwrap_err();
    let manifest = |kind: &Kind| matches!(kind, Kind::Manifest { what: "setjmp_entry", .. });
    assert!(violations.iter().any(|v| manifest(&v.kind)), "{violations:#?}");
    // The call is no longer known to return twice there.
    assert!(violations.iter().any(|v| matches!(v.kind, Kind::JumpSite { x86_64: (1, false), aarch64: (1, true) })));
}
