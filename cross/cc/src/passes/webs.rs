//! Phi webs: a phi and what flows into it share one slot, so that nothing is copied where control flow joins.
//!
//! ```text
//!   head:  p = phi [a, entry], [b, latch]     slot = a; slot = b where they are defined; p is what the slot holds
//! ```
//! This holds as long as no member is defined while another is still needed. What cannot be a member (a constant, a
//! value that interferes) is copied into the slot at the end of the predecessor.
use super::liveness::{BEFORE, Life, Position, Scratch, Shape, UsePlace};
use crate::llvm::Value;
use llvm_sys::LLVMOpcode::LLVMPHI;
use std::collections::{HashMap, HashSet};

/// Members of a web at most: comparing each with each stays cheap.
const LARGEST: usize = 2048;

/// Values that share a slot.
#[derive(Debug, Default)]
pub struct Web {
    /// Values that are stored where they are defined.
    pub stored: Vec<Value>,
    /// Phis that are nothing but what the slot holds.
    pub phis: Vec<Value>,
    /// Phi and predecessor at whose end its operand is stored.
    pub copies: Vec<(Value, usize)>,
}

impl Web {
    /// The uses of a member that need its value outside the slot.
    pub fn other_uses(&self, shape: &Shape, member: Value) -> Vec<UsePlace> {
        let phis: HashSet<Value> = self.phis.iter().copied().collect();
        let copied: HashSet<(Value, usize)> = self.copies.iter().copied().collect();
        let stays = |u: &UsePlace| phis.contains(&u.user) && !copied.contains(&(u.user, u.block));
        shape.uses(member).into_iter().filter(|u| !stays(u)).collect()
    }
}

/// Where a value is defined and how far it is needed.
struct Member {
    home: usize,
    defined: Position,
    reach: Vec<(usize, Position)>,
}

impl Member {
    fn of(shape: &Shape, value: Value, scratch: &mut Scratch) -> Member {
        let Life { reach, .. } = shape.life(value, &shape.uses(value), scratch);
        let (home, position) = shape.definition(value);
        // All phis of a block are defined at once, and all parameters.
        let defined = if value.is(LLVMPHI) { BEFORE } else { position };
        Member { home, defined, reach }
    }

    /// Whether the value is still needed when `other` is defined.
    fn is_needed_at(&self, other: &Member) -> bool {
        let Ok(at) = self.reach.binary_search_by_key(&other.home, |r| r.0) else { return false };
        let until = self.reach[at].1;
        until > other.defined && (self.home != other.home || self.defined <= other.defined)
    }

    fn interferes(&self, other: &Member) -> bool {
        let at_once = (self.home, self.defined) == (other.home, other.defined);
        at_once || self.is_needed_at(other) || other.is_needed_at(self)
    }
}

/// The search for webs in one function. No value is in two webs.
pub struct Search<'a> {
    shape: &'a Shape,
    frequency: &'a [u64],
    /// Whether each value that lives across a site is stored where it is defined.
    eager: &'a HashMap<Value, bool>,
    taken: HashSet<Value>,
    known: HashMap<Value, Member>,
    scratch: Scratch,
}

impl<'a> Search<'a> {
    /// `eager` says of each value that lives across a site whether it is stored where it is defined.
    pub fn new(shape: &'a Shape, frequency: &'a [u64], eager: &'a HashMap<Value, bool>) -> Self {
        let (taken, known) = Default::default();
        Search { shape, frequency, eager, taken, known, scratch: Scratch::default() }
    }

    /// A web around a phi that is stored where it is defined, unless that is in one already.
    pub fn around(&mut self, root: Value) -> Option<Web> {
        if self.taken.contains(&root) {
            return None;
        }
        let mut web = Web::default();
        let (mut members, mut is_member) = (vec![root], HashSet::from([root]));
        self.know(root);
        let mut work = vec![root];
        while let Some(phi) = work.pop() {
            let mut copies = Vec::new();
            for (value, from) in phi.incoming() {
                if is_member.contains(&value) {
                    continue;
                }
                let from = self.shape.index[&from];
                if members.len() == LARGEST || !self.may_join(value, from, &members) {
                    copies.push(from);
                    continue;
                }
                members.push(value);
                is_member.insert(value);
                if self.flows_on(value) {
                    work.push(value);
                } else {
                    web.stored.push(value);
                }
            }
            copies.sort_unstable();
            copies.dedup();
            // A store at the end of a block that goes elsewhere, too, could hit what another member is needed for there.
            if copies.iter().all(|&from| self.shape.successors[from].len() == 1) {
                web.phis.push(phi);
                web.copies.extend(copies.into_iter().map(|from| (phi, from)));
            } else {
                web.stored.push(phi);
            }
        }
        Some(web)
    }

    /// Keeps the members of a web out of others.
    pub fn take(&mut self, web: &Web) {
        self.taken.extend(web.stored.iter().chain(&web.phis).copied());
    }

    /// Whether a value is a phi that may be nothing but a slot: not one that is kept in a register but for cold sites.
    fn flows_on(&self, value: Value) -> bool {
        value.is(LLVMPHI) && self.eager.get(&value) != Some(&false)
    }

    fn may_join(&mut self, value: Value, from: usize, members: &[Value]) -> bool {
        if !value.is_local() || self.taken.contains(&value) {
            return false;
        }
        let stored_anyway = self.flows_on(value) || self.eager.get(&value) == Some(&true);
        let home = self.shape.definition(value).0;
        let copy_is_cheaper = self.shape.successors[from].len() == 1 && self.frequency[from] < self.frequency[home];
        if !stored_anyway && copy_is_cheaper {
            return false;
        }
        self.know(value);
        let member = &self.known[&value];
        !members.iter().any(|other| member.interferes(&self.known[other]))
    }

    fn know(&mut self, value: Value) {
        if !self.known.contains_key(&value) {
            let member = Member::of(self.shape, value, &mut self.scratch);
            self.known.insert(value, member);
        }
    }
}
