//! The verifier: proves on the machine code of both executables that a thread can change ISA at every site.
//!
//! What is proved is invariants 2, 4 and 6 of `docs/architecture.md` §3. Phases, each borrowing the last:
//!
//! ```text
//! layout.rs     segments, TLS, manifests, symbols, initial data, function starts, stack-map IDs: both executables
//! code.rs       instructions (x86_64.rs, aarch64.rs, …), basic blocks, edges       per function
//! values.rs     forward: what registers and frame cells hold                   "
//! liveness.rs   backward: what is live; forward: which slot bytes are written  "
//! jumps.rs      what holds where a call returns twice                           per function
//! leaf.rs       which arguments a leaf uses                                    per leaf
//! frames.rs     .eh_frame, held against values                                 "
//! function.rs   the verdict per site, and its entry of the site table          "
//! trace.rs      where a value came from and is used, for the message          "
//! this file     slot bytes read on one ISA and unwritten on the other
//! ```
//!
//! Trusted: the disassembler (twice: each decoder is held against capstone's register lists), the
//! successors that LLVM lists for indirect jumps, the ABI of leaves and stubs, and that a frame address
//! that never leaves the frame's own cells and registers is not forged. Not trusted: the compiler's
//! stack maps, call-frame information, symbols.
mod aarch64;
mod aarch64_memory;
mod abi;
mod code;
mod frames;
mod function;
pub mod insn;
mod jumps;
mod layout;
mod leaf;
mod liveness;
mod simd_aarch64;
mod simd_x86_64;
#[cfg(test)]
mod tests;
mod trace;
mod values;
mod violation;
mod x86_64;

pub use violation::{Kind, Violation};

use super::{Executable, SiteTable, stackmaps};
use abi::Abi;
use function::{Context, FrameArgument, Outcome, Proved};
use insn::{Decoder, Parts};
use isamorph_arch::{Isa, RemoteAddr};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::DfsPostOrder;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Both tables of a pair that holds, and what it took.
#[derive(Clone, Debug)]
pub struct VerifiedPair {
    /// The sites of the x86_64 executable.
    pub x86_64: SiteTable,
    /// The sites of the aarch64 executable.
    pub aarch64: SiteTable,
    /// Figures.
    pub stats: Stats,
}

impl VerifiedPair {
    /// The sites of one executable.
    #[must_use]
    pub fn get(&self, isa: Isa) -> &SiteTable {
        match isa {
            Isa::X86_64 => &self.x86_64,
            Isa::Aarch64 => &self.aarch64,
        }
    }
}

/// Figures of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Functions of the program.
    pub functions: usize,
    /// Sites of the program.
    pub sites: usize,
    /// Polls, per ISA.
    pub polls: [usize; 2],
    /// Instructions, per ISA.
    pub instructions: [usize; 2],
    /// Constants, frame addresses and thread pointers among the residue, per ISA.
    pub residue: [[usize; 3]; 2],
    /// Sites with any residue but the frame pointer, per ISA.
    pub sites_with_residue: [usize; 2],
    /// Time.
    pub time: Duration,
}

/// Verifies the two executables of a program, given as their files' content.
///
/// # Errors
/// All violations that were found; at least one.
pub fn verify_pair(x86: &[u8], a64: &[u8]) -> Result<VerifiedPair, Vec<Violation>> {
    let input = |isa| move |error| Violation { isa: Some(isa), function: None, site: None, kind: Kind::Input(error) };
    let parsed =
        [Executable::parse(x86).map_err(input(Isa::X86_64)), Executable::parse(a64).map_err(input(Isa::Aarch64))];
    match parsed {
        [Ok(x86), Ok(a64)] => verify_executables(&x86, &a64),
        [x86, a64] => Err([x86.err(), a64.err()].into_iter().flatten().collect()),
    }
}

/// As [`verify_pair`], for executables that are already parsed.
///
/// # Errors
/// All violations that were found; at least one.
pub fn verify_executables(x86: &Executable, a64: &Executable) -> Result<VerifiedPair, Vec<Violation>> {
    let start = Instant::now();
    let mut violations = layout::check(x86, a64);
    let results = std::thread::scope(|scope| {
        let other = scope.spawn(|| prove(a64));
        let result = prove(x86);
        [Some(result), other.join().ok()]
    });
    let [Some(x), Some(a)] = results else {
        // A panic is a defect of this program: it is no proof.
        let kind = Kind::Input(super::Error::NotPortable("the verifier failed on the aarch64 executable"));
        return Err(vec![Violation { isa: Some(Isa::Aarch64), function: None, site: None, kind }]);
    };
    let mut stats = Stats { functions: x.functions, sites: x.sites.len(), ..Stats::default() };
    for (n, proof) in [&x, &a].into_iter().enumerate() {
        stats.polls[n] = proof.polls;
        stats.instructions[n] = proof.insns;
        for site in proof.sites.values() {
            let mut other = false;
            for residue in &site.entry.residue {
                let kind = match residue.value {
                    super::Value::Constant(_) => 0,
                    super::Value::Cfa(_) => 1,
                    super::Value::ThreadPointer(_) => 2,
                };
                stats.residue[n][kind] += 1;
                other |= kind != 1;
            }
            stats.sites_with_residue[n] += usize::from(other);
        }
    }
    compare_sites(&x, &a, &mut violations);
    let mut tables = Vec::new();
    for (isa, proof) in [(Isa::X86_64, x), (Isa::Aarch64, a)] {
        violations.extend(proof.violations);
        let entries = proof.sites.into_values().map(|site| site.entry).collect();
        match SiteTable::build(isa, entries) {
            Ok(table) => tables.push(table),
            Err(error) => {
                violations.push(Violation { isa: Some(isa), function: None, site: None, kind: Kind::Input(error) });
            }
        }
    }
    stats.time = start.elapsed();
    match <[SiteTable; 2]>::try_from(tables) {
        Ok([x86_64, aarch64]) if violations.is_empty() => Ok(VerifiedPair { x86_64, aarch64, stats }),
        _ => Err(violations),
    }
}

/// What was proved of one executable.
#[derive(Default)]
struct Proof {
    functions: usize,
    insns: usize,
    polls: usize,
    sites: BTreeMap<u64, Proved>,
    names: HashMap<u64, String>,
    violations: Vec<Violation>,
}

/// Slot bytes that either executable reads after a site must have been written before it on both.
fn compare_sites(x: &Proof, a: &Proof, violations: &mut Vec<Violation>) {
    for (id, x_site) in &x.sites {
        let Some(a_site) = a.sites.get(id) else { continue };
        let function = x.names.get(&x_site.function).cloned();
        let mut refuse = |kind| {
            let site = Some((*id, x_site.entry.ret.0));
            violations.push(Violation { isa: None, function: function.clone(), site, kind });
        };
        if x_site.function != a_site.function {
            refuse(Kind::OtherFunction { x86_64: x_site.function, aarch64: a_site.function });
            continue;
        }
        if x_site.entry.slots_len != a_site.entry.slots_len {
            refuse(Kind::SlotsLen { x86_64: x_site.entry.slots_len, aarch64: a_site.entry.slots_len });
            continue;
        }
        let jumps = |site: &Proved| (site.entry.cells, site.twice);
        if jumps(x_site) != jumps(a_site) {
            refuse(Kind::JumpSite { x86_64: jumps(x_site), aarch64: jumps(a_site) });
            continue;
        }
        'site: for (read_on, reader) in [(Isa::X86_64, x_site), (Isa::Aarch64, a_site)] {
            for (unwritten_on, writer) in [(Isa::X86_64, x_site), (Isa::Aarch64, a_site)] {
                let start = i64::from(writer.entry.slots_cfa_off);
                let unwritten =
                    |byte: &&u32| writer.written.as_ref().is_none_or(|written| !written.has(start + i64::from(**byte)));
                if let Some(offset) = reader.reads.iter().find(unwritten) {
                    refuse(Kind::SlotNotWritten { offset: *offset, read_on, unwritten_on });
                    break 'site;
                }
            }
        }
    }
}

fn prove(executable: &Executable) -> Proof {
    let isa = executable.isa;
    let mut proof = Proof::default();
    if let Err(kind) = prove_all(executable, &mut proof) {
        proof.violations.push(Violation { isa: Some(isa), function: None, site: None, kind });
    }
    proof
}

fn prove_all(executable: &Executable, proof: &mut Proof) -> Result<(), Kind> {
    let abi = Abi::new(executable.isa);
    let failed = |_| Kind::Input(super::Error::NotPortable("capstone cannot be opened"));
    let decoder = abi.decoder().map_err(failed)?;
    let mut functions = executable.bbmap()?;
    functions.sort_by_key(|function| function.addr);
    let starts: HashSet<u64> = functions.iter().map(|function| function.addr).collect();
    let mut records: HashMap<u64, Vec<stackmaps::Record>> = HashMap::new();
    for record in executable.stackmaps()?.records {
        records.entry(record.function).or_default().push(record);
    }
    let polls: HashMap<u64, u64> = executable.polls.iter().map(|poll| (poll.site.0, poll.target.0)).collect();
    let constant = |addr: u64, size: u8| {
        let segment = executable.segment_at(RemoteAddr(addr))?;
        // Read-only on both sides of a migration: each node maps its own file.
        if segment.flags & object::elf::PF_W.0 != 0 {
            return None;
        }
        let mut bytes = [0; 8];
        bytes[..size.into()].copy_from_slice(executable.read(RemoteAddr(addr), size.into())?);
        Some(u64::from_le_bytes(bytes))
    };
    let frames = frames::Frames::new(executable)?;
    let leaves = leaf::Leaves::default();
    let live_in = std::cell::RefCell::new(HashMap::<u64, Parts>::new());
    let context = Context {
        executable,
        abi: &abi,
        decoder: decoder.as_ref(),
        frames: &frames,
        polls: &polls,
        starts: &starts,
        live_in: &live_in,
        leaves: &leaves,
        tls: executable.tls.map(|tls| tls.layout),
        read_only: &constant,
    };
    let analyse = |context: &Context<'_>, function: &super::bbmap::Function| {
        function::analyse(context, function, records.get(&function.addr).map_or(&[], Vec::as_slice))
    };
    let mut outcomes: Vec<Outcome> = functions.iter().map(|function| analyse(&context, function)).collect();
    // First a call was taken to use every argument register. Where that matters, it is found out what each function uses.
    let known = functions.iter().zip(&outcomes).filter(|(_, outcome)| outcome.decoded);
    live_in.replace(known.map(|(function, outcome)| (function.addr, outcome.live_in)).collect());
    refine(&context, &functions, &mut outcomes, &analyse);
    let mut frame_arguments: Vec<FrameArgument> = Vec::new();
    for outcome in outcomes {
        proof.violations.extend(outcome.violations);
        proof.insns += outcome.insns;
        proof.polls += outcome.polls;
        frame_arguments.extend(outcome.frame_arguments);
        for site in outcome.sites {
            let name = || executable.name(RemoteAddr(site.function));
            proof.names.entry(site.function).or_insert_with(name);
            proof.sites.insert(site.entry.id, site);
        }
    }
    proof.functions = functions.len();
    let mut refuse = |kind| {
        proof.violations.push(Violation { isa: Some(executable.isa), function: None, site: None, kind });
    };
    for record in records.values().flatten().filter(|record| !starts.contains(&record.function)) {
        refuse(Kind::RecordWithoutCall { id: record.id, addr: record.function });
    }
    if proof.polls != polls.len() {
        let covered = |addr: u64| {
            functions.iter().any(|f| {
                f.blocks.iter().any(|b| (f.addr + u64::from(b.start)..f.addr + u64::from(b.end)).contains(&addr))
            })
        };
        for addr in polls.keys().filter(|addr| !covered(**addr)) {
            refuse(Kind::Poll { addr: *addr, why: "it is in no function" });
        }
    }
    check_polls(executable, &mut refuse);
    check_frame_arguments(&context, &frame_arguments, &mut refuse);
    let ranges: Vec<Range<u64>> =
        functions.iter().map(|f| f.addr..f.addr + u64::from(f.blocks.last().map_or(0, |b| b.end))).collect();
    check_cover(&context, &ranges, &mut refuse)?;
    check_leaves(&context, decoder.as_ref(), &mut refuse)
}

/// Analyses functions anew whose verdict depends on what their callees use, and everything that they call, until nothing
/// changes: from "uses nothing" up, so that functions that call each other do not keep each other's arguments alive. Only
/// what that ends with is proved, not what was taken to be so on the way.
fn refine(
    context: &Context<'_>,
    functions: &[super::bbmap::Function],
    outcomes: &mut [Outcome],
    analyse: &dyn Fn(&Context<'_>, &super::bbmap::Function) -> Outcome,
) {
    let index: HashMap<u64, usize> = functions.iter().enumerate().map(|(n, function)| (function.addr, n)).collect();
    let mut calls: DiGraph<(), ()> = DiGraph::new();
    for _ in functions {
        calls.add_node(());
    }
    for (n, outcome) in outcomes.iter().enumerate() {
        for callee in outcome.callees.iter().filter_map(|addr| index.get(addr)) {
            calls.add_edge(NodeIndex::new(n), NodeIndex::new(*callee), ());
        }
    }
    // Callees first.
    let mut order: Vec<usize> = Vec::new();
    let mut walk = DfsPostOrder::empty(&calls);
    for n in (0..functions.len()).filter(|n| outcomes[*n].depends_on_callees(context)) {
        walk.move_to(NodeIndex::new(n));
        while let Some(node) = walk.next(&calls) {
            order.push(node.index());
        }
    }
    order.retain(|n| outcomes[*n].decoded);
    let rank: HashMap<usize, usize> = order.iter().enumerate().map(|(at, n)| (*n, at)).collect();
    context.live_in.borrow_mut().extend(order.iter().map(|n| (functions[*n].addr, Parts::NONE)));
    let mut work: BTreeSet<usize> = (0..order.len()).collect();
    while let Some(at) = work.pop_first() {
        let n = order[at];
        outcomes[n] = analyse(context, &functions[n]);
        let live = outcomes[n].live_in;
        if context.live_in.borrow_mut().insert(functions[n].addr, live) != Some(live) {
            let callers = calls.neighbors_directed(NodeIndex::new(n), petgraph::Incoming);
            work.extend(callers.filter_map(|caller| rank.get(&caller.index())));
        }
    }
}

/// Every poll is the nop that a dump expects, and its jump reaches the cold block.
fn check_polls(executable: &Executable, refuse: &mut dyn FnMut(Kind)) {
    let mut seen = HashSet::new();
    for poll in &executable.polls {
        let (site, target) = (poll.site.0, poll.target.0);
        let (nop, reaches): (&[u8], bool) = match executable.isa {
            Isa::X86_64 => {
                use isamorph_arch::x86_64::safepoint::{POLL_NOP, poll_jump};
                (&POLL_NOP, poll_jump(site, target).is_some())
            }
            Isa::Aarch64 => {
                use isamorph_arch::aarch64::safepoint::{POLL_NOP, poll_jump};
                (&POLL_NOP, poll_jump(site, target).is_some())
            }
        };
        let why = if executable.read(poll.site, nop.len() as u64) != Some(nop) {
            "it is not the expected nop"
        } else if !reaches {
            "its cold block is too far away"
        } else if !seen.insert(site) {
            "it is recorded twice"
        } else {
            continue;
        };
        refuse(Kind::Poll { addr: site, why });
    }
}

/// No callee may be given a frame address: it could keep it.
fn check_frame_arguments(context: &Context<'_>, calls: &[FrameArgument], refuse: &mut dyn FnMut(Kind)) {
    for call in calls {
        if let Some(reg) = call.passed(context) {
            let text = format!("{} ({} in {})", call.text, context.abi.name(reg), call.function);
            refuse(Kind::FrameEscape { addr: call.addr, text, why: "passes a frame address to a function" });
        }
    }
}

/// Every byte of the paired text is in a function, a leaf or a stub, or is padding.
fn check_cover(context: &Context<'_>, functions: &[Range<u64>], refuse: &mut dyn FnMut(Kind)) -> Result<(), Kind> {
    let manifest = &context.executable.manifest;
    let text = context.executable.range("text", &manifest.text)?;
    let mut covered = functions.to_vec();
    covered.extend([manifest.stubs.clone(), manifest.leaves.clone()]);
    covered.retain(|range| range.start < range.end);
    covered.sort_by_key(|range| range.start);
    let mut at = manifest.text.start;
    let end = manifest.text.end;
    covered.push(end..end);
    for range in covered {
        let gap = at..range.start.min(end).max(at);
        let bytes = &text[(gap.start - manifest.text.start) as usize..(gap.end - manifest.text.start) as usize];
        if let Some(offset) = first_that_is_no_padding(context, bytes, gap.start) {
            refuse(Kind::Uncovered { addr: gap.start + offset });
        }
        at = at.max(range.end);
    }
    Ok(())
}

fn first_that_is_no_padding(context: &Context<'_>, bytes: &[u8], addr: u64) -> Option<u64> {
    let mut at = 0;
    while at < bytes.len() {
        // Zeros, int3, `udf #0` and traps that the linker fills with; or nops of any length.
        if matches!(bytes[at], 0 | 0xcc | 0xd4) {
            at += 1;
            continue;
        }
        match context.decoder.decode(&bytes[at..], addr + at as u64) {
            Ok(insn) if insn.effects().next().is_none() && (insn.pure || insn.flow == insn::Flow::Trap) => {
                at += usize::from(insn.len);
            }
            _ => return Some(at as u64),
        }
    }
    None
}

/// Leaves neither poll nor call the system, nor anything that does.
fn check_leaves(context: &Context<'_>, decoder: &dyn Decoder, refuse: &mut dyn FnMut(Kind)) -> Result<(), Kind> {
    let manifest = &context.executable.manifest;
    for range in [&manifest.leaves, &manifest.native] {
        let bytes = context.executable.range("leaves", range)?;
        let allowed = |addr: u64| manifest.leaves.contains(&addr) || manifest.native.contains(&addr);
        let mut at = 0;
        while at < bytes.len() {
            let addr = range.start + at as u64;
            if context.polls.contains_key(&addr) {
                refuse(Kind::Leaf { addr, text: decoder.text(&bytes[at..], addr), why: "a poll" });
            }
            match decoder.flow(&bytes[at..], addr) {
                Ok((len, flow)) => {
                    // The compiler's runtime library has jump tables; it is given no function pointers.
                    let table = flow == insn::Flow::IndirectJump && manifest.native.contains(&addr);
                    if let Some(why) = function::leaf_breaks(flow, allowed).filter(|_| !table) {
                        refuse(Kind::Leaf { addr, text: decoder.text(&bytes[at..], addr), why });
                    }
                    at += usize::from(len.max(1));
                }
                // Constant pools and padding of hand-written assembly.
                Err(_) if bytes[at] == 0 => at += context.abi.insn_align() as usize,
                Err(error) => {
                    refuse(Kind::NotModelled(error));
                    break;
                }
            }
        }
    }
    Ok(())
}
