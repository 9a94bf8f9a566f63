//! Which argument registers a leaf uses, from its code.
//!
//! A compiler leaves the upper bytes of registers behind that it used for narrow values. If a call were taken to use
//! every register that can carry an argument, such leftovers would look live at sites before it.
use super::abi::Abi;
use super::function::Context;
use super::insn::{Flow, Insn, Parts};
use super::liveness;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

/// Most instructions of one leaf that are looked at: libgcc's largest has about a thousand.
const LARGEST: usize = 1 << 14;

/// Remembers what was found.
#[derive(Debug, Default)]
pub struct Leaves {
    known: RefCell<HashMap<u64, Parts>>,
}

impl Leaves {
    /// The argument registers that the leaf at `target` uses; all of them where its code is not understood.
    pub fn arguments(&self, context: &Context<'_>, target: u64) -> Parts {
        if let Some(known) = self.known.borrow().get(&target) {
            return *known;
        }
        let used = decode(context, target).map_or(context.abi.arguments, |code| {
            live(context.abi, &code).get(&target).copied().unwrap_or(context.abi.arguments) & context.abi.arguments
        });
        self.known.borrow_mut().insert(target, used);
        used
    }
}

/// Every instruction that is reached from `entry` without calls; `None` if one of them is not understood.
fn decode(context: &Context<'_>, entry: u64) -> Option<BTreeMap<u64, Insn>> {
    let manifest = &context.executable.manifest;
    let mut code = BTreeMap::new();
    let mut work = vec![entry];
    while let Some(addr) = work.pop() {
        if code.contains_key(&addr) {
            continue;
        }
        let range = [&manifest.leaves, &manifest.native].into_iter().find(|range| range.contains(&addr))?;
        let bytes = context.executable.range("leaf", range).ok()?;
        let insn = context.decoder.decode(bytes.get((addr - range.start) as usize..)?, addr).ok()?;
        work.extend(successors(&insn)?);
        code.insert(addr, insn);
        if code.len() > LARGEST {
            return None;
        }
    }
    Some(code)
}

/// Where control may be after an instruction of a leaf; `None` if nobody knows.
fn successors(insn: &Insn) -> Option<Vec<u64>> {
    Some(match insn.flow {
        Flow::Next | Flow::Call(Some(_)) => vec![insn.end()],
        Flow::Jump(target) => vec![target],
        Flow::Branch(target) => vec![target, insn.end()],
        Flow::Return | Flow::Trap => vec![],
        Flow::IndirectJump | Flow::Call(None) | Flow::SystemCall => return None,
    })
}

/// What is live before each instruction. The frame is not followed: what is read from there was written there before,
/// and writing counts as a use.
fn live(abi: &Abi, code: &BTreeMap<u64, Insn>) -> HashMap<u64, Parts> {
    let mut live: HashMap<u64, Parts> = HashMap::new();
    loop {
        let mut changed = false;
        for (addr, insn) in code.iter().rev() {
            let after = successors(insn).into_iter().flatten().filter_map(|next| live.get(&next)).copied();
            let after = after.fold(Parts::NONE, |all, parts| all | parts);
            let before = liveness::registers_before(abi, insn, after);
            changed |= live.insert(*addr, before) != Some(before);
        }
        if !changed {
            return live;
        }
    }
}
