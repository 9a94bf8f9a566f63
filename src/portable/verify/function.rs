//! The proof for one function: its calls, its sites, and what is live at them.
use super::abi::Abi;
use super::code::Code;
use super::frames::{self, Frames, Row};
use super::insn::{Decoder, Flow, Parts, Reg, RegSet};
use super::jumps::Jumps;
use super::leaf::Leaves;
use super::liveness::{self, Accesses, Bytes, Live, Others};
use super::values::{Deaf, FrameAccess, Interpreter, Listener, ReadOnly, State, Value};
use super::violation::{Kind, Violation};
use crate::portable::{Executable, Place, Residue, SiteEntry, bbmap, sites, stackmaps};
use isamorph_arch::tls::TlsLayout;
use isamorph_arch::{RemoteAddr, ReturnAddr};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// What the functions of one executable share.
pub struct Context<'a> {
    /// The executable.
    pub executable: &'a Executable,
    /// Its calling conventions.
    pub abi: &'a Abi,
    /// Its decoder.
    pub decoder: &'a dyn Decoder,
    /// Its call-frame information.
    pub frames: &'a Frames<'a>,
    /// Polls: from nop to cold block.
    pub polls: &'a HashMap<u64, u64>,
    /// Addresses of all functions.
    pub starts: &'a HashSet<u64>,
    /// What is live at the entries of functions, as far as it is known: what calls to them use.
    pub live_in: &'a RefCell<HashMap<u64, Parts>>,
    /// What leaves use.
    pub leaves: &'a Leaves,
    /// Thread-local storage.
    pub tls: Option<TlsLayout>,
    /// Reads what never changes.
    pub read_only: &'a ReadOnly<'a>,
}

impl Context<'_> {
    /// The registers that a call uses. What is called through a pointer may use every argument register.
    pub fn arguments(&self, target: Option<u64>) -> Parts {
        let manifest = &self.executable.manifest;
        match target {
            Some(target) if target == manifest.safepoint => Parts::NONE,
            // C functions of integers and pointers (docs/architecture.md §4.4).
            Some(target) if manifest.stubs.contains(&target) => self.abi.integer_arguments,
            Some(target) if manifest.leaves.contains(&target) || manifest.native.contains(&target) => {
                self.leaves.arguments(self, target)
            }
            Some(target) => {
                self.live_in.borrow().get(&target).map_or(self.abi.arguments, |live| *live & self.abi.arguments)
            }
            None => self.abi.arguments,
        }
    }
}

/// A proved site.
#[derive(Debug)]
pub struct Proved {
    /// Its entry in the table.
    pub entry: SiteEntry,
    /// Address of its function.
    pub function: u64,
    /// Slot bytes (as offsets in the slots) that are read later.
    pub reads: Vec<u32>,
    /// Slot bytes that are written on every path to it.
    pub written: Option<Bytes>,
    /// Whether the call returns twice.
    pub twice: bool,
}

/// A call that passes something derived from a frame address in a register.
#[derive(Debug)]
pub struct FrameArgument {
    /// The function it is in.
    pub function: String,
    /// The call.
    pub addr: u64,
    /// Its text.
    pub text: String,
    /// What is called, if it is known.
    pub target: Option<u64>,
    /// Which registers.
    pub regs: RegSet,
}

impl FrameArgument {
    /// The first of the registers that the callee uses, as far as is known.
    pub fn passed(&self, context: &Context<'_>) -> Option<Reg> {
        let used = context.arguments(self.target);
        self.regs.iter().find(|reg| used.extent(*reg) > 0)
    }
}

/// What came out for one function.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its sites.
    pub sites: Vec<Proved>,
    /// What is wrong with it.
    pub violations: Vec<Violation>,
    /// Functions that it calls by address, ascending.
    pub callees: Vec<u64>,
    /// Calls with frame addresses in registers.
    pub frame_arguments: Vec<FrameArgument>,
    /// Whether it could be decoded; if not, nothing else here is known.
    pub decoded: bool,
    /// Register parts that are live at its entry.
    pub live_in: Parts,
    /// Number of instructions.
    pub insns: usize,
    /// Polls found in it.
    pub polls: usize,
}

impl Outcome {
    /// Whether it may be only for what its callees were taken to use that it does not hold.
    pub fn depends_on_callees(&self, context: &Context<'_>) -> bool {
        let live = |violation: &Violation| matches!(violation.kind, Kind::Live { .. } | Kind::NoArgument { .. });
        self.violations.iter().any(live) || self.frame_arguments.iter().any(|call| call.passed(context).is_some())
    }
}

pub(super) struct Function<'a, 'b> {
    pub(super) context: &'a Context<'b>,
    name: String,
    pub(super) code: Code,
    jumps: Jumps,
    outcome: Outcome,
}

/// Analyses one function.
pub fn analyse(context: &Context<'_>, function: &bbmap::Function, records: &[stackmaps::Record]) -> Outcome {
    let name = context.executable.name(RemoteAddr(function.addr));
    let mut outcome = Outcome::default();
    match Code::decode(context.executable, context.decoder, function, context.polls) {
        Ok(code) => {
            outcome.decoded = true;
            outcome.insns = code.insns.len();
            outcome.polls = code.insns.iter().filter(|insn| context.polls.contains_key(&insn.addr)).count();
            let jumps = Jumps::find(&code, context.executable.manifest.setjmp_entry);
            let mut function = Function { context, name, code, jumps, outcome };
            function.prove(records);
            let calls = function.code.insns.iter().filter_map(|insn| match insn.flow {
                Flow::Call(target) => target,
                _ => None,
            });
            let callees: BTreeSet<u64> = calls.collect();
            function.outcome.callees = callees.into_iter().collect();
            function.outcome
        }
        Err(kind) => {
            let isa = Some(context.abi.isa);
            outcome.violations.push(Violation { isa, function: Some(name), site: None, kind });
            outcome
        }
    }
}

/// Collects what the last pass tells.
#[derive(Default)]
pub(super) struct Log {
    pub(super) accesses: Vec<(usize, FrameAccess)>,
    escapes: Vec<(usize, &'static str)>,
}

impl Listener for Log {
    fn access(&mut self, insn: usize, access: FrameAccess) {
        self.accesses.push((insn, access));
    }

    fn escape(&mut self, insn: usize, why: &'static str) {
        self.escapes.push((insn, why));
    }
}

impl Function<'_, '_> {
    fn refuse(&mut self, site: Option<(u64, u64)>, kind: Kind) {
        let (isa, function) = (Some(self.context.abi.isa), Some(self.name.clone()));
        self.outcome.violations.push(Violation { isa, function, site, kind });
    }

    fn text(&self, insn: usize) -> String {
        self.code.text(self.context.executable, self.context.decoder, &self.code.insns[insn])
    }

    pub(super) fn interpreter(&self) -> Interpreter<'_> {
        let context = self.context;
        Interpreter { abi: context.abi, code: &self.code, jumps: &self.jumps, read_only: context.read_only }
    }

    fn prove(&mut self, records: &[stackmaps::Record]) {
        let sites = self.sites(records);
        self.calls(&sites);
        let context = self.context;
        let code = std::mem::replace(
            &mut self.code,
            Code { addr: 0, end: 0, insns: vec![], blocks: vec![], graph: Default::default(), order: vec![] },
        );
        let mut jumps = std::mem::take(&mut self.jumps);
        // Once, unless a call returns twice: then what it must not rely on grows from round to round.
        let (states, log, mut problems, slots) = loop {
            let interpreter =
                Interpreter { abi: context.abi, code: &code, jumps: &jumps, read_only: context.read_only };
            let states = interpreter.solve();
            let mut log = Log::default();
            let mut problems = Vec::new();
            let mut slots = HashMap::new();
            self.outcome.frame_arguments.clear();
            for block in &code.order {
                let Some(mut state) = states[*block].clone() else { continue };
                self.walk(&interpreter, *block, &mut state, &mut log, &mut problems, &sites, &mut slots);
            }
            if !jumps.learn(context.abi, &log.accesses) {
                break (states, log, problems, slots);
            }
        };
        (self.code, self.jumps) = (code, jumps);
        for (insn, why) in log.escapes {
            problems.push(Kind::FrameEscape { addr: self.code.insns[insn].addr, text: self.text(insn), why });
        }
        for (insn, access) in &log.accesses {
            if access.write && access.offset >= 0 {
                let why = "writes to the caller's frame";
                problems.push(Kind::FrameEscape { addr: self.code.insns[*insn].addr, text: self.text(*insn), why });
            }
        }
        let range = self.slots(&sites, &slots);
        if let Some(range) = &range {
            for (insn, access) in &log.accesses {
                let inside = access.offset < range.end && range.start < access.offset + i64::from(access.len);
                // The address of a thread-local variable is the same on both ISAs, the thread pointer is not.
                let portable = match access.value {
                    Value::Tp(offset) => self.context.tls.is_some_and(|tls| {
                        let start = tls.thread_pointer_offset(self.context.abi.isa).unwrap_or(i64::MAX);
                        u64::try_from(offset.saturating_add(start)).is_ok_and(|at| at < tls.memsz)
                    }),
                    value => !value.is_frame(),
                };
                if access.write && inside && !portable {
                    let why = "stores a frame address or the thread pointer in a slot";
                    problems.push(Kind::FrameEscape { addr: self.code.insns[*insn].addr, text: self.text(*insn), why });
                }
            }
        }
        // Without a site nothing ever looks into the frame: then it may hold arrays, too.
        // Leaves may be given its address, which means nothing any more when it returns.
        if sites.is_empty() {
            problems.retain(|kind| !matches!(kind, Kind::FrameEscape { .. }));
            self.outcome.frame_arguments.clear();
        }
        problems.into_iter().for_each(|kind| self.refuse(None, kind));
        let accesses = Accesses::new(self.code.insns.len(), log.accesses);
        let wanted: BTreeSet<usize> = sites.keys().copied().collect();
        let arguments = |target| context.arguments(target);
        let others = Others { returned: context.abi.live_at_return, arguments: &arguments, stored: true };
        let (live, entry) = liveness::live(context.abi, others, &self.code, &accesses, &wanted);
        self.outcome.live_in = entry.parts;
        self.entry(&accesses, entry.parts);
        let mut written = range
            .as_ref()
            .map_or_else(HashMap::new, |range| liveness::written(&self.code, &accesses, range.clone(), &wanted));
        if sites.is_empty() {
            return;
        }
        let rows = context.frames.rows(context.abi, self.code.addr, &mut gimli::UnwindContext::new());
        let rows = match rows {
            Ok(rows) => rows,
            Err(why) => return self.refuse(None, Kind::Cfi(why)),
        };
        for block in self.code.order.clone() {
            let calls: Vec<usize> = wanted.range(self.code.blocks[block].insns.clone()).copied().collect();
            let Some(mut state) = states[block].clone() else { continue };
            let mut at = self.code.blocks[block].insns.start;
            for call in calls {
                let interpreter = self.interpreter();
                while at <= call {
                    interpreter.step(at, &mut state, &mut Deaf);
                    at += 1;
                }
                let Some(live) = live.get(&call) else { continue };
                self.site(&sites[&call], call, &state, live, &rows, range.as_ref(), written.remove(&call));
            }
        }
        if let Err(site) = self.jumps.spread(&mut self.outcome.sites) {
            self.refuse(Some(site), Kind::JumpSaved);
        }
    }

    /// No function uses a general register that carries no argument. What carries something carries its low byte; and x86_64
    /// leaves the rest undefined for narrow values. Vector registers are not looked at: there, it leaves any part undefined.
    fn entry(&mut self, accesses: &Accesses, live: Parts) {
        let abi = self.context.abi;
        let strange = |live: Parts| {
            let strange = live & !(abi.arguments | abi.kept_at_entry);
            (0..32).map(Reg::gpr).find(|reg| !(strange & Parts::low(*reg, 1)).is_empty())
        };
        if strange(live).is_none() {
            return;
        }
        // A function without a result leaves anything in the result registers, also what it found there; and any register
        // is pushed to align the stack pointer.
        let arguments = |target| self.context.arguments(target);
        let others = Others { returned: abi.kept_at_entry, arguments: &arguments, stored: false };
        let (_, entry) = liveness::live(abi, others, &self.code, accesses, &BTreeSet::new());
        if let Some(reg) = strange(entry.parts) {
            let used = self.used_from(0, 0, Parts::all(reg), true).map_or(self.code.addr, |n| self.code.insns[n].addr);
            self.refuse(None, Kind::NoArgument { register: abi.name(reg), used });
        }
    }

    /// Ties records to calls.
    fn sites(&mut self, records: &[stackmaps::Record]) -> HashMap<usize, stackmaps::Record> {
        let mut sites: HashMap<usize, stackmaps::Record> = HashMap::new();
        for record in records {
            let addr = self.code.addr + u64::from(record.offset);
            let call = self.code.block_ending_at_or_around(addr).and_then(|block| {
                let insns = self.code.blocks[block].insns.clone();
                insns.rev().find(|n| {
                    let insn = &self.code.insns[*n];
                    matches!(insn.flow, Flow::Call(_)) && insn.end() <= addr
                })
            });
            let Some(call) = call else {
                self.refuse(None, Kind::RecordWithoutCall { id: record.id, addr });
                continue;
            };
            if let Some(first) = sites.insert(call, *record) {
                let addr = self.code.insns[call].addr;
                self.refuse(None, Kind::TwoRecords { addr, first: first.id, second: record.id });
            }
        }
        // In any order: one that differs is enough.
        if let Some(first) = records.first()
            && let Some(other) = records.iter().find(|record| record.cells != first.cells)
        {
            self.refuse(None, Kind::JumpCellsDiffer { first: first.cells, other: other.cells, id: other.id });
        }
        let reachable: HashSet<usize> = self.code.order.iter().copied().collect();
        for (call, record) in &sites {
            let ret = self.code.insns[*call].end();
            let block = self.code.blocks.iter().position(|block| block.insns.contains(call));
            if block.is_none_or(|block| !reachable.contains(&block)) {
                self.refuse(Some((record.id, ret)), Kind::Unreachable);
            }
        }
        sites
    }

    /// Every call is a site, or goes to a leaf; nothing calls the system.
    fn calls(&mut self, sites: &HashMap<usize, stackmaps::Record>) {
        let manifest = &self.context.executable.manifest;
        for n in 0..self.code.insns.len() {
            let insn = self.code.insns[n];
            match insn.flow {
                Flow::SystemCall => {
                    self.refuse(None, Kind::SystemCall { addr: insn.addr, text: self.text(n) });
                }
                Flow::Call(target) => {
                    let leaf = |t: &u64| manifest.leaves.contains(t) || manifest.native.contains(t);
                    let known = |t: &u64| leaf(t) || manifest.stubs.contains(t) || self.context.starts.contains(t);
                    if !target.as_ref().is_none_or(known) {
                        self.refuse(None, Kind::CallTarget { addr: insn.addr, text: self.text(n) });
                    } else if !sites.contains_key(&n) && !target.as_ref().is_some_and(leaf) {
                        let target = match target {
                            Some(target) => self.context.executable.name(RemoteAddr(target)),
                            None => "(any function)".to_owned(),
                        };
                        self.refuse(None, Kind::CallWithoutSite { addr: insn.addr, text: self.text(n), target });
                    }
                    if self.jumps.is(n) && sites.get(&n).is_some_and(|record| record.cells == 0) {
                        self.refuse(None, Kind::NoJumpCells { addr: insn.addr, text: self.text(n) });
                    }
                }
                _ => {}
            }
        }
    }

    /// The last pass over a block: stack pointer, returns, frame accesses, where slots are.
    #[allow(clippy::too_many_arguments, reason = "the accumulators of one pass")]
    fn walk(
        &mut self,
        interpreter: &Interpreter<'_>,
        block: usize,
        state: &mut State,
        log: &mut Log,
        problems: &mut Vec<Kind>,
        sites: &HashMap<usize, stackmaps::Record>,
        slots: &mut HashMap<usize, Value>,
    ) {
        let (abi, code) = (interpreter.abi, interpreter.code);
        let text = |n: usize| code.text(self.context.executable, self.context.decoder, &code.insns[n]);
        let mut pending: Option<(usize, stackmaps::Record)> = None;
        let mut lost = state.sp(abi).is_none();
        for n in code.blocks[block].insns.clone() {
            let insn = &code.insns[n];
            if let Some((call, record)) = pending
                && insn.addr >= code.addr + u64::from(record.offset)
            {
                slots.extend(record.slots.map(|s| (call, slot_base(abi, state, s))));
                pending = None;
            }
            if let Flow::Call(target) = insn.flow {
                let mut regs = RegSet::default();
                for n in 0..32 {
                    let reg = Reg::gpr(n);
                    let frame = state.reg(reg).is_frame();
                    if frame && abi.arguments.extent(reg) > 0 {
                        regs.add(reg);
                    }
                }
                if regs != RegSet::default() {
                    let (function, text) = (self.name.clone(), text(n));
                    let argument = FrameArgument { function, addr: insn.addr, text, target, regs };
                    self.outcome.frame_arguments.push(argument);
                }
            }
            interpreter.step(n, state, log);
            if let Some(record) = sites.get(&n) {
                pending = Some((n, *record));
            }
            if state.sp(abi).is_none() && !lost {
                lost = true;
                problems.push(Kind::StackPointer { addr: insn.addr, text: text(n) });
            }
            if insn.flow == Flow::Return {
                let wanted =
                    abi.callee_saved.iter().chain([&abi.return_address]).map(|reg| (*reg, Value::Caller(*reg)));
                for (reg, value) in wanted.chain([(abi.sp, Value::Cfa(0))]) {
                    if state.reg(reg) != value {
                        let (what, value) = (abi.name(reg), state.reg(reg).to_string());
                        problems.push(Kind::NotRestored { addr: insn.addr, what, value });
                    }
                }
            }
        }
        if let Some((call, record)) = pending {
            slots.extend(record.slots.map(|s| (call, slot_base(abi, state, s))));
        }
    }

    /// The function's slots: at one place for all sites.
    fn slots(
        &mut self,
        sites: &HashMap<usize, stackmaps::Record>,
        bases: &HashMap<usize, Value>,
    ) -> Option<Range<i64>> {
        let mut range: Option<Range<i64>> = None;
        let mut calls: Vec<&usize> = sites.keys().collect();
        calls.sort_unstable();
        for call in calls {
            let record = &sites[call];
            let found = match (record.slots, bases.get(call)) {
                (Some(slots), Some(Value::Cfa(start))) => *start..start + i64::from(slots.len),
                (Some(_), value) => {
                    let found = value.map_or("an unknown place".to_owned(), Value::to_string);
                    let expected = "a frame address".to_owned();
                    let site = Some((record.id, self.code.insns[*call].end()));
                    self.refuse(site, Kind::SlotsMoved { found, expected });
                    continue;
                }
                (None, _) => continue,
            };
            match &range {
                Some(range) if *range != found => {
                    let (found, expected) = (format!("CFA{found:?}"), format!("CFA{range:?}"));
                    let site = Some((record.id, self.code.insns[*call].end()));
                    self.refuse(site, Kind::SlotsMoved { found, expected });
                }
                _ => range = Some(found),
            }
        }
        range
    }

    #[allow(clippy::too_many_arguments, reason = "everything that is known at a site")]
    fn site(
        &mut self,
        record: &stackmaps::Record,
        call: usize,
        state: &State,
        live: &Live,
        rows: &[Row],
        slots: Option<&Range<i64>>,
        written: Option<Bytes>,
    ) {
        let abi = self.context.abi;
        let ret = self.code.insns[call].end();
        let site = Some((record.id, ret));
        let saved = match frames::check(abi, rows, ret, state) {
            Ok(saved) => saved,
            Err(why) => return self.refuse(site, Kind::Cfi(why)),
        };
        let own = slots.filter(|_| record.slots.is_some());
        if let Some(what) = own.and_then(|slots| self.clobbered(slots, state, &saved)) {
            let slots = format!("CFA{:?}", own.cloned().unwrap_or_default());
            self.refuse(site, Kind::SlotsClobbered { slots, what });
        }
        let mut residue = Vec::new();
        for reg in &abi.scratch {
            if live.parts.extent(*reg) > 0 {
                self.refuse_live(site, call, Location::Register(*reg), "whatever the callee left there".into());
            }
        }
        for reg in abi.no_results.iter().filter(|reg| live.parts.extent(**reg) > 0) {
            let block = self.code.blocks.iter().position(|block| block.insns.contains(&call));
            if block.is_some_and(|block| self.used_from(block, call + 1, Parts::all(*reg), false).is_some()) {
                self.refuse_live(site, call, Location::Register(*reg), "whatever the callee left there".into());
            }
        }
        for reg in &abi.callee_saved {
            let needed = live.parts.extent(*reg);
            let is_saved = saved.iter().any(|saved| saved.reg == abi.dwarf(*reg));
            let value = match state.reg(*reg) {
                _ if needed == 0 => continue,
                Value::Caller(of) if of == *reg && !is_saved => continue,
                value => as_residue(value, needed),
            };
            match value {
                Some(value) => residue.push(Residue { place: Place::Register(abi.dwarf(*reg)), size: 8, value }),
                None => self.refuse_live(site, call, Location::Register(*reg), state.reg(*reg).to_string()),
            }
        }
        let mut reads = Vec::new();
        let mut done = i64::MIN;
        for offset in live.frame.iter() {
            if let Some(slots) = own.filter(|slots| slots.contains(&offset)) {
                reads.push((offset - slots.start) as u32);
                continue;
            }
            if offset < done {
                continue;
            }
            let cell = state.cells().iter().find(|c| c.offset <= offset && offset < c.offset + i64::from(c.size));
            let Some(cell) = cell.filter(|cell| cell.offset < 0) else {
                self.refuse_live(site, call, Location::Stack(offset, 1), Value::Unknown.to_string());
                done = offset + 8;
                continue;
            };
            done = cell.offset + i64::from(cell.size);
            if let Value::Caller(reg) = cell.value {
                let known =
                    |saved: &sites::Saved| saved.reg == abi.dwarf(reg) && i64::from(saved.cfa_off) == cell.offset;
                let return_address = reg == abi.return_address && abi.entry_sp != 0 && cell.offset == abi.entry_sp;
                if return_address || saved.iter().any(known) {
                    continue;
                }
            }
            match (as_residue(cell.value, cell.size), i32::try_from(cell.offset)) {
                (Some(value), Ok(place)) => {
                    residue.push(Residue { place: Place::Stack(place), size: cell.size, value });
                }
                _ => self.refuse_live(site, call, Location::Stack(cell.offset, cell.size), cell.value.to_string()),
            }
        }
        let numbers = (|| {
            let sp = u32::try_from(state.sp(abi)?.checked_neg()?).ok()?;
            let (offset, len) = match own {
                Some(slots) => (i32::try_from(slots.start).ok()?, u32::try_from(slots.end - slots.start).ok()?),
                None => (0, 0),
            };
            Some((sp, offset, len))
        })();
        let Some((cfa_minus_sp, slots_cfa_off, slots_len)) = numbers else {
            return self.refuse(site, Kind::Format("its frame is too large, or the stack pointer is not known".into()));
        };
        let (id, ret, cells) = (record.id, ReturnAddr(ret), record.cells);
        if cells > 0 {
            // Translation reads the address of the cells.
            reads.extend((0..8).filter(|byte| !reads.contains(byte)).collect::<Vec<_>>());
        }
        let entry = SiteEntry { id, ret, cfa_minus_sp, slots_cfa_off, slots_len, saved, residue, cells };
        let twice = self.jumps.is(call);
        self.outcome.sites.push(Proved { entry, function: self.code.addr, reads, written, twice });
    }

    /// What else is where the slots of a site are said to be.
    fn clobbered(&self, slots: &Range<i64>, state: &State, saved: &[sites::Saved]) -> Option<String> {
        let abi = self.context.abi;
        if state.sp(abi).is_none_or(|sp| slots.start < sp) {
            return Some("what is below the stack pointer".into());
        }
        if slots.end > abi.entry_sp {
            return Some("the return address or the caller's frame".into());
        }
        let saved = saved.iter().find(|saved| {
            let at = i64::from(saved.cfa_off);
            at < slots.end && slots.start < at + 8
        })?;
        Some(format!("the saved register with DWARF number {}", saved.reg.0))
    }

    fn refuse_live(&mut self, site: Option<(u64, u64)>, call: usize, location: Location, value: String) {
        let abi = self.context.abi;
        let place = match location {
            Location::Register(reg) => abi.name(reg),
            Location::Stack(offset, _) => format!("CFA{offset:+}"),
        };
        let definition = match self.definition(call, location) {
            Some(n) => format!("{:#x}: {}", self.code.insns[n].addr, self.text(n)),
            None => "nothing in the function".to_owned(),
        };
        let used = match self.used(call, location) {
            Some(n) => format!("{:#x}: {}", self.code.insns[n].addr, self.text(n)),
            None => "the caller".to_owned(),
        };
        self.refuse(site, Kind::Live { place, value, definition, used });
    }
}

#[derive(Clone, Copy)]
pub(super) enum Location {
    Register(Reg),
    Stack(i64, u8),
}

fn slot_base(abi: &Abi, state: &State, slots: stackmaps::Slots) -> Value {
    match super::abi::from_dwarf(abi.isa, slots.reg).map(|reg| state.reg(reg)) {
        Some(Value::Cfa(offset)) => Value::Cfa(offset.wrapping_add(slots.offset.into())),
        _ => Value::Unknown,
    }
}

fn as_residue(value: Value, needed: u8) -> Option<sites::Value> {
    match value {
        Value::Const { .. } | Value::ConstOneOf(..) => value.low(needed).map(sites::Value::Constant),
        Value::Cfa(offset) => Some(sites::Value::Cfa(offset)),
        Value::Tp(offset) => Some(sites::Value::ThreadPointer(offset)),
        _ => None,
    }
}

/// Whether a leaf's instruction breaks the rule for leaves.
pub fn leaf_breaks(flow: Flow, allowed: impl Fn(u64) -> bool) -> Option<&'static str> {
    match flow {
        Flow::SystemCall => Some("a system call"),
        Flow::Call(None) => Some("an indirect call"),
        Flow::IndirectJump => Some("an indirect jump"),
        Flow::Call(Some(target)) if !allowed(target) => Some("a call out"),
        Flow::Jump(target) | Flow::Branch(target) if !allowed(target) => Some("a jump out"),
        _ => None,
    }
}
