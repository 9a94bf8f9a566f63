//! A made-up process for tests: a pair of ELF files, and the image tree of a process that runs one of them.
use super::machine::{Machine, Program, RESTORE_RT, ROOTS, Ram, Random, TOP, Truth, run};
use crate::image::{ImageDir, PAGE_SIZE, PageReader, PageWriter, proto, vma};
use crate::portable::{Executable, manifest, pair};
use isamorph_arch::auxv::Baseline;
use isamorph_arch::{DwarfReg, Isa};
use proto::FdType;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const PID: u32 = 77;
pub(super) const RESTART: u64 = 0x41_0100;
pub(super) const GATE: u64 = 0x41_0180;
pub(super) const TLS_BLOCK: u64 = 0x5_0000_1000;
pub(super) const TEXT: u64 = 0x41_0000;
const SITES: u64 = 0x45_0000;
const TLS_MEMSZ: u64 = 0x48;
const HEAP: u64 = 0x5_0000_0000;
const PF: [u32; 4] = [4, 5, 6, 4];
/// Address, offset, size of the segments; the last one's size is that of the sites.
const SEGMENTS: [(u64, u64, u64); 3] =
    [(0x40_0000, 0, 0x1000), (TEXT, 0x1_0000, 0x2345), (0x43_0000, 0x3_0000, 0x1000)];

pub(super) fn tp(isa: Isa) -> u64 {
    match isa {
        Isa::X86_64 => TLS_BLOCK + TLS_MEMSZ,
        Isa::Aarch64 => TLS_BLOCK - 16,
    }
}

/// An executable of the pair, without the pair's IDs.
fn elf(program: &Program, isa: Isa) -> Vec<u8> {
    let sites = program.table(isa).to_bytes();
    let mut file = vec![0; 0x5_0000];
    file[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut words: Vec<u8> = Vec::new();
    words.extend(2u16.to_le_bytes());
    words.extend(isa.elf_machine().to_le_bytes());
    words.extend(1u32.to_le_bytes());
    words.extend(TEXT.to_le_bytes());
    words.extend(64u64.to_le_bytes());
    words.extend([0; 8 + 4]);
    for half in [64u16, 56, 5, 0, 0, 0] {
        words.extend(half.to_le_bytes());
    }
    let mut program_header = |kind: u32, flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64, align: u64| {
        words.extend(kind.to_le_bytes());
        words.extend(flags.to_le_bytes());
        for word in [offset, vaddr, vaddr, filesz, memsz, align] {
            words.extend(word.to_le_bytes());
        }
    };
    for (index, (vaddr, offset, size)) in SEGMENTS.into_iter().enumerate() {
        program_header(1, PF[index], offset, vaddr, size, size, 0x1_0000);
    }
    program_header(1, PF[3], 0x5_0000, SITES, sites.len() as u64, sites.len() as u64, 0x1_0000);
    program_header(7, 4, 0, TEXT, 0, TLS_MEMSZ, 8);
    file[16..16 + words.len()].copy_from_slice(&words);
    for (at, byte) in file[0x1_0000..0x1_2345].iter_mut().enumerate() {
        *byte = (at % 251) as u8 ^ isa.elf_machine() as u8;
    }
    let mut text: Vec<u8> = Vec::new();
    text.extend(manifest::MAGIC);
    text.extend(manifest::VERSION.to_le_bytes());
    text.extend(u32::from(isa.elf_machine()).to_le_bytes());
    let ranges = [(TEXT, TEXT + 0x200), (0, 0), (TEXT, TEXT + 0x2345), (0, 0)];
    text.extend(ranges.iter().flat_map(|(start, end)| [start.to_le_bytes(), end.to_le_bytes()]).flatten());
    for word in [TEXT + 0x80, RESTART, RESTART + 0x40, GATE, TEXT + 0xc0, RESTORE_RT] {
        text.extend(word.to_le_bytes());
    }
    text.extend(ROOTS.iter().flat_map(|root| root.to_le_bytes()));
    text.extend([0; 8]); // tls_info
    text.extend([0; 8 * 10]);
    text.extend(SITES.to_le_bytes());
    text.extend((SITES + sites.len() as u64).to_le_bytes());
    text.extend([0; 64]);
    file[0x800..0x800 + manifest::LEN].copy_from_slice(&text);
    file.extend(sites);
    file
}

/// Writes both executables.
pub(super) fn write_pair(program: &Program, dir: &Path) {
    let mut files = Isa::ALL.map(|isa| elf(program, isa));
    let ids = [0, 1].map(|index: usize| pair::id(&Executable::parse(files[index].clone()).unwrap()).unwrap());
    for (index, isa) in Isa::ALL.into_iter().enumerate() {
        let at = 0x800 + manifest::OWN_ID_AT;
        files[index][at..at + 32].copy_from_slice(&ids[index]);
        files[index][at + 32..at + 64].copy_from_slice(&ids[1 - index]);
        fs::write(dir.join(format!("app_{}", isa.pair_suffix())), &files[index]).unwrap();
    }
}

/// A process that runs the pair's executable for `isa`.
pub(super) struct Fixture {
    pub program: Program,
    pub machine: Machine,
    pub truth: Truth,
    pub isa: Isa,
    pub dir: tempfile::TempDir,
    pub heap: Vec<(u64, u8)>,
}

impl Fixture {
    pub fn new(isa: Isa, depth: usize, seed: u64) -> Self {
        let random = &mut Random(seed);
        let program = Program::new(random, 30);
        let (machine, truth) = run(&program, random, isa, depth, tp(isa));
        let dir = tempfile::tempdir().unwrap();
        write_pair(&program, dir.path());
        let heap = vec![(HEAP, 1), (HEAP + 2 * PAGE_SIZE, 2)];
        let fixture = Self { program, machine, truth, isa, dir, heap };
        fixture.write();
        fixture
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn tree(&self) -> ImageDir {
        ImageDir::create(self.images()).unwrap()
    }

    fn exe(&self) -> PathBuf {
        self.dir.path().join(format!("app_{}", self.isa.pair_suffix()))
    }

    /// The words from `start_stack` on, and the strings behind them, as a kernel leaves them.
    fn start_page(&self) -> (Vec<u8>, Vec<u64>) {
        let platform = Baseline::of(self.isa).platform;
        let platform_at = TOP + 0xf00 - platform.len() as u64;
        let auxv = [33, 0x7ffe_0000_0000, 16, 0xbfeb_fbff, 6, 4096, 15, platform_at, 51, 3632, 25, TOP + 0xe00, 0, 0];
        let mut words = vec![1, TOP + 0xf80, 0, TOP + 0xfa0, TOP + 0xfb0, 0];
        words.extend(auxv);
        let mut page: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        page.resize(PAGE_SIZE as usize, 0);
        page[0xf00 - platform.len()..0xf00].copy_from_slice(platform);
        page[0xf80..0xf84].copy_from_slice(b"app\0");
        (page, auxv.to_vec())
    }

    pub fn write(&self) {
        let tree = self.tree();
        let pid = u64::from(PID);
        let inventory = proto::InventoryEntry { img_version: 2, ..Default::default() };
        tree.write_one(None, inventory).unwrap();
        tree.write_one(None, proto::PstreeEntry { pid: PID, pgid: PID, sid: PID, ppid: 0, threads: vec![PID] })
            .unwrap();
        tree.write_one(pid, proto::FsEntry { cwd_id: 2, root_id: 2, umask: Some(0o22) }).unwrap();
        tree.write_one(pid, self.core(RESTART)).unwrap();
        self.write_files();
        self.write_memory(&[]);
    }

    fn write_files(&self) {
        let reg = |id, name: &Path, flags, size| proto::FileEntry {
            r#type: FdType::Reg.into(),
            id,
            reg: Some(proto::RegFileEntry {
                id,
                flags,
                name: name.to_str().unwrap().into(),
                size,
                ..Default::default()
            }),
            ..Default::default()
        };
        let large = match self.isa {
            Isa::X86_64 => 0o100_000,
            Isa::Aarch64 => 0o400_000,
        };
        let size = Some(fs::metadata(self.exe()).unwrap().len());
        let files = [reg(1, &self.exe(), large, size), reg(2, Path::new("/"), large, None)];
        self.tree().write(None, &files.map(Into::into)).unwrap();
    }

    pub fn core(&self, pc: u64) -> proto::CoreEntry {
        let rlimits = vec![proto::RlimitEntry { cur: 8 << 20, max: u64::MAX }; 16];
        let task = proto::TaskCoreEntry {
            task_state: 1,
            comm: "app".into(),
            rlimits: Some(proto::TaskRlimitsEntry { rlimits }),
            ..Default::default()
        };
        let mut core = proto::CoreEntry { tc: Some(task), thread_core: Some(Default::default()), ..Default::default() };
        let stack = super::frames::Rewritten {
            start: isamorph_arch::RemoteAddr(self.machine.sp),
            bytes: Vec::new(),
            registers: self.machine.registers.iter().map(|(reg, value)| (*reg, *value)).collect(),
            cells: Vec::new(),
        };
        let tp = isamorph_arch::RemoteAddr(self.machine.tp);
        super::core::write(&mut core, self.isa, pc, &stack, tp, Default::default(), 0x1234);
        core
    }

    pub fn mm(&self) -> proto::MmEntry {
        let vma = |start, end, pgoff, shmid, prot, status| proto::VmaEntry {
            start,
            end,
            pgoff,
            shmid,
            prot,
            flags: if status & vma::STACK != 0 { 0x122 } else { 2 },
            status: vma::REGULAR | status,
            fd: -1,
            ..Default::default()
        };
        let file = vma::FILE_PRIVATE;
        let sites_end = SITES + (self.program.table(self.isa).to_bytes().len() as u64).next_multiple_of(PAGE_SIZE);
        let stack_start = self.machine.sp - self.machine.sp % PAGE_SIZE;
        let vmas = vec![
            vma(0x40_0000, 0x40_1000, 0, 1, 1, file),
            vma(TEXT, TEXT + 0x3000, 0x1_0000, 1, 5, file),
            vma(0x43_0000, 0x43_1000, 0x3_0000, 1, 3, file),
            vma(SITES, sites_end, 0x5_0000, 1, 1, file),
            vma(HEAP, HEAP + 0x1_0000, 0, 0, 3, vma::ANON_PRIVATE),
            vma(stack_start, TOP + PAGE_SIZE, 0, 0, 3, vma::ANON_PRIVATE | vma::STACK),
            vma(0x7ffe_0000_0000, 0x7ffe_0000_2000, 0, 0, 5, vma::VDSO),
        ];
        proto::MmEntry {
            mm_start_stack: TOP,
            mm_arg_start: TOP + 0xf80,
            exe_file_id: 1,
            mm_saved_auxv: self.start_page().1,
            vmas,
            ..Default::default()
        }
    }

    /// Writes mm, pagemap and pages; `text` are stored pages of the executable's text.
    pub fn write_memory(&self, text: &[(u64, Vec<u8>)]) {
        let tree = self.tree();
        tree.write_one(u64::from(PID), self.mm()).unwrap();
        let mut pages: Vec<(u64, Vec<u8>)> = text.to_vec();
        pages.extend(self.heap.iter().map(|(at, fill)| (*at, vec![*fill; PAGE_SIZE as usize])));
        let mut tls = vec![0; PAGE_SIZE as usize];
        let self_word = (TLS_BLOCK + TLS_MEMSZ) % PAGE_SIZE;
        tls[self_word as usize..self_word as usize + 8].copy_from_slice(&(TLS_BLOCK + TLS_MEMSZ).to_le_bytes());
        pages.push((TLS_BLOCK, tls));
        pages.sort();
        let first = self.machine.sp - self.machine.sp % PAGE_SIZE;
        let ram = &self.machine.ram;
        pages.extend(
            (first..TOP).step_by(PAGE_SIZE as usize).map(|at| (at, ram.slice(at, PAGE_SIZE as usize).to_vec())),
        );
        pages.push((TOP, self.start_page().0));
        pages.push((0x7ffe_0000_0000, vec![7; 2 * PAGE_SIZE as usize]));
        let mut writer = PageWriter::create(&tree, PID.into(), 1).unwrap();
        for (at, page) in &pages {
            writer.present(*at, page).unwrap();
        }
        writer.finish().unwrap();
    }

    /// The process in a tree, as a machine.
    pub fn machine_of(&self, tree: &ImageDir, isa: Isa) -> Machine {
        let core = tree.read_one::<proto::CoreEntry>(u64::from(PID)).unwrap();
        assert_eq!(core.isa(), Some(isa));
        let (sp, tp, registers) = registers(&core);
        let store = PageReader::open(tree, PID.into()).unwrap();
        let mut ram = vec![0; self.machine.ram.0.len() * 4];
        let start = TOP - ram.len() as u64;
        for (at, page) in (start..TOP).step_by(PAGE_SIZE as usize).zip(ram.chunks_exact_mut(PAGE_SIZE as usize)) {
            // Pages below the stack are not there.
            let _ = store.read(at, page);
        }
        Machine { isa, ram: Ram(ram), registers, sp, tp }
    }
}

/// Stack pointer, thread pointer and callee-saved registers of a core image.
fn registers(core: &proto::CoreEntry) -> (u64, u64, BTreeMap<DwarfReg, u64>) {
    let number = |(reg, value): (u16, u64)| (DwarfReg(reg), value);
    if let Some(info) = &core.thread_info {
        let r = &info.gpregs;
        let saved = [(3, r.bx), (6, r.bp), (12, r.r12), (13, r.r13), (14, r.r14), (15, r.r15)];
        return (r.sp, r.fs_base, saved.map(number).into());
    }
    let info = core.ti_aarch64.as_ref().unwrap();
    let general = (19..30).map(|reg| (reg, info.gpregs.regs[usize::from(reg)]));
    let vector = (8..16).map(|reg| (64 + reg, info.fpsimd.vregs[2 * usize::from(reg)]));
    (info.gpregs.sp, info.tls, general.chain(vector).map(number).collect())
}
