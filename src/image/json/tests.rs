//! Round trips of whole images, and JSON that is refused.
use super::super::dir::{ImageDir, push_record};
use super::super::entry::Entry;
use super::super::pages::PageWriter;
use super::*;

const PRETTY: Options = Options { pretty: true, no_payload: false };

fn json(bytes: &[u8], options: Options) -> serde_json::Value {
    serde_json::to_value(decode(Path::new("x.img"), bytes, options).unwrap().json).unwrap()
}

/// The bytes of an image with these entries.
fn image(kind: ImageKind, entries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = super::super::dir::head(kind);
    entries.iter().for_each(|e| push_record(&mut bytes, e));
    bytes
}

fn there_and_back(bytes: &[u8]) {
    for options in [Options::default(), PRETTY] {
        let decoded = decode(Path::new("x.img"), bytes, options).unwrap();
        assert!(decoded.is_exact(bytes), "{:?}", decoded.json);
    }
}

/// An image file per kind of value that there is: negative numbers, all ones, nested messages, enumerations.
fn tree() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = ImageDir::open(tmp.path()).unwrap();
    let fown = proto::FownEntry::default();
    let reg = proto::RegFileEntry {
        id: 1,
        flags: 0o102_002,
        pos: u64::MAX,
        name: "/tmp/ä \"x\"\n".into(),
        mnt_id: Some(-1),
        ext: Some(false),
        build_id: vec![1, u32::MAX],
        ..Default::default()
    };
    let file = |kind: proto::FdType| proto::FileEntry { r#type: kind.into(), id: 7, ..Default::default() };
    let files = [
        proto::FileEntry { reg: Some(reg), ..file(proto::FdType::Reg) },
        proto::FileEntry { isk: Some(vec![8, 1, 255]), ..file(proto::FdType::Inetsk) },
        proto::FileEntry {
            pipe: Some(proto::PipeEntry { id: 7, pipe_id: 9, flags: 2048, fown }),
            ..file(proto::FdType::Pipe)
        },
    ];
    dir.write(None, &files.map(Entry::new)).unwrap();
    let a = proto::PipeDataEntry { pipe_id: 1, bytes: 200, size: None };
    let b = proto::PipeDataEntry { pipe_id: 2, bytes: 0, size: Some(65536) };
    dir.write(None, &[Entry::with_payload(a, (0..200).collect()), b.into()]).unwrap();
    let task =
        proto::TaskCoreEntry { task_state: 1, comm: "x".into(), oom_score_adj: Some(-1000), ..Default::default() };
    let regs = proto::UserAarch64RegsEntry { regs: (0..31).collect(), sp: 1 << 47, pc: 4, pstate: 0 };
    let fpsimd = proto::UserAarch64FpsimdContextEntry { vregs: vec![u64::MAX; 64], fpsr: 0, fpcr: 1 << 24 };
    let info = proto::ThreadInfoAarch64 { tls: 5, gpregs: regs, fpsimd, ..Default::default() };
    let core = proto::CoreEntry { mtype: 3, tc: Some(task), ti_aarch64: Some(info), ..Default::default() };
    dir.write_one(7, core).unwrap();
    let v = proto::VmaEntry { start: 4096, end: 8192, prot: 3, flags: 0x22, status: 513, fd: -1, ..Default::default() };
    dir.write_one(7, proto::MmEntry { vmas: vec![v], dumpable: Some(-1), ..Default::default() }).unwrap();
    let mut pages = PageWriter::create(&dir, 7, 1).unwrap();
    pages.present(4096, &[1; 4096]).unwrap();
    pages.in_parent(1 << 20, 1 << 33).unwrap();
    pages.finish().unwrap();
    dir.write_one(None, proto::InventoryEntry { img_version: 2, ..Default::default() }).unwrap();
    dir.write_one(None, proto::StatsEntry::default()).unwrap();
    let paths = dir.list().unwrap().into_iter().filter(|n| !n.starts_with("pages-")).map(|n| tmp.path().join(n));
    let paths = paths.collect();
    (tmp, paths)
}

#[test]
fn images_come_back_to_the_byte_plain_and_pretty() {
    let (_tmp, paths) = tree();
    assert_eq!(paths.len(), 7);
    for path in paths {
        there_and_back(&read(Some(&path)).unwrap());
    }
}

#[test]
fn json_has_the_shape_that_crit_gives_it() {
    let (tmp, _) = tree();
    let of = |name: &str, options| json(&read(Some(&tmp.path().join(name))).unwrap(), options);
    let files = of("files.img", Options::default());
    assert_eq!(files["magic"], "FILES");
    assert_eq!(files["entries"][0]["type"], "REG");
    assert_eq!(files["entries"][0]["reg"]["mnt_id"], -1);
    assert_eq!(files["entries"][0]["reg"]["pos"], u64::MAX);
    assert_eq!(of("files.img", PRETTY)["entries"][0]["reg"]["flags"], "O_RDWR | O_APPEND | 0x8000");
    assert_eq!(of("mm-7.img", PRETTY)["entries"][0]["vmas"][0]["start"], "0x1000");
    assert_eq!(of("core-7.img", PRETTY)["entries"][0]["tc"]["task_state"], "Alive");
    let pipes = of("pipes-data.img", Options { pretty: false, no_payload: true });
    assert_eq!(pipes["entries"][0]["extra"], "... <200 bytes>");
    let first = of("pagemap-7.img", Options::default())["entries"][0].clone();
    assert_eq!(first, serde_json::json!({"pages_id": 1}));
    let text =
        serde_json::to_string(&decode(Path::new("x"), &image(ImageKind::Fs, &[&[8, 1, 16, 2]]), PRETTY).unwrap().json);
    assert_eq!(text.unwrap(), r#"{"magic":"FS","entries":[{"cwd_id":1,"root_id":2}]}"#);
}

#[test]
fn what_no_schema_declares_is_shown_and_comes_back() {
    // cwd_id, root_id; then field 111 of each wire type.
    let entry = [&[8, 1, 16, 2][..], &[0xf8, 6, 1], &[0xf9, 6, 1, 2, 3, 4, 5, 6, 7, 8], &[0xfa, 6, 2, 9, 9]].concat();
    let entry = [&entry[..], &[0xfd, 6, 1, 0, 0, 0]].concat();
    let bytes = image(ImageKind::Fs, &[&entry]);
    there_and_back(&bytes);
    let decoded = decode(Path::new("x"), &bytes, PRETTY).unwrap();
    assert_eq!(decoded.unknown, ["FsEntry field 111"]);
    // A kind without a schema, and a tree of before the common magic.
    let bytes = image(ImageKind::Netns, &[&entry, &[]]);
    there_and_back(&bytes);
    assert!(decode(Path::new("x"), &bytes, PRETTY).unwrap().no_schema);
    let old = decode(Path::new("x"), &image(ImageKind::Fs, &[&[8, 1, 16, 2]])[4..], PRETTY).unwrap();
    assert_eq!(old.kind, ImageKind::Fs);
}

#[test]
fn bytes_in_an_unusual_order_are_said_not_to_come_back() {
    let bytes = image(ImageKind::Fs, &[&[16, 2, 8, 1]]);
    let decoded = decode(Path::new("x"), &bytes, Options::default()).unwrap();
    assert!(!decoded.is_exact(&bytes));
    let twice = image(ImageKind::Fs, &[&[8, 1, 8, 1, 16, 2]]);
    let e = decode(Path::new("x"), &twice, Options::default()).unwrap_err();
    assert!(e.to_string().contains("`cwd_id` is there twice"), "{e}");
}

#[test]
fn kinds_that_cannot_be_read_are_named() {
    let said = |bytes: &[u8]| decode(Path::new("x"), bytes, PRETTY).unwrap_err().to_string();
    assert!(said(&image(ImageKind::GhostFile, &[&[]])).contains("no schema for GHOST_FILE"));
    assert!(said(&[1, 2, 3, 4, 5, 6, 7, 8]).contains("magic 0x04030201"));
    assert!(said(&[1, 2, 3]).contains("truncated"));
    let raw = read(Some(Path::new("/nowhere/pages-1.img"))).unwrap_err();
    assert!(raw.to_string().contains("PAGES images hold plain bytes"), "{raw}");
}

#[test]
fn information_counts_entries_and_payloads() {
    let (tmp, _) = tree();
    let of = |name: &str| {
        let path = tmp.path().join(name);
        let i = info(&path, &read(Some(&path)).unwrap()).unwrap();
        (i.kind.name(), i.entries, i.payload)
    };
    assert_eq!(of("pipes-data.img"), ("PIPES_DATA", 2, 200));
    assert_eq!(of("pagemap-7.img"), ("PAGEMAP", 2, 0));
    assert_eq!(of("files.img"), ("FILES", 3, 0));
}

#[test]
fn json_that_is_of_no_image_is_refused_with_the_place() {
    let said = |json: serde_json::Value| encode(&json).unwrap_err().to_string();
    let fs = |entry| serde_json::json!({"magic": "FS", "entries": [entry]});
    use serde_json::json;
    assert_eq!(said(json!({})), "magic: missing");
    assert_eq!(said(json!({"magic": "NOPE", "entries": []})), "magic: isamorph knows no kind of image named \"NOPE\"");
    assert_eq!(said(fs(json!({"cwd_id": 1}))), "entries[0].root_id: missing");
    assert_eq!(said(fs(json!({"cwd_id": 1, "root_id": 2, "x": 1}))), "entries[0].x: FsEntry has no such field");
    for wrong in [json!(-1), json!(1u64 << 32), json!("0x1ffffffff"), json!("y"), json!([]), json!(1.5), json!(null)] {
        let e = said(fs(json!({"cwd_id": wrong, "root_id": 2})));
        assert!(e.starts_with("entries[0].cwd_id: ") && e.contains("a number that fits"), "{e}");
    }
    let pipe =
        |extra: &str| said(json!({"magic": "PIPES_DATA", "entries": [{"pipe_id": 1, "bytes": 3, "extra": extra}]}));
    assert!(pipe("eHl6eg==").contains("4 bytes of payload where the entry says 3"));
    assert!(pipe("... <3 bytes>").contains("base64"));
}

#[test]
fn pagemaps_of_older_crit_are_understood() {
    let json = serde_json::json!({"magic": "PAGEMAP", "entries": [
        {"pages_id": 1}, {"vaddr": "0x1000", "nr_pages": 2, "flags": "PE_PRESENT"}]});
    let bytes = encode(&json).unwrap();
    assert_eq!(bytes, image(ImageKind::Pagemap, &[&[8, 1], &[8, 0x80, 0x20, 16, 2, 32, 4]]));
}
