//! Tests of unwinding and layout against an independent model: a machine that runs prologues and epilogues.
//!
//! The source's stack is made by simulated calls; the translated stack is judged by simulated returns. At every
//! return each slot byte, each live register and each live stack byte must be what the target's code expects; and each
//! jump cell of the frame must lead to where `setjmp` would return a second time.
use super::frames::{Layout, LayoutError};
use super::unwind::{Member, Memory, MemoryError, UnwindError, unwind};
use crate::portable::{Place, Residue, Saved, SiteEntry, SiteTable, Value};
use isamorph_arch::{DwarfReg, Isa, RemoteAddr, ReturnAddr, aarch64, jump_cell, syscall_record as record, x86_64};
use std::collections::BTreeMap;

pub(super) const TOP: u64 = 0x7000_0000_0000;
pub(super) const ROOTS: [u64; 3] = [0x40_0010, 0x40_0020, 0];
pub(super) const RESTORE_RT: u64 = 0x40_0030;
/// From the ID of a function to that of its call of `setjmp`.
const TWICE: u64 = 1 << 32;

/// A small generator of numbers (Knuth's MMIX constants): failures are replayed by their seed.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

fn callee_saved(isa: Isa) -> &'static [DwarfReg] {
    match isa {
        Isa::X86_64 => x86_64::dwarf::CALLEE_SAVED,
        Isa::Aarch64 => aarch64::dwarf::CALLEE_SAVED,
    }
}

fn fp(isa: Isa) -> DwarfReg {
    match isa {
        Isa::X86_64 => x86_64::dwarf::FP,
        Isa::Aarch64 => aarch64::dwarf::FP,
    }
}

/// A function with one call site, as `isa` compiles it.
fn site(random: &mut Random, isa: Isa, id: u64, slots_len: u32, cells: u32) -> SiteEntry {
    let ret = match isa {
        Isa::X86_64 => 0x50_0000 + id * 0x40 + 5,
        Isa::Aarch64 => 0x50_0000 + id * 0x40 + 4 * random.below(9),
    };
    let mut saved = Vec::new();
    // x86_64: return address, rbp; aarch64: x30 and x29, as a record.
    let mut below = match isa {
        Isa::X86_64 => {
            saved.push(Saved { reg: x86_64::dwarf::FP, cfa_off: -16 });
            16
        }
        Isa::Aarch64 => {
            let at = -16 * (1 + random.below(3) as i32);
            saved.push(Saved { reg: aarch64::dwarf::FP, cfa_off: at });
            saved.push(Saved { reg: aarch64::dwarf::RA, cfa_off: at + 8 });
            -at
        }
    };
    for reg in callee_saved(isa).iter().filter(|reg| **reg != fp(isa)) {
        if random.below(3) == 0 {
            below += 8;
            saved.push(Saved { reg: *reg, cfa_off: -below });
        }
    }
    let mut residue = live_registers(random, isa, &saved);
    if random.below(4) == 0 {
        below += 8;
        residue.push(Residue { place: Place::Stack(-below), size: 8, value: Value::ThreadPointer(-8) });
        below += 4;
        residue.push(Residue {
            place: Place::Stack(-below),
            size: 4,
            value: Value::Constant(random.next() & 0xffff_ffff),
        });
        below += 4;
    }
    let mut slots_cfa_off = 0;
    if slots_len > 0 {
        below = (below + slots_len as i32 + 15) & !15;
        slots_cfa_off = -below;
    }
    let spill = 8 * random.below(6) as i32;
    let cfa_minus_sp = ((below + spill + 15) & !15) as u32;
    SiteEntry { id, ret: ReturnAddr(ret), cfa_minus_sp, slots_cfa_off, slots_len, saved, residue, cells }
}

/// Residue in registers that the function saves.
fn live_registers(random: &mut Random, isa: Isa, saved: &[Saved]) -> Vec<Residue> {
    let mut residue = Vec::new();
    for reg in saved.iter().map(|saved| saved.reg).filter(|reg| callee_saved(isa).contains(reg)) {
        if reg != fp(isa) && random.below(3) == 0 {
            let value = match random.below(3) {
                0 => Value::Constant(random.next()),
                1 => Value::Cfa(-(random.below(64) as i64)),
                _ => Value::ThreadPointer(random.below(64) as i64 - 32),
            };
            residue.push(Residue { place: Place::Register(reg), size: 8, value });
        }
    }
    residue
}

/// The same function's call of `setjmp`: its own ID, stack pointer and live registers.
fn twice(random: &mut Random, isa: Isa, of: &SiteEntry) -> SiteEntry {
    let mut site = of.clone();
    site.id += TWICE;
    site.ret.0 += 0x1c;
    site.cfa_minus_sp += 16 * random.below(2) as u32;
    site.residue.retain(|residue| matches!(residue.place, Place::Stack(_)));
    site.residue.extend(live_registers(random, isa, &of.saved));
    site
}

pub(super) struct Program {
    tables: BTreeMap<Isa, SiteTable>,
    n: u64,
}

impl Program {
    pub(super) fn new(random: &mut Random, n: u64) -> Self {
        let slots: Vec<u32> = (0..n).map(|_| [0, 8, 16, 40, 200][random.below(5) as usize]).collect();
        let cells: Vec<u32> =
            slots.iter().map(|len| if *len > 0 { (random.below(6) as u32).saturating_sub(3) } else { 0 }).collect();
        let table = |isa: Isa, random: &mut Random| {
            let mut entries = Vec::new();
            for id in 0..n {
                let site = site(random, isa, id, slots[id as usize], cells[id as usize]);
                if site.cells > 0 {
                    entries.push(twice(random, isa, &site));
                }
                entries.push(site);
            }
            SiteTable::build(isa, entries).unwrap()
        };
        let tables = Isa::ALL.map(|isa| (isa, table(isa, random)));
        Self { tables: tables.into(), n }
    }

    pub(super) fn table(&self, isa: Isa) -> &SiteTable {
        &self.tables[&isa]
    }

    pub(super) fn member(&self, isa: Isa) -> Member<'_> {
        Member { sites: &self.tables[&isa], root_ret: ROOTS, restore_rt: RESTORE_RT }
    }
}

/// The bytes that end at [`TOP`].
#[derive(Clone, PartialEq)]
pub(super) struct Ram(pub Vec<u8>);

impl Memory for Ram {
    fn read(&mut self, at: RemoteAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let from = at.0.checked_sub(self.base()).and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| self.0.get(from..from.checked_add(into.len())?));
        into.copy_from_slice(bytes.ok_or(MemoryError { at, why: "outside".into() })?);
        Ok(())
    }
}

impl Ram {
    fn base(&self) -> u64 {
        TOP - self.0.len() as u64
    }

    pub fn slice(&self, at: u64, len: usize) -> &[u8] {
        &self.0[(at - self.base()) as usize..][..len]
    }

    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let from = (at - self.base()) as usize;
        self.0[from..from + bytes.len()].copy_from_slice(bytes);
    }

    pub fn get(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.slice(at, 8).try_into().unwrap())
    }
}

/// What each frame holds, outermost first: function and slot bytes.
pub(super) struct Truth {
    pub frames: Vec<(u64, Vec<u8>)>,
    record: [u8; record::NEUTRAL_LEN as usize],
    root: usize,
    /// The outermost CFA: above it is the portable stack, with the cells.
    outer: u64,
}

pub(super) struct Machine {
    pub isa: Isa,
    pub ram: Ram,
    pub registers: BTreeMap<DwarfReg, u64>,
    pub sp: u64,
    pub tp: u64,
}

impl Machine {
    fn new(isa: Isa, depth: usize, tp: u64, random: &mut Random) -> Self {
        let above = (0x100 + 2 * jump_cell::LEN as usize * depth).next_multiple_of(16);
        let bytes = (depth + 1) * 0x400 + above;
        let ram = (0..bytes.next_multiple_of(4096)).map(|_| random.next() as u8).collect();
        let registers = callee_saved(isa).iter().map(|reg| (*reg, random.next())).collect();
        Self { isa, ram: Ram(ram), registers, sp: TOP - above as u64, tp }
    }

    fn value(&self, residue: &Residue, cfa: u64) -> u64 {
        match residue.value {
            Value::Constant(value) => value,
            Value::Cfa(offset) => cfa.wrapping_add_signed(offset),
            Value::ThreadPointer(offset) => self.tp.wrapping_add_signed(offset),
        }
    }

    /// Calls a function, which then stands at its site; `ret` is where it returns to.
    fn call(&mut self, program: &Program, function: u64, ret: u64, slots: &[u8]) -> u64 {
        let site = program.tables[&self.isa].by_id(function).unwrap();
        let cfa = self.sp;
        if self.isa == Isa::X86_64 {
            self.ram.put(cfa - 8, &ret.to_le_bytes());
        }
        for saved in site.saved {
            let value = if saved.reg == aarch64::dwarf::RA && self.isa == Isa::Aarch64 {
                ret
            } else {
                self.registers[&saved.reg]
            };
            self.ram.put(cfa.wrapping_add_signed(saved.cfa_off.into()), &value.to_le_bytes());
            if saved.reg == fp(self.isa) {
                self.registers.insert(saved.reg, cfa.wrapping_add_signed(saved.cfa_off.into()));
            }
        }
        for residue in site.residue {
            let value = self.value(residue, cfa);
            match residue.place {
                Place::Register(reg) => drop(self.registers.insert(reg, value)),
                Place::Stack(offset) => {
                    self.ram.put(cfa.wrapping_add_signed(offset.into()), &value.to_le_bytes()[..residue.size.into()]);
                }
            }
        }
        self.ram.put(cfa.wrapping_add_signed(site.slots_cfa_off.into()), slots);
        self.sp = cfa - u64::from(site.cfa_minus_sp);
        site.ret.0
    }

    /// Fills a jump cell as `setjmp` does in a function that is about to be called.
    fn set_jump(&mut self, program: &Program, function: u64, at: u64) {
        let site = program.tables[&self.isa].by_id(function + TWICE).unwrap();
        let cfa = self.sp;
        let mut words = vec![jump_cell::key(at), site.ret.0, cfa - u64::from(site.cfa_minus_sp)];
        for reg in callee_saved(self.isa) {
            words.push(self.register_at(&site, *reg, cfa).unwrap_or(0xdead));
        }
        for (n, word) in words.iter().enumerate() {
            self.ram.put(at + 8 * n as u64, &word.to_le_bytes());
        }
    }

    /// What a register holds at a site of a frame: residue, the frame pointer, the caller's value, or nothing to rely on.
    fn register_at(&self, site: &crate::portable::Site<'_>, reg: DwarfReg, cfa: u64) -> Option<u64> {
        let saved = site.saved.iter().find(|saved| saved.reg == reg);
        if let Some(residue) = site.residue.iter().find(|residue| residue.place == Place::Register(reg)) {
            return Some(self.value(residue, cfa));
        }
        match saved {
            Some(saved) if reg == fp(self.isa) => Some(cfa.wrapping_add_signed(saved.cfa_off.into())),
            Some(_) => None,
            None => Some(self.registers[&reg]),
        }
    }

    /// Whether a second return of `setjmp` in a frame finds what it must, for each cell that is set; how many those are.
    fn check_jumps(&self, program: &Program, function: u64, slots: &[u8], cfa: u64, context: &str) -> usize {
        let table = &program.tables[&self.isa];
        let mut at = u64::from_le_bytes(slots[..8].try_into().unwrap());
        let mut set = 0;
        for _ in 0..table.by_id(function).unwrap().cells * u32::from(at != 0) {
            if self.ram.get(at) == jump_cell::key(at) {
                set += 1;
                let site = table.by_id(function + TWICE).unwrap();
                assert_eq!(self.ram.get(at + jump_cell::RETURN), site.ret.0, "{context}: where a jump goes");
                assert_eq!(self.ram.get(at + jump_cell::SP) + u64::from(site.cfa_minus_sp), cfa, "{context}");
                for (n, reg) in callee_saved(self.isa).iter().enumerate() {
                    if let Some(expected) = self.register_at(&site, *reg, cfa) {
                        let found = self.ram.get(at + jump_cell::REGISTERS + 8 * n as u64);
                        assert_eq!(found, expected, "{context}: {reg:?} after a jump");
                    }
                }
            }
            at += jump_cell::LEN;
        }
        set
    }

    fn enter_stub(&mut self, ret: u64, neutral: &[u8]) {
        let cfa = self.sp;
        self.sp = cfa - record::FRAME_LEN;
        self.ram.put(self.sp, neutral);
        self.ram.put(self.sp + record::RETURN, &ret.to_le_bytes());
        let caller = self.registers[&fp(self.isa)];
        self.ram.put(self.sp + record::SAVED_FP, &caller.to_le_bytes());
        self.registers.insert(fp(self.isa), self.sp + record::SAVED_FP);
    }

    /// Returns from the stub and from every frame, checking what each finds; the number of jump cells among that.
    pub fn return_from_all(mut self, program: &Program, truth: &Truth, context: &str) -> usize {
        let mut jumps = 0;
        let isa = self.isa;
        assert_eq!(self.registers[&fp(isa)], self.sp + record::SAVED_FP, "{context}: the stub's frame pointer");
        let mut ret = self.ram.get(self.sp + record::RETURN);
        self.registers.insert(fp(isa), self.ram.get(self.sp + record::SAVED_FP));
        self.sp += record::FRAME_LEN;
        for (index, (function, slots)) in truth.frames.iter().enumerate().rev() {
            let context = format!("{context}: frame {index}");
            let site = program.tables[&isa].by_return(ReturnAddr(ret)).unwrap_or_else(|| panic!("{context}: {ret:#x}"));
            assert_eq!(site.id, *function, "{context}");
            let cfa = self.sp + u64::from(site.cfa_minus_sp);
            let at = cfa.wrapping_add_signed(site.slots_cfa_off.into());
            assert_eq!(self.ram.slice(at, slots.len()), slots, "{context}: slots");
            for residue in site.residue {
                let value = self.value(residue, cfa);
                match residue.place {
                    Place::Register(reg) => assert_eq!(self.registers[&reg], value, "{context}: {reg:?}"),
                    Place::Stack(offset) => {
                        let (at, size) = (cfa.wrapping_add_signed(offset.into()), usize::from(residue.size));
                        assert_eq!(self.ram.slice(at, size), &value.to_le_bytes()[..size], "{context}: {offset}");
                    }
                }
            }
            if site.cells > 0 {
                jumps += self.check_jumps(program, *function, slots, cfa, &context);
            }
            ret = self.ram.get(cfa - 8);
            for saved in site.saved {
                let value = self.ram.get(cfa.wrapping_add_signed(saved.cfa_off.into()));
                if saved.reg == fp(isa) {
                    let at = cfa.wrapping_add_signed(saved.cfa_off.into());
                    assert_eq!(self.registers[&saved.reg], at, "{context}: chain of frame pointers");
                }
                if saved.reg == aarch64::dwarf::RA && isa == Isa::Aarch64 {
                    ret = value;
                } else {
                    self.registers.insert(saved.reg, value);
                }
            }
            self.sp = cfa;
        }
        assert_eq!(ret, ROOTS[truth.root], "{context}: root");
        assert_eq!(self.sp, truth.outer, "{context}: outermost CFA");
        jumps
    }
}

pub(super) fn run(program: &Program, random: &mut Random, isa: Isa, depth: usize, tp: u64) -> (Machine, Truth) {
    let mut machine = Machine::new(isa, depth, tp, random);
    let outer = machine.sp;
    let mut portable = outer;
    let root = random.below(2) as usize;
    let mut ret = ROOTS[root];
    let mut frames = Vec::new();
    for _ in 0..depth {
        let function = random.below(program.n);
        let len = program.tables[&isa].by_id(function).unwrap().slots_len;
        let mut slots: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let n = program.tables[&isa].by_id(function).unwrap().cells;
        if n > 0 {
            let known = random.below(5) > 0;
            slots[..8].copy_from_slice(&(portable * u64::from(known)).to_le_bytes());
            for _ in 0..n * u32::from(known) {
                if random.below(4) > 0 {
                    machine.set_jump(program, function, portable);
                }
                portable += jump_cell::LEN;
            }
        }
        ret = machine.call(program, function, ret, &slots);
        frames.push((function, slots));
    }
    let mut neutral = [0; record::NEUTRAL_LEN as usize];
    neutral.fill_with(|| random.next() as u8);
    machine.enter_stub(ret, &neutral);
    (machine, Truth { frames, record: neutral, root, outer })
}

fn translate(program: &Program, machine: &mut Machine, to: Isa, tp: u64) -> Machine {
    let (source, target) = (program.member(machine.isa), program.member(to));
    let stack = unwind(&mut machine.ram, &source, RemoteAddr(machine.sp)).unwrap();
    let layout = Layout::new(&stack, &source, target).unwrap();
    assert_eq!(layout.top, stack.top());
    let rewritten = layout.write(&stack, &source, &mut machine.ram, RemoteAddr(tp)).unwrap();
    assert_eq!(rewritten.start, layout.record);
    let mut ram = Ram(vec![0xee; machine.ram.0.len()]);
    // The portable stack stays as it is but for the cells.
    ram.put(layout.top.0, machine.ram.slice(layout.top.0, (TOP - layout.top.0) as usize));
    for (at, cell) in &rewritten.cells {
        ram.put(at.0, cell);
    }
    ram.put(rewritten.start.0, &rewritten.bytes);
    Machine { isa: to, ram, registers: rewritten.registers.into_iter().collect(), sp: rewritten.start.0, tp }
}

#[test]
fn translated_frames_return_as_the_target_expects() {
    let mut jumps = 0;
    for seed in 0..60 {
        let random = &mut Random(seed);
        let program = Program::new(random, 40);
        let depth = [0, 1, 2, 3, 10, 60][seed as usize % 6];
        for from in Isa::ALL {
            let (mut machine, truth) = run(&program, random, from, depth, 0x1234_5000);
            let target = translate(&program, &mut machine, from.peer(), 0x1234_5678);
            let flags = target.ram.get(target.sp + record::FLAGS);
            assert_eq!(flags & (record::FLAG_RESUMED | record::FLAG_GATE), record::FLAG_RESUMED);
            let len = record::FLAGS as usize;
            assert_eq!(target.ram.slice(target.sp, len), &truth.record[..len]);
            jumps += target.return_from_all(&program, &truth, &format!("seed {seed} from {from}"));
        }
    }
    assert!(jumps > 300, "{jumps} jump cells");
}

#[test]
fn there_and_back_again_is_the_same_stack() {
    for seed in 100..140 {
        let random = &mut Random(seed);
        let program = Program::new(random, 20);
        for from in Isa::ALL {
            let (mut first, truth) = run(&program, random, from, 12, 0x5000);
            let mut there = translate(&program, &mut first, from.peer(), 0x6000);
            let mut back = translate(&program, &mut there, from, 0x5000);
            assert_eq!(back.sp, first.sp);
            // Translated once more, it is the very same bytes: nothing of the first frames' garbage is left.
            let mut again = translate(&program, &mut back, from.peer(), 0x6000);
            assert!(again.ram == there.ram && again.registers == there.registers, "seed {seed} from {from}");
            let last = translate(&program, &mut again, from, 0x5000);
            assert!(last.ram == back.ram, "seed {seed} from {from}");
            back.return_from_all(&program, &truth, &format!("seed {seed} from {from}"));
        }
    }
}

#[test]
fn a_jump_cell_of_another_frame_is_refused() {
    let mut refused = 0;
    for seed in 200..240 {
        let random = &mut Random(seed);
        let program = Program::new(random, 20);
        let (mut machine, truth) = run(&program, random, Isa::X86_64, 8, 0x5000);
        let (source, target) = (program.member(Isa::X86_64), program.member(Isa::Aarch64));
        let set = (truth.outer..TOP - jump_cell::LEN)
            .step_by(jump_cell::LEN as usize)
            .find(|at| machine.ram.get(*at) == jump_cell::key(*at));
        let Some(at) = set else { continue };
        for (place, change) in [(jump_cell::RETURN, 1), (jump_cell::SP, 16), (jump_cell::SP, u64::MAX)] {
            let old = machine.ram.get(at + place);
            machine.ram.put(at + place, &old.wrapping_add(change).to_le_bytes());
            let stack = unwind(&mut machine.ram, &source, RemoteAddr(machine.sp)).unwrap();
            let layout = Layout::new(&stack, &source, target).unwrap();
            let error = layout.write(&stack, &source, &mut machine.ram, RemoteAddr(0)).unwrap_err();
            assert!(matches!(error, LayoutError::Jump { cell, .. } if cell.0 == at), "{error}");
            machine.ram.put(at + place, &old.to_le_bytes());
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn ten_thousand_frames() {
    let random = &mut Random(7);
    let program = Program::new(random, 100);
    let (mut machine, truth) = run(&program, random, Isa::X86_64, 10_000, 0x1000);
    translate(&program, &mut machine, Isa::Aarch64, 0x2000).return_from_all(&program, &truth, "deep");
}

#[test]
fn a_return_address_without_site_is_named() {
    let random = &mut Random(3);
    let program = Program::new(random, 5);
    let (mut machine, _) = run(&program, random, Isa::X86_64, 3, 0);
    machine.ram.put(machine.sp + record::RETURN, &0xdead_u64.to_le_bytes());
    let error = unwind(&mut machine.ram, &program.member(Isa::X86_64), RemoteAddr(machine.sp)).unwrap_err();
    assert!(matches!(error, UnwindError::NoSite { index: 0, ret: ReturnAddr(0xdead), .. }), "{error}");
    machine.ram.put(machine.sp + record::RETURN, &RESTORE_RT.to_le_bytes());
    let error = unwind(&mut machine.ram, &program.member(Isa::X86_64), RemoteAddr(machine.sp)).unwrap_err();
    assert!(matches!(error, UnwindError::SignalFrame { .. }), "{error}");
}

#[test]
fn any_corrupt_word_of_a_stack_ends_in_an_error_or_a_stack() {
    let random = &mut Random(11);
    let program = Program::new(random, 8);
    let (machine, _) = run(&program, random, Isa::Aarch64, 6, 0);
    for at in (machine.sp..TOP - 8).step_by(8) {
        for value in [0, u64::MAX, ROOTS[0], RESTORE_RT, 0x50_0005] {
            let mut ram = machine.ram.clone();
            ram.put(at, &value.to_le_bytes());
            let source = program.member(Isa::Aarch64);
            if let Ok(stack) = unwind(&mut ram, &source, RemoteAddr(machine.sp))
                && let Ok(layout) = Layout::new(&stack, &source, program.member(Isa::X86_64))
            {
                let _ = layout.write(&stack, &source, &mut ram, RemoteAddr(0));
            }
        }
    }
}

#[test]
fn executables_that_are_no_pair_are_refused() {
    let random = &mut Random(21);
    let program = Program::new(random, 5);
    let other = Program::new(random, 3);
    let (mut machine, _) = run(&program, random, Isa::X86_64, 5, 0);
    let source = program.member(Isa::X86_64);
    let stack = unwind(&mut machine.ram, &source, RemoteAddr(machine.sp)).unwrap();
    assert!(Layout::new(&stack, &source, other.member(Isa::Aarch64)).is_err());
}
