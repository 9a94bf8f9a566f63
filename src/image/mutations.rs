//! Random damage to images of every kind: every reader gives an error or some value, and never panics.
use std::fs;

use super::json::{self, Options};
use super::{Entry, ImageDir, ImageEntry, ImageKind, PageReader, PageWriter, explore, proto, read_runs};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    /// One to four changes of the kinds that damage and malice make.
    fn damage(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                3 => bytes.truncate(at),
                4 => {
                    let from = self.below(whole.len());
                    let len = self.below(12).min(whole.len() - from);
                    bytes.splice(at..at, whole[from..from + len].iter().copied());
                }
                _ => {
                    let end = (at + self.below(8)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        bytes
    }
}

/// In memory where there is such a place: thousands of truncations are slow on disks.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Writes one entry with something in it, and reads it in all ways.
fn one<T: ImageEntry + Clone + PartialEq + std::fmt::Debug>(dir: &ImageDir, random: &mut Random, entry: T) {
    let id = T::KIND.file_name(None).is_none().then_some(7);
    dir.write(id, &[Entry::new(entry.clone()), Entry::new(entry)]).unwrap();
    let path = dir.file_path(T::KIND, id).unwrap();
    let whole = fs::read(&path).unwrap();
    for _ in 0..600 {
        let bytes = random.damage(&whole);
        fs::write(&path, &bytes).unwrap();
        let typed = dir.read::<T>(id);
        let shown = json::decode(&path, &bytes, Options { pretty: random.below(2) == 0, no_payload: false });
        let _ = json::info(&path, &bytes);
        if let Ok(entries) = &typed {
            // What is read can be written, and is the same again.
            dir.write(id, entries).unwrap();
            assert_eq!(&dir.read::<T>(id).unwrap(), entries);
        }
        if let Ok(decoded) = shown {
            // What is shown as coming back does come back, and is well-formed JSON in any case.
            let value = serde_json::to_value(&decoded.json).unwrap();
            assert_eq!(json::encode(&value).is_ok_and(|again| again == bytes), decoded.is_exact(&bytes));
        }
    }
    fs::write(&path, &whole).unwrap();
}

fn core() -> proto::CoreEntry {
    let sigactions = vec![proto::SaEntry { sigaction: 1, ..Default::default() }; 62];
    let task = proto::TaskCoreEntry { task_state: 1, comm: "x".into(), sigactions, ..Default::default() };
    let creds = proto::CredsEntry { groups: vec![1, 2], cap_eff: vec![u32::MAX, 1], ..Default::default() };
    let thread = proto::ThreadCoreEntry { creds: Some(creds), sched_nice: Some(-3), ..Default::default() };
    proto::CoreEntry {
        mtype: 1,
        tc: Some(task),
        thread_core: Some(thread),
        ids: Some(proto::TaskKobjIdsEntry { files_id: 7, ..Default::default() }),
        thread_info: Some(proto::ThreadInfoX86::default()),
        ..Default::default()
    }
}

fn mm() -> proto::MmEntry {
    let v = |n: u64| proto::VmaEntry { start: n << 20, end: (n << 20) + 8192, fd: -1, ..Default::default() };
    proto::MmEntry { vmas: (1..9).map(v).collect(), mm_saved_auxv: vec![6, 4096, 0, 0], ..Default::default() }
}

fn file() -> proto::FileEntry {
    let reg = proto::RegFileEntry { id: 1, name: "/tmp/x".into(), mnt_id: Some(-1), ..Default::default() };
    proto::FileEntry { r#type: 1, id: 1, reg: Some(reg), ..Default::default() }
}

#[test]
fn no_damage_of_any_image_makes_a_reader_panic() {
    let tmp = scratch();
    let dir = ImageDir::open(tmp.path()).unwrap();
    let random = &mut Random(2026);
    one(&dir, random, proto::InventoryEntry { img_version: 2, root_ids: core().ids, ..Default::default() });
    one(&dir, random, proto::PstreeEntry { pid: 7, threads: vec![7, 8], ..Default::default() });
    one(&dir, random, core());
    one(&dir, random, mm());
    one(&dir, random, file());
    one(&dir, random, proto::TaskKobjIdsEntry { time_ns_id: Some(3), ..Default::default() });
    one(&dir, random, proto::FdinfoEntry { id: 1, flags: 1, r#type: 1, fd: 3, xattr_security_selinux: None });
    one(&dir, random, proto::FsEntry { cwd_id: 1, root_id: 1, umask: Some(0o22) });
    one(&dir, random, proto::TtyInfoEntry { r#type: 1, termios: Some(Default::default()), ..Default::default() });
    one(&dir, random, proto::TtyDataEntry { tty_id: 1, data: b"typed".to_vec() });
    one(&dir, random, proto::RemapFilePathEntry { orig_id: 1, remap_id: 2, remap_type: Some(1) });
    one(&dir, random, proto::MemfdInodeEntry { name: "/dev/zero".into(), size: 8192, ..Default::default() });
    one(&dir, random, proto::FileLockEntry { pid: -1, len: -1, ..Default::default() });
    one(&dir, random, proto::TimensEntry::default());
    one(&dir, random, proto::UtsnsEntry { nodename: "n".into(), domainname: String::new() });
    one(&dir, random, proto::StatsEntry { dump: Some(Default::default()), restore: None });
    one(&dir, random, proto::PipeDataEntry { pipe_id: 1, bytes: 0, size: Some(65536) });
    one(&dir, random, proto::SeccompEntry { seccomp_filters: vec![Default::default(); 3] });
    let set = proto::CgSetEntry { id: 1, ctls: vec![Default::default(); 2] };
    one(&dir, random, proto::CgroupEntry { sets: vec![set], controllers: vec![Default::default()] });
}

#[test]
fn no_damage_of_a_tree_makes_its_memory_or_its_explorer_panic() {
    let tmp = scratch();
    let parent = ImageDir::open(tmp.path()).unwrap();
    let dir = ImageDir::create(tmp.path().join("child")).unwrap();
    dir.link_parent("..").unwrap();
    for tree in [&parent, &dir] {
        let mut pages = PageWriter::create(tree, 7, 1).unwrap();
        for n in 1..9 {
            match n % 3 {
                0 if std::ptr::eq(tree, &dir) => pages.in_parent(n << 20, 2).unwrap(),
                _ => pages.present(n << 20, &[n as u8; 8192]).unwrap(),
            }
        }
        pages.finish().unwrap();
        tree.write_one(None, proto::InventoryEntry { fdinfo_per_id: Some(true), ..Default::default() }).unwrap();
        let child = proto::PstreeEntry { pid: 7, ppid: 7, threads: vec![7], ..Default::default() };
        tree.write(None, &[child.into()]).unwrap();
        tree.write_one(7, core()).unwrap();
        tree.write_one(7, mm()).unwrap();
        tree.write_one(None, file()).unwrap();
        tree.write_one(7, proto::FsEntry { cwd_id: 1, root_id: 1, umask: None }).unwrap();
        tree.write_one(7, proto::FdinfoEntry { id: 1, r#type: 1, fd: 3, ..Default::default() }).unwrap();
    }
    let look = |dir: &ImageDir| {
        let whats = [explore::What::Processes, explore::What::Descriptors, explore::What::Mappings];
        let good = whats.iter().filter(|what| explore::explore(dir, **what).is_ok()).count();
        let rss = explore::explore(dir, explore::What::Pages).is_ok();
        let memory = PageReader::open(dir, 7).is_ok_and(|pages| {
            pages.segments().iter().all(|s| pages.read(s.addr, &mut vec![0; s.len.min(1 << 20) as usize]).is_ok())
        });
        let _ = read_runs(dir, ImageKind::Pagemap, 7);
        (good, rss, memory)
    };
    assert_eq!(look(&dir), (3, true, true));
    let random = &mut Random(77);
    for tree in [&parent, &dir] {
        for name in tree.list().unwrap().iter().filter(|n| n.ends_with(".img")) {
            let path = tree.path().join(name);
            let whole = fs::read(&path).unwrap();
            for _ in 0..150 {
                fs::write(&path, random.damage(&whole)).unwrap();
                look(&dir);
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    assert_eq!(look(&dir), (3, true, true));
}
