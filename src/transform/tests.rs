//! Whole trees, translated in both directions; and what is refused.
use super::fixture::{Fixture, GATE, PID, RESTART, TEXT, TLS_BLOCK, tp};
use super::machine::{Random, TOP};
use super::{Options, Report, TransformError, transform};
use crate::image::{Entry, ImageDir, PAGE_SIZE, PageReader, Place, check_parent, proto, read_runs, vma};
use isamorph_arch::Isa;
use isamorph_arch::syscall_record as record;
use std::fs;
use std::path::Path;

fn translate(images: &Path, arch: Isa) -> Result<Report, TransformError> {
    transform(&Options::new(images, arch))
}

fn word(store: &PageReader, at: u64) -> u64 {
    let mut bytes = [0; 8];
    store.read(at, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn a_process_moves_there_and_back() {
    for (seed, isa) in Isa::ALL.into_iter().enumerate() {
        let fixture = Fixture::new(isa, 25, seed as u64);
        let report = translate(&fixture.images(), isa.peer()).unwrap();
        let out = fixture.images().join(isa.peer().name());
        assert_eq!(report.out.as_deref(), Some(out.as_path()));
        assert_eq!(report.threads[0].depth, 25);
        let there = ImageDir::open(&out).unwrap();
        let machine = fixture.machine_of(&there, isa.peer());
        assert_eq!(machine.tp, tp(isa.peer()));
        machine.return_from_all(&fixture.program, &fixture.truth, "there");

        let back_at = out.join(isa.name());
        translate(&out, isa).unwrap();
        let back = ImageDir::open(&back_at).unwrap();
        check_parent(&back).unwrap();
        let machine = fixture.machine_of(&back, isa);
        assert_eq!((machine.sp, machine.tp), (fixture.machine.sp, tp(isa)));
        machine.return_from_all(&fixture.program, &fixture.truth, "back");

        // What depends on no instruction set came back as it was; the files' flags and names, too.
        let first = fixture.tree().read::<proto::FileEntry>(None).unwrap();
        let last = back.read::<proto::FileEntry>(None).unwrap();
        let inner = |file: Entry<proto::FileEntry>| file.into_inner();
        let first: Vec<_> = first.into_iter().map(inner).collect();
        let mut last: Vec<_> = last.into_iter().map(inner).collect();
        last[0].reg.as_mut().unwrap().mode = None;
        assert_eq!(first, last);
        assert_eq!(fs::read(fixture.images().join("fs-77.img")).unwrap(), fs::read(back_at.join("fs-77.img")).unwrap());
    }
}

#[test]
fn an_incremental_tree_holds_only_what_changed() {
    let fixture = Fixture::new(Isa::X86_64, 10, 5);
    let report = translate(&fixture.images(), Isa::Aarch64).unwrap();
    let tree = ImageDir::open(report.out.as_ref().unwrap()).unwrap();
    let (_, runs) = read_runs(&tree, crate::image::ImageKind::Pagemap, PID.into()).unwrap();
    let own: u64 = runs.iter().filter(|run| run.place != Place::Parent).map(|run| run.pages).sum();
    assert_eq!(own, report.pages);
    assert!(own < 8, "{own} pages");
    let heap = runs.iter().find(|run| run.addr == fixture.heap[0].0).unwrap();
    assert_eq!((heap.place, heap.pages), (Place::Parent, 3));
    let vdso = 0x7ffe_0000_0000;
    assert!(runs.iter().all(|run| run.end() <= vdso));
    assert_eq!(report.travel, [fixture.images(), fixture.dir.path().join("app_aarch64")]);

    let mm = tree.read_one::<proto::MmEntry>(u64::from(PID)).unwrap();
    assert!(mm.vmas.iter().all(|vma| vma.status & vma::VDSO == 0));
    assert_eq!(mm.mm_saved_auxv[..4], [16, 3, 6, 4096]);
    assert_eq!((mm.mm_start_code, mm.mm_end_code), (TEXT, TEXT + 0x2345));
    let store = PageReader::open(&tree, PID.into()).unwrap();
    let on_stack: Vec<u64> = (0..2 + mm.mm_saved_auxv.len() as u64).map(|i| word(&store, TOP + 48 + 8 * i)).collect();
    assert_eq!((&on_stack[..2], &on_stack[2..]), (&[1, 0][..], mm.mm_saved_auxv.as_slice()));
    let mut platform = [0; 8];
    let at = mm.mm_saved_auxv[5];
    store.read(at, &mut platform).unwrap();
    assert_eq!(&platform, b"aarch64\0");

    let files = tree.read::<proto::FileEntry>(None).unwrap();
    let exe = files[0].reg.as_ref().unwrap();
    assert!(exe.name.ends_with("/app_aarch64"));
    assert_eq!(exe.size, Some(fs::metadata(&exe.name).unwrap().len()));
    assert_eq!(exe.flags, 0o400_000);
}

#[test]
fn a_flat_tree_needs_no_parent() {
    let fixture = Fixture::new(Isa::Aarch64, 4, 6);
    let out = fixture.dir.path().join("flat");
    let options = Options { out: Some(out.clone()), flatten: true, ..Options::new(fixture.images(), Isa::X86_64) };
    let report = transform(&options).unwrap();
    fs::remove_dir_all(fixture.images()).unwrap();
    let tree = ImageDir::open(&out).unwrap();
    let store = PageReader::open(&tree, PID.into()).unwrap();
    for (at, fill) in &fixture.heap {
        assert_eq!(word(&store, *at), u64::from_le_bytes([*fill; 8]));
    }
    fixture.machine_of(&tree, Isa::X86_64).return_from_all(&fixture.program, &fixture.truth, "flat");
    assert_eq!(report.travel, [out, fixture.dir.path().join("app_x86-64")]);
}

#[test]
fn a_check_writes_nothing() {
    let fixture = Fixture::new(Isa::X86_64, 4, 7);
    let options = Options { check: true, explain: true, ..Options::new(fixture.images(), Isa::Aarch64) };
    let report = transform(&options).unwrap();
    assert_eq!(report.out, None);
    assert_eq!(report.threads[0].frames.len(), 4);
    let text = report.threads[0].to_string();
    assert!(text.contains("4 frames"));
    let cells = report.threads[0].frames.iter().filter(|frame| frame.cells > 0).count();
    assert_eq!(text.matches("calls setjmp").count(), cells);
    assert!(!fixture.images().join("aarch64").exists());
}

#[test]
fn an_older_translation_is_replaced() {
    let fixture = Fixture::new(Isa::X86_64, 4, 8);
    translate(&fixture.images(), Isa::Aarch64).unwrap();
    translate(&fixture.images(), Isa::Aarch64).unwrap();
    let names = fixture.tree().list().unwrap();
    assert_eq!(names.iter().filter(|name| name.contains("aarch64")).count(), 1, "{names:?}");
}

fn refused(fixture: &Fixture, expected: &str) {
    let error = translate(&fixture.images(), fixture.isa.peer()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\n{expected}");
    let left: Vec<_> = fixture.tree().list().unwrap().into_iter().filter(|name| !name.ends_with(".img")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn threads_elsewhere_are_refused_saying_where() {
    let fixture = Fixture::new(Isa::X86_64, 3, 9);
    fixture.tree().write_one(u64::from(PID), fixture.core(RESTART + 0x40)).unwrap();
    refused(&fixture, "thread 77 is at 0x410140, not at an equivalence point");
    // In the gate, but the gate is open.
    fixture.tree().write_one(u64::from(PID), fixture.core(GATE)).unwrap();
    refused(&fixture, "thread 77 is at 0x410180");
}

#[test]
fn a_closed_gate_is_opened() {
    let mut fixture = Fixture::new(Isa::X86_64, 3, 9);
    let at = fixture.machine.sp + record::FLAGS;
    fixture.machine.ram.put(at, &record::FLAG_GATE.to_le_bytes());
    fixture.write_memory(&[]);
    for pc in [GATE, GATE + 2] {
        fixture.tree().write_one(u64::from(PID), fixture.core(pc)).unwrap();
        translate(&fixture.images(), Isa::Aarch64).unwrap();
        let tree = ImageDir::open(fixture.images().join("aarch64")).unwrap();
        let machine = fixture.machine_of(&tree, Isa::Aarch64);
        assert_eq!(machine.ram.get(machine.sp + record::FLAGS), record::FLAG_RESUMED);
        let core = tree.read_one::<proto::CoreEntry>(u64::from(PID)).unwrap();
        assert_eq!(core.ti_aarch64.as_ref().unwrap().gpregs.pc, RESTART);
        assert_eq!(core.tc.as_ref().unwrap().blk_sigset, 0);
    }
    // Signals waited, too; the thread's own mask is in the record.
    fixture.machine.ram.put(at, &(record::FLAG_GATE | record::FLAG_MASK).to_le_bytes());
    fixture.machine.ram.put(fixture.machine.sp + record::GATE_MASK, &0x1234u64.to_le_bytes());
    fixture.write_memory(&[]);
    let mut held = fixture.core(GATE);
    held.tc.as_mut().unwrap().blk_sigset = u64::MAX;
    held.thread_core.as_mut().unwrap().blk_sigset = Some(u64::MAX);
    fixture.tree().write_one(u64::from(PID), held).unwrap();
    translate(&fixture.images(), Isa::Aarch64).unwrap();
    let tree = ImageDir::open(fixture.images().join("aarch64")).unwrap();
    let machine = fixture.machine_of(&tree, Isa::Aarch64);
    assert_eq!(machine.ram.get(machine.sp + record::FLAGS), record::FLAG_RESUMED);
    let core = tree.read_one::<proto::CoreEntry>(u64::from(PID)).unwrap();
    assert_eq!(core.tc.as_ref().unwrap().blk_sigset, 0x1234);
    assert_eq!(core.thread_core.as_ref().unwrap().blk_sigset, Some(0x1234));
}

#[test]
fn text_must_be_the_files() {
    let fixture = Fixture::new(Isa::X86_64, 3, 10);
    let file = fs::read(fixture.dir.path().join("app_x86-64")).unwrap();
    let mut page = file[0x1_1000..0x1_2000].to_vec();
    fixture.write_memory(&[(TEXT + 0x1000, page.clone())]);
    translate(&fixture.images(), Isa::Aarch64).unwrap();
    let (_, runs) = {
        let tree = ImageDir::open(fixture.images().join("aarch64")).unwrap();
        read_runs(&tree, crate::image::ImageKind::Pagemap, PID.into()).unwrap()
    };
    assert!(runs.iter().all(|run| run.addr > TEXT + 0x3000), "an equal copy is dropped");
    fs::remove_dir_all(fixture.images().join("aarch64")).unwrap();
    page[0x123] ^= 1;
    fixture.write_memory(&[(TEXT + 0x1000, page)]);
    refused(&fixture, "memory at 0x411123");
}

#[test]
fn a_stack_that_cannot_grow_is_refused_with_the_bytes() {
    let page = |at: u64| at - at % PAGE_SIZE;
    let sp = |fixture: &Fixture| {
        let options = Options { check: true, ..Options::new(fixture.images(), fixture.isa.peer()) };
        transform(&options).unwrap().threads[0].sp
    };
    let deeper = (0..).map(|seed| Fixture::new(Isa::ALL[seed as usize % 2], 60, seed));
    let (fixture, (from, to)) = deeper
        .map(|fixture| (sp(&fixture), fixture))
        .map(|(sp, f)| (f, sp))
        .find(|(_, (a, b))| b.0 < page(a.0))
        .unwrap();

    // It grows where it may.
    translate(&fixture.images(), fixture.isa.peer()).unwrap();
    let out = fixture.images().join(fixture.isa.peer().name());
    let tree = ImageDir::open(&out).unwrap();
    let mm = tree.read_one::<proto::MmEntry>(u64::from(PID)).unwrap();
    assert!(mm.vmas.iter().any(|vma| vma.start == page(to.0)));
    fixture.machine_of(&tree, fixture.isa.peer()).return_from_all(&fixture.program, &fixture.truth, "grown");
    fs::remove_dir_all(out).unwrap();

    let mut core = fixture.core(RESTART);
    for limit in &mut core.tc.as_mut().unwrap().rlimits.as_mut().unwrap().rlimits {
        limit.cur = TOP + PAGE_SIZE - page(from.0);
    }
    fixture.tree().write_one(u64::from(PID), core).unwrap();
    refused(&fixture, &format!("needs {} bytes of stack more", page(from.0) - page(to.0)));
}

#[test]
fn what_one_version_does_not_move_is_named() {
    let fixture = Fixture::new(Isa::Aarch64, 2, 13);
    let tree = fixture.tree();
    let pid = u64::from(PID);
    let error = translate(&fixture.images(), Isa::Aarch64).unwrap_err();
    assert!(matches!(error, TransformError::SameIsa { .. }), "{error}");

    let mut core = fixture.core(RESTART);
    core.thread_core.as_mut().unwrap().set_seccomp_mode(proto::SeccompMode::Filter);
    tree.write_one(pid, core).unwrap();
    refused(&fixture, "a seccomp filter");

    let mut core = fixture.core(RESTART);
    core.ti_aarch64.as_mut().unwrap().fpsimd.fpcr = 1 << 25;
    tree.write_one(pid, core).unwrap();
    refused(&fixture, "default NaN");
    tree.write_one(pid, fixture.core(RESTART)).unwrap();

    let mut mm = fixture.mm();
    mm.vmas[4].end = 1 << 48;
    mm.vmas.truncate(5);
    tree.write_one(pid, mm).unwrap();
    refused(&fixture, "is above 2^47");

    let mut mm = fixture.mm();
    mm.mm_saved_auxv[5] = 65536; // AT_PAGESZ
    tree.write_one(pid, mm).unwrap();
    refused(&fixture, "pages of 65536 bytes");
    tree.write_one(pid, fixture.mm()).unwrap();

    let two = proto::PstreeEntry { pid: PID, pgid: PID, sid: PID, ppid: 0, threads: vec![PID, PID + 1] };
    tree.write_one(None, two).unwrap();
    refused(&fixture, "core-78.img");
}

#[test]
fn every_thread_is_translated() {
    for isa in Isa::ALL {
        let fixture = Fixture::new(isa, 6, 15);
        let tree = fixture.tree();
        // A second thread on the same stack: what becomes of its frames is known, and that it gets registers of its own.
        let mut second = fixture.core(RESTART);
        second.tc = None;
        tree.write_one(u64::from(PID) + 1, second.clone()).unwrap();
        let threads = vec![PID + 1, PID];
        tree.write_one(None, proto::PstreeEntry { pid: PID, pgid: PID, sid: PID, ppid: 0, threads }).unwrap();
        let report = translate(&fixture.images(), isa.peer()).unwrap();
        let tids: Vec<u32> = report.threads.iter().map(|thread| thread.tid).collect();
        assert_eq!(tids, [PID, PID + 1], "the leader is first");
        let out = ImageDir::open(report.out.as_ref().unwrap()).unwrap();
        let leader = out.read_one::<proto::CoreEntry>(u64::from(PID)).unwrap();
        let other = out.read_one::<proto::CoreEntry>(u64::from(PID) + 1).unwrap();
        assert_eq!((other.isa(), other.tc.is_none()), (Some(isa.peer()), true));
        assert_eq!((&leader.thread_info, &leader.ti_aarch64), (&other.thread_info, &other.ti_aarch64));
        fixture.machine_of(&out, isa.peer()).return_from_all(&fixture.program, &fixture.truth, "two threads");

        second.thread_core.as_mut().unwrap().set_seccomp_mode(proto::SeccompMode::Filter);
        tree.write_one(u64::from(PID) + 1, second).unwrap();
        let error = translate(&fixture.images(), isa.peer()).unwrap_err().to_string();
        assert!(error.contains("a seccomp filter"), "{error}");
    }
}

#[test]
fn another_pair_is_refused() {
    let fixture = Fixture::new(Isa::X86_64, 2, 14);
    let other = tempfile::tempdir().unwrap();
    let random = &mut Random(99);
    super::fixture::write_pair(&super::machine::Program::new(random, 9), other.path());
    let with = |pair: &Path| {
        let options = Options { pair: Some(pair.to_owned()), ..Options::new(fixture.images(), Isa::Aarch64) };
        transform(&options).unwrap_err()
    };
    assert!(matches!(with(other.path()), TransformError::OtherExecutable { .. }));
    fs::copy(other.path().join("app_aarch64"), fixture.dir.path().join("app_aarch64")).unwrap();
    refused(&fixture, "not linked together");
    fs::remove_file(fixture.dir.path().join("app_aarch64")).unwrap();
    refused(&fixture, "cannot read");
}

#[test]
fn truncated_and_corrupted_images_are_refused_and_leave_nothing() {
    let fixture = Fixture::new(Isa::X86_64, 5, 15);
    let random = &mut Random(4);
    for name in ["pstree.img", "core-77.img", "mm-77.img", "files.img", "pagemap-77.img", "pages-1.img"] {
        let path = fixture.images().join(name);
        let whole = fs::read(&path).unwrap();
        for _ in 0..40 {
            fs::write(&path, &whole[..random.below(whole.len() as u64) as usize]).unwrap();
            refused(&fixture, "");
            let mut flipped = whole.clone();
            let at = random.below(whole.len() as u64) as usize;
            flipped[at] ^= 1 << random.below(8);
            fs::write(&path, flipped).unwrap();
            // A flipped bit may be a different but valid process; it must only never panic.
            if translate(&fixture.images(), Isa::Aarch64).is_ok() {
                fs::remove_dir_all(fixture.images().join("aarch64")).unwrap();
            }
        }
        fs::write(&path, whole).unwrap();
    }
    translate(&fixture.images(), Isa::Aarch64).unwrap();
    let store = PageReader::open(&ImageDir::open(fixture.images().join("aarch64")).unwrap(), PID.into()).unwrap();
    assert_eq!(word(&store, TLS_BLOCK + 0x48), TLS_BLOCK + 0x48);
}
