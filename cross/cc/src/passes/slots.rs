//! Gives every value that lives across a site a field of the function's one `slots` struct, and every site a stack map.
//!
//! Two ways to get a value back, chosen per value by block frequencies:
//!
//! ```text
//!   at uses:      v = …            through a variable:   v = …; t = v
//!                 slot = v                               [slot = v]
//!                 call f(); map                          [slot = t]; call f(); map; t = slot
//!                 use(load slot)                         use(t)
//! ```
//! and two times to store it: where it is defined, or just before each site it lives across, if those are colder (a
//! poll's cold block costs nothing). Variables `t` are promoted to SSA values again; since every site kills them, none
//! of those lives across a site. A slot holds its value for the whole life of the value, so a reload may stand anywhere.
//! Values that flow into one phi share a slot where that is cheaper and none is needed any more when the next is made
//! ([`super::webs`]).
use super::liveness::{BEFORE, END, Life, Scratch, Shape, Site, UsePlace};
use super::webs::{Search, Web};
use super::{FinishError, is_site, jumps, remat, tidy};
use crate::llvm::{Block, Builder, Module, Type, Value};
use llvm_sys::LLVMOpcode::{
    LLVMAlloca, LLVMBitCast, LLVMInsertElement, LLVMIntToPtr, LLVMLoad, LLVMPHI, LLVMPtrToInt, LLVMSExt, LLVMSelect,
    LLVMTrunc, LLVMZExt,
};
use llvm_sys::LLVMTypeKind::{LLVMMetadataTypeKind, LLVMTokenTypeKind};
use std::collections::HashMap;

/// Alignment of the slots, in bytes.
const ALIGNMENT: u64 = 16;
/// Values that registers can be expected to hold from a site on, beside those of the code there. Of 0, 4, 6, 8 and 12, four
/// costs SQLite the least; Zstandard would do with none.
const REGISTERS: u32 = 4;
/// Lower bits of a site's ID.
const ORDINAL_BITS: u32 = 24;

/// Numbers the sites of a module.
#[derive(Debug)]
pub struct Sites {
    base: u64,
    next: u64,
    stackmap: Value,
    ty: Type,
}

impl Sites {
    /// IDs with `hash` in their upper 40 bits.
    pub fn new(module: &Module, hash: u64) -> Self {
        let ty = Type::function(module.void_type(), &[module.int_type(64), module.int_type(32)], true);
        let stackmap = module.declare("llvm.experimental.stackmap", ty);
        Sites { base: hash >> ORDINAL_BITS << ORDINAL_BITS, next: 0, stackmap, ty }
    }

    fn map(
        &mut self,
        module: &Module,
        b: &Builder,
        slots: Option<(Value, u64)>,
        cells: Option<jumps::Cells>,
    ) -> Result<Value, FinishError> {
        if self.next >> ORDINAL_BITS != 0 {
            return Err(FinishError::TooManySites);
        }
        let word = module.int_type(64);
        let mut args = vec![word.int(self.base | self.next), module.int_type(32).int(0)];
        self.next += 1;
        match slots {
            Some((slots, length)) => args.extend([slots, word.int(length)]),
            None => args.push(word.int(0)),
        }
        args.extend(cells.map(|cells| word.int(cells.count)));
        Ok(b.call(self.ty, self.stackmap, &args))
    }
}

/// How one value survives.
struct Plan {
    value: Value,
    ty: Type,
    offset: u64,
    uses: Vec<UsePlace>,
    /// Store just before these sites; at the definition if there are none.
    store_before: Vec<Site>,
    /// Load after these sites, through a variable; at the uses if there are none.
    reload_after: Vec<Site>,
    /// Executions that loading after sites saves against loading at uses.
    gain: u128,
    /// The web whose slot it is.
    web: Option<usize>,
    role: Role,
}

/// How the value gets into the slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is stored.
    Stored,
    /// It is a phi whose operands were: one load where it stood has its value.
    Loaded,
    /// The same, but every use has a load.
    Held,
}

impl Plan {
    fn through_variable(&self) -> bool {
        !self.reload_after.is_empty() || !self.store_before.is_empty()
    }
}

/// Rewrites one function. `cold` are the cold blocks of its polls.
pub fn assign(module: &Module, function: Value, cold: &[Block], sites: &mut Sites) -> Result<(), FinishError> {
    remat::constant_geps(module, function);
    let shape = Shape::of(function);
    let mut frequency = function.block_frequencies(shape.blocks.len());
    for block in cold {
        frequency[shape.index[block]] = 0;
    }
    let (mut plans, mut scratch) = (Vec::new(), Scratch::default());
    let locals = function.params().into_iter().chain(shape.instructions.iter().flatten().copied());
    for value in locals.filter(|v| !v.ty().is_void()) {
        let uses = shape.uses(value);
        let life = life(&shape, value, &uses, &mut scratch);
        if life.crossed.is_empty() {
            continue;
        }
        let ty = value.ty();
        if matches!(ty.kind(), LLVMTokenTypeKind | LLVMMetadataTypeKind) {
            return Err(FinishError::NoSlot { function: function.name(), value: value.print() });
        }
        plans.push(choose(&shape, &frequency, value, uses, &life, &mut scratch));
    }
    let cells = jumps::Cells::of(function);
    // Control may come back to a call that returns twice: there a slot belongs to one value.
    let webs = if cells.is_none() { share(&shape, &frequency, &mut plans, &mut scratch) } else { Vec::new() };
    keep_few_in_registers(&frequency, &mut plans);
    let length = lay_out(module, &mut plans, cells.map_or(0, |_| jumps::RESERVED));
    rewrite(module, function, &shape, &plans, &webs, (length, cells), sites)?;
    check(function)
}

/// As `Shape::life`, with a short cut for the many values that are used in their own block only.
fn life(shape: &Shape, value: Value, uses: &[UsePlace], scratch: &mut Scratch) -> Life {
    let (Some(first), Some(last)) = (uses.first(), uses.last()) else { return Life::default() };
    let (home, defined) = shape.definition(value);
    if first.block == home && last.block == home && first.position > defined {
        let crossed = shape.sites_between(home, defined, last.position).iter().map(|&s| (home, s)).collect();
        return Life { reach: vec![(home, last.position)], crossed };
    }
    shape.life(value, uses, scratch)
}

fn choose(
    shape: &Shape,
    frequency: &[u64],
    value: Value,
    uses: Vec<UsePlace>,
    life: &Life,
    scratch: &mut Scratch,
) -> Plan {
    let needed: Vec<Site> = uses.iter().map(|u| (u.block, u.position)).collect();
    let reloads = reload_sites(shape, value, needed.clone(), scratch);
    let cost = |sites: &[Site]| sites.iter().map(|s| u128::from(frequency[s.0])).sum::<u128>();
    let at_uses: u128 = groups(shape, value, &uses).iter().map(|g| u128::from(frequency[g.0])).sum();
    let at_definition = u128::from(frequency[shape.definition(value).0]);
    let after_sites = cost(&reloads);
    let (mut store_before, mut reload_after, mut gain) = (Vec::new(), Vec::new(), 0);
    // Stored before a site only where no site before has seen to it; that store is a use as well.
    let first = shape.first_sites(value, life, scratch);
    let late = reload_sites(shape, value, needed.into_iter().chain(first.iter().copied()).collect(), scratch);
    if cost(&first) + cost(&late) < at_definition + at_uses.min(after_sites) {
        (store_before, reload_after) = (first, late);
    } else if after_sites < at_uses {
        (reload_after, gain) = (reloads, at_uses - after_sites);
    }
    Plan { value, ty: value.ty(), offset: 0, uses, store_before, reload_after, gain, web: None, role: Role::Stored }
}

/// Gives phis and what flows into them one slot where that is cheaper.
fn share(shape: &Shape, frequency: &[u64], plans: &mut Vec<Plan>, scratch: &mut Scratch) -> Vec<Web> {
    let eager: HashMap<Value, bool> = plans.iter().map(|plan| (plan.value, plan.store_before.is_empty())).collect();
    let mut number: HashMap<Value, usize> = plans.iter().enumerate().map(|(i, plan)| (plan.value, i)).collect();
    let often = |value: Value| u128::from(frequency[shape.definition(value).0]);
    let mut roots: Vec<Value> = plans.iter().map(|plan| plan.value).filter(|v| v.is(LLVMPHI) && eager[v]).collect();
    roots.sort_by_key(|&root| std::cmp::Reverse(often(root)));
    let (mut search, mut webs) = (Search::new(shape, frequency, &eager), Vec::<Web>::new());
    for root in roots {
        let Some(web) = search.around(root) else { continue };
        let mut before = 0;
        let mut after: u128 = web.copies.iter().map(|&(_, from)| u128::from(frequency[from])).sum();
        let mut members = Vec::new();
        for (&value, is_phi) in web.stored.iter().map(|v| (v, false)).chain(web.phis.iter().map(|v| (v, true))) {
            if let Some(&i) = number.get(&value) {
                let plan = &plans[i];
                let stores = if plan.store_before.is_empty() { often(value) } else { 0 };
                before += stores + reading(shape, frequency, value, &plan.uses, scratch).0;
            }
            let uses = web.other_uses(shape, value);
            let (reads, reload_after, gain) = reading(shape, frequency, value, &uses, scratch);
            let mut plan = Plan {
                value,
                ty: value.ty(),
                offset: 0,
                uses,
                store_before: Vec::new(),
                reload_after,
                gain,
                web: Some(webs.len()),
                role: Role::Stored,
            };
            if is_phi {
                let held = all_groups(shape, &plan.uses).iter().map(|g| u128::from(frequency[g.0])).sum::<u128>();
                if held <= reads + often(value) {
                    (plan.role, plan.gain) = (Role::Held, 0);
                    plan.reload_after.clear();
                    after += held;
                } else {
                    plan.role = Role::Loaded;
                    after += reads + often(value);
                }
            } else {
                after += reads + often(value);
            }
            members.push(plan);
        }
        if after < before {
            search.take(&web);
            webs.push(web);
            for plan in members {
                match number.get(&plan.value) {
                    Some(&i) => plans[i] = plan,
                    None => {
                        number.insert(plan.value, plans.len());
                        plans.push(plan);
                    }
                }
            }
        }
    }
    webs
}

/// What it costs to read a stored value, the sites to load it after if that is cheaper than at uses, and by how much.
fn reading(
    shape: &Shape,
    frequency: &[u64],
    value: Value,
    uses: &[UsePlace],
    scratch: &mut Scratch,
) -> (u128, Vec<Site>, u128) {
    let cost = |block: usize| u128::from(frequency[block]);
    let at_uses: u128 = groups(shape, value, uses).iter().map(|g| cost(g.0)).sum();
    let sites = reload_sites(shape, value, uses.iter().map(|u| (u.block, u.position)).collect(), scratch);
    let after_sites: u128 = sites.iter().map(|site| cost(site.0)).sum();
    if after_sites < at_uses { (after_sites, sites, at_uses - after_sites) } else { (at_uses, Vec::new(), 0) }
}

/// Of the values that are loaded after the same site, registers hold some; others would be stored again to be loaded at
/// their uses, and are better loaded there from their slots.
fn keep_few_in_registers(frequency: &[u64], plans: &mut [Plan]) {
    let mut loads: HashMap<Site, u32> = HashMap::new();
    let mut order: Vec<usize> = (0..plans.len()).filter(|&i| plans[i].gain != 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(plans[i].gain));
    for i in order {
        // What a poll's cold block loads costs nothing.
        let warm = |site: &&Site| frequency[site.0] != 0;
        if plans[i].reload_after.iter().filter(warm).any(|site| loads.get(site).is_some_and(|&n| n >= REGISTERS)) {
            plans[i].reload_after.clear();
        } else {
            for site in plans[i].reload_after.iter().filter(warm) {
                *loads.entry(*site).or_default() += 1;
            }
        }
    }
}

/// The sites after which the value is needed at one of `work` before the next site.
fn reload_sites(shape: &Shape, value: Value, mut work: Vec<Site>, scratch: &mut Scratch) -> Vec<Site> {
    let (home, defined) = shape.definition(value);
    scratch.next_round(shape.blocks.len());
    let mut out = Vec::new();
    while let Some((block, until)) = work.pop() {
        let after = if block == home { defined } else { BEFORE };
        if let Some(&site) = shape.sites_between(block, after, until).last() {
            out.push((block, site));
        } else if block != home {
            for &p in &shape.predecessors[block] {
                if scratch.get(p).is_none() {
                    scratch.set(p, 0);
                    work.push((p, END));
                }
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Runs of uses between two sites of a block that the definition does not reach within the block: block, number of
/// sites before the run, and the first use.
fn groups(shape: &Shape, value: Value, uses: &[UsePlace]) -> Vec<(usize, usize, UsePlace)> {
    let (home, defined) = shape.definition(value);
    let own = shape.segment(home, defined + 1);
    let mut out: Vec<(usize, usize, UsePlace)> = Vec::new();
    for u in uses {
        let segment = shape.segment(u.block, u.position);
        let in_register = u.block == home && u.position > defined && segment == own;
        let seen = out.last().is_some_and(|g| (g.0, g.1) == (u.block, segment));
        if !in_register && !seen {
            out.push((u.block, segment, *u));
        }
    }
    out
}

/// Runs of uses between two sites of a block, wherever the value is defined: block, and number of sites before the run.
fn all_groups(shape: &Shape, uses: &[UsePlace]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = uses.iter().map(|u| (u.block, shape.segment(u.block, u.position))).collect();
    out.dedup();
    out
}

/// Gives every plan an offset from `start` on, wide values first; returns the length of the slots in bytes.
///
/// x86_64 reads 16 or 32 bits where a narrower value's upper part does not matter, if it knows the address to be a
/// multiple of their size. The bytes behind the value are another slot's, which need not have been written. So a narrow
/// slot is never at such an address: one byte at an odd offset, two bytes at an odd multiple of two.
fn lay_out(module: &Module, plans: &mut [Plan], start: u64) -> u64 {
    let mut order: Vec<usize> = (0..plans.len()).collect();
    let align = |plan: &Plan| slot_alignment(module, plan.ty);
    order.sort_by_key(|&i| std::cmp::Reverse(align(&plans[i])));
    let mut at = start;
    let mut webs: HashMap<usize, u64> = HashMap::new();
    for i in order {
        let plan = &mut plans[i];
        if let Some(&offset) = plan.web.and_then(|web| webs.get(&web)) {
            plan.offset = offset;
            continue;
        }
        let (align, size) = (slot_alignment(module, plan.ty), module.alloc_size(plan.ty).max(1));
        at = at.next_multiple_of(align);
        if size < 4 && align == size && at.is_multiple_of(2 * size) {
            at += size;
        }
        plan.offset = at;
        at += size;
        if let Some(web) = plan.web {
            webs.insert(web, plan.offset);
        }
    }
    at.next_multiple_of(ALIGNMENT)
}

fn slot_alignment(module: &Module, ty: Type) -> u64 {
    module.alignment(ty).clamp(1, ALIGNMENT)
}

/// Puts stores, loads and maps into the code; the slots have `length` bytes.
fn rewrite(
    module: &Module,
    function: Value,
    shape: &Shape,
    plans: &[Plan],
    webs: &[Web],
    (length, cells): (u64, Option<jumps::Cells>),
    sites: &mut Sites,
) -> Result<(), FinishError> {
    let b = module.builder();
    let entry = shape.blocks[0];
    let Some(first) = entry.first_insertion_point() else { return Ok(()) };
    b.before(first);
    let slots = (length != 0).then(|| b.alloca(module.int_type(8).array(length), ALIGNMENT as u32));
    let variables: Vec<Option<Value>> =
        plans.iter().map(|p| p.through_variable().then(|| b.alloca(p.ty, 16))).collect();
    // Where code goes that runs just after a site: behind its map.
    let mut after: HashMap<Value, Value> = HashMap::new();
    for (block, positions) in shape.sites.iter().enumerate() {
        for &position in positions {
            let call = shape.instructions[block][position as usize];
            let Some(next) = call.next() else { continue };
            sites.map(module, b.before(next), slots.map(|s| (s, length)), cells)?;
            after.insert(call, next);
        }
    }
    let Some(slots) = slots else { return Ok(()) };
    let at = |site: &Site| shape.instructions[site.0][site.1 as usize];
    for (plan, variable) in plans.iter().zip(&variables) {
        let align = slot_alignment(module, plan.ty) as u32;
        let slot = |b: &Builder| b.const_offset(slots, plan.offset as i64);
        let defined = behind_definition(plan.value, shape, first, &after);
        if plan.store_before.is_empty() && plan.role == Role::Stored {
            b.before(defined);
            let place = slot(&b);
            b.store(plan.value, place, align);
        }
        match variable {
            Some(variable) => {
                b.before(defined).store(plan.value, *variable, 16);
                for site in &plan.store_before {
                    let value = b.before(at(site)).load(plan.ty, *variable, 16);
                    let place = slot(&b);
                    b.store(value, place, align);
                }
                for site in &plan.reload_after {
                    b.before(after[&at(site)]);
                    let place = slot(&b);
                    let value = b.load(plan.ty, place, align);
                    b.store(value, *variable, 16);
                }
                // Last, so that a use just behind a site comes after the reload.
                rewrite_listed_uses(&b, shape, plan, |b| b.load(plan.ty, *variable, 16));
            }
            None => reload_at_uses(&b, shape, plan, |b| {
                let place = slot(b);
                b.load(plan.ty, place, align)
            }),
        }
    }
    join(module, shape, plans, webs, slots);
    if let Some(cells) = cells {
        cells.tell(module, b.before(first), slots);
    }
    function.promote(&variables.into_iter().flatten().collect::<Vec<_>>());
    tidy::define_phis(function);
    // The variables became new ones.
    tidy::widen_phis(module, function);
    keep_loads_apart(function);
    keep_loads_narrow(function, slots);
    Ok(())
}

/// Makes the phis of webs what their slots hold. After all uses were rewritten: what a copy stores may come from a slot that
/// another copy on the same edge writes.
fn join(module: &Module, shape: &Shape, plans: &[Plan], webs: &[Web], slots: Value) {
    let b = module.builder();
    let plan_of: HashMap<Value, &Plan> = plans.iter().map(|plan| (plan.value, plan)).collect();
    for &(phi, from) in webs.iter().flat_map(|web| &web.copies) {
        let (plan, Some(end)) = (plan_of[&phi], shape.blocks[from].terminator()) else { continue };
        let operand = phi.incoming().into_iter().find(|(_, block)| *block == shape.blocks[from]);
        let Some((value, _)) = operand else { continue };
        let place = b.before(end).const_offset(slots, plan.offset as i64);
        b.store(value, place, slot_alignment(module, plan.ty) as u32);
    }
    for phi in webs.iter().flat_map(|web| &web.phis) {
        let plan = plan_of[phi];
        let value = match (plan.role, phi.block().first_insertion_point()) {
            (Role::Loaded, Some(first)) => {
                let place = b.before(first).const_offset(slots, plan.offset as i64);
                b.load(plan.ty, place, slot_alignment(module, plan.ty) as u32)
            }
            // Only phis that go as well are left to use it.
            _ => plan.ty.zero(),
        };
        phi.replace_with(value);
    }
    for phi in webs.iter().flat_map(|web| &web.phis) {
        phi.erase();
    }
}

/// A `select` between two reloads would become one load through a `select` of frame addresses, which nobody could follow
/// in the machine code.
fn keep_loads_apart(function: Value) {
    for select in function.instructions().into_iter().filter(|i| i.is(LLVMSelect)) {
        // A conversion of a load becomes a load of the narrower type first.
        let (one, other) = (converted(select.operand(1)), converted(select.operand(2)));
        if one.is(LLVMLoad) && other.is(LLVMLoad) && !one.is_atomic_access() {
            one.make_volatile();
        }
    }
}

/// x86_64 loads 16 bytes around a slot of which it wants one vector element. Those need not have been written.
fn keep_loads_narrow(function: Value, slots: Value) {
    for insert in function.instructions().into_iter().filter(|i| i.is(LLVMInsertElement)) {
        let element = converted(insert.operand(1));
        let is_slot = |pointer: Value| pointer == slots || pointer.constant_gep().is_some_and(|gep| gep.0 == slots);
        if element.is(LLVMLoad) && is_slot(element.operand(0)) {
            element.make_volatile();
        }
    }
}

/// What a value was before it was converted to another type.
fn converted(mut value: Value) -> Value {
    while value.is_instruction()
        && matches!(value.opcode(), LLVMTrunc | LLVMZExt | LLVMSExt | LLVMBitCast | LLVMPtrToInt | LLVMIntToPtr)
    {
        value = value.operand(0);
    }
    value
}

/// The first instruction that may use a value.
fn behind_definition(value: Value, shape: &Shape, entry: Value, after: &HashMap<Value, Value>) -> Value {
    let (block, position) = shape.definition(value);
    if position == BEFORE {
        return entry;
    }
    if let Some(next) = after.get(&value) {
        return *next;
    }
    if value.is(LLVMPHI) {
        return shape.blocks[block].first_insertion_point().unwrap_or(entry);
    }
    value.next().unwrap_or(entry)
}

fn place_of(shape: &Shape, u: &UsePlace) -> Value {
    if u.position == END { shape.blocks[u.block].terminator().unwrap_or(u.user) } else { u.user }
}

fn rewrite_listed_uses(b: &Builder, shape: &Shape, plan: &Plan, make: impl Fn(&Builder) -> Value) {
    let mut edges: HashMap<usize, Value> = HashMap::new();
    for u in &plan.uses {
        let new = if u.position == END {
            *edges.entry(u.block).or_insert_with(|| make(b.before(place_of(shape, u))))
        } else {
            make(b.before(u.user))
        };
        u.user.set_operand(u.operand, new);
    }
}

fn reload_at_uses(b: &Builder, shape: &Shape, plan: &Plan, make: impl Fn(&Builder) -> Value) {
    let (home, defined) = shape.definition(plan.value);
    let own = shape.segment(home, defined + 1);
    let mut current: Option<((usize, usize), Value)> = None;
    for u in &plan.uses {
        let segment = shape.segment(u.block, u.position);
        if plan.role != Role::Held && u.block == home && u.position > defined && segment == own {
            continue;
        }
        let key = (u.block, segment);
        let value = match current {
            Some((at, value)) if at == key => value,
            _ => make(b.before(place_of(shape, u))),
        };
        current = Some((key, value));
        u.user.set_operand(u.operand, value);
    }
}

/// Nothing lives across a site any more but the address of the slots.
fn check(function: Value) -> Result<(), FinishError> {
    let shape = Shape::of(function);
    let mut scratch = Scratch::default();
    for value in function.params().into_iter().chain(shape.instructions.iter().flatten().copied()) {
        if value.ty().is_void() || value.is(LLVMAlloca) {
            continue;
        }
        if !life(&shape, value, &shape.uses(value), &mut scratch).crossed.is_empty() {
            return Err(FinishError::LiveAcrossSite { function: function.name(), value: value.print() });
        }
    }
    for block in &shape.instructions {
        for pair in block.windows(2).filter(|pair| is_site(pair[0])) {
            let mapped = pair[1].intrinsic().is_some_and(|name| name == "llvm.experimental.stackmap");
            if !mapped {
                return Err(FinishError::LiveAcrossSite { function: function.name(), value: pair[0].print() });
            }
        }
    }
    Ok(())
}
