//! Polls: places where a running thread can be made to stop.
//!
//! ```text
//!   header:  phis
//!            callbr nop ──▶ rest of the header
//!               └(patched)▶ cold:  call __isam_safepoint   (a site)
//!                                  br rest
//! ```
//! Every cycle of the control-flow graph contains the target of a retreating edge of any depth-first search; a poll at
//! each of those targets is on every cycle, reducible or not. Exempt are loops that run a few times only, and those that
//! call a function that polls at its entry in every round. Likewise for the call graph, with everything outside the module
//! as one node.
use super::is_site;
use crate::llvm::value::FUNCTION;
use crate::llvm::{Block, Module, Type, Value};
use llvm_sys::LLVMOpcode::LLVMPHI;
use std::collections::{HashMap, HashSet};

/// Template of a poll until the module gets its final ISA.
pub const PLACEHOLDER: &str = "isamorph.poll";
/// Constraints of a poll: one label.
pub const CONSTRAINTS: &str = "!i";
/// Rounds of a loop nest that need no poll: some microseconds.
const SHORT_LOOP: u32 = 2048;

/// Where polls go in a function.
#[derive(Debug, Default)]
pub struct Plan {
    entry: bool,
    headers: Vec<Block>,
}

impl Plan {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.entry && self.headers.is_empty()
    }
}

/// Targets of retreating edges of a depth-first search from `root` over `successors`, in order of discovery.
fn retreating_targets(nodes: usize, root: usize, successors: &[Vec<usize>]) -> Vec<usize> {
    let mut state = vec![0u8; nodes]; // 0 new, 1 on the path, 2 done
    let (mut found, mut is_found) = (Vec::new(), vec![false; nodes]);
    let mut path = vec![(root, 0usize)];
    state[root] = 1;
    while let Some((node, next)) = path.last_mut() {
        let Some(&to) = successors[*node].get(*next) else {
            state[*node] = 2;
            path.pop();
            continue;
        };
        *next += 1;
        match state[to] {
            0 => {
                state[to] = 1;
                path.push((to, 0));
            }
            1 if !is_found[to] => {
                is_found[to] = true;
                found.push(to);
            }
            _ => {}
        }
    }
    found
}

/// Functions that need a poll at their entry: each cycle of the call graph contains one of them.
pub fn recursive_functions(module: &Module) -> HashSet<Value> {
    let functions: Vec<Value> = module.functions().into_iter().filter(|f| !f.is_declaration()).collect();
    let index: HashMap<Value, usize> = functions.iter().enumerate().map(|(i, f)| (*f, i)).collect();
    let outside = functions.len();
    let mut successors = vec![Vec::new(); functions.len() + 1];
    for (i, function) in functions.iter().enumerate() {
        let mut callees = HashSet::new();
        for call in function.instructions().into_iter().filter(|&i| is_site(i)) {
            let to = index.get(&call.callee()).copied().unwrap_or(outside);
            if callees.insert(to) {
                successors[i].push(to);
            }
        }
        let only_called = |f: Value| {
            f.uses().iter().all(|u| is_site(u.user) && u.user.callee() == f && u.operand + 1 == u.user.operand_count())
        };
        if function.is_visible_outside() || !only_called(*function) {
            successors[outside].push(i);
        }
    }
    // Cycles through the outside: functions that are called from there and call back.
    let mut reaches = vec![false; outside + 1];
    reaches[outside] = true;
    loop {
        let before = reaches.iter().filter(|r| **r).count();
        for i in 0..outside {
            reaches[i] = reaches[i] || successors[i].iter().any(|&to| reaches[to]);
        }
        if reaches.iter().filter(|r| **r).count() == before {
            break;
        }
    }
    let mut out: HashSet<Value> = successors[outside].iter().filter(|&&i| reaches[i]).map(|&i| functions[i]).collect();
    // Cycles inside the module.
    for list in &mut successors[..outside] {
        list.retain(|&to| to != outside);
    }
    successors[outside] = (0..outside).collect();
    out.extend(retreating_targets(outside + 1, outside, &successors).into_iter().map(|i| functions[i]));
    out
}

/// Decides where polls go. `entry_polls` are the functions of the module that poll when they are called.
pub fn plan(function: Value, entry_polls: &HashSet<Value>) -> Plan {
    let entry = entry_polls.contains(&function);
    let blocks = function.blocks();
    let index: HashMap<Block, usize> = blocks.iter().enumerate().map(|(i, b)| (*b, i)).collect();
    let successors: Vec<Vec<usize>> =
        blocks.iter().map(|b| b.successors().iter().map(|s| index[s]).collect()).collect();
    let targets = retreating_targets(blocks.len(), 0, &successors);
    if targets.is_empty() {
        return Plan { entry, headers: Vec::new() };
    }
    let calls_one =
        |block: &Block| block.instructions().into_iter().any(|i| is_site(i) && entry_polls.contains(&i.callee()));
    let exempt = function.unpolled_headers(SHORT_LOOP, &blocks.iter().map(calls_one).collect::<Vec<_>>());
    let headers = targets.into_iter().filter(|&i| !exempt[i]).map(|i| blocks[i]).collect();
    Plan { entry, headers }
}

/// Inserts the polls; returns their cold blocks.
pub fn insert(module: &Module, function: Value, plan: Plan) -> Vec<Block> {
    let b = module.builder();
    let ty = Type::function(module.void_type(), &[], false);
    let entry = function.blocks()[0];
    let places = plan.entry.then_some(entry).into_iter().chain(plan.headers.iter().copied());
    let mut cold_blocks = Vec::new();
    for block in places {
        // Behind the phis; locals of the entry block were moved to the portable stack before.
        let Some(at) = block.instructions().into_iter().find(|i| !i.is(LLVMPHI)) else { continue };
        let rest = at.split_before();
        let cold = b.append_block(function);
        let safepoint = module.declare("__isam_safepoint", ty);
        safepoint.add_attribute("cold", 0);
        b.at_end(cold).locate(at);
        let call = b.call(ty, safepoint, &[]);
        call.add_call_attribute(FUNCTION, "nomerge", 0);
        b.br(rest);
        if let Some(jump) = block.terminator() {
            let asm = b.asm(ty, PLACEHOLDER, CONSTRAINTS, true);
            let poll = b.before(jump).callbr(asm, ty, rest, cold);
            b.set_branch_weights(poll, &[1_000_000, 1]);
            jump.erase();
        }
        cold_blocks.push(cold);
    }
    cold_blocks
}
