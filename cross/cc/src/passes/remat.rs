//! Values that are computed anew where they are used instead of being kept: an address plus a constant.
use super::liveness::{Scratch, Shape};
use crate::llvm::{Block, Builder, Module, Value};
use llvm_sys::LLVMOpcode::LLVMPHI;
use std::collections::HashMap;

/// Goes to the place where an operand's value must exist.
fn before_use(b: &Builder, user: Value, operand: u32) {
    let place = if user.is(LLVMPHI) { user.incoming_block(operand).terminator().unwrap_or(user) } else { user };
    b.before(place);
}

/// Replaces each use of `value` by what `make` builds just before it. Phis that take the value over the same edge share
/// one, as the IR demands.
pub fn rewrite_uses(b: &Builder, value: Value, mut make: impl FnMut(&Builder) -> Value) {
    let mut edges: HashMap<Block, Value> = HashMap::new();
    for u in value.uses() {
        let new = if u.user.is(LLVMPHI) {
            *edges.entry(u.user.incoming_block(u.operand)).or_insert_with(|| {
                before_use(b, u.user, u.operand);
                make(b)
            })
        } else {
            before_use(b, u.user, u.operand);
            make(b)
        };
        u.user.set_operand(u.operand, new);
    }
}

/// Rebuilds every constant GEP that lives across a site at its uses, from the outermost base; so only the base lives on.
pub fn constant_geps(module: &Module, function: Value) {
    let shape = Shape::of(function);
    let mut scratch = Scratch::default();
    let b = module.builder();
    // Users before what they use, so that a chain of GEPs collapses.
    for block in shape.instructions.iter().rev() {
        for &gep in block.iter().rev() {
            let Some((mut base, mut offset)) = gep.constant_gep() else { continue };
            if !base.is_local() {
                // The address of a part of an object, thread-local ones included, is a constant.
                let address = b.before(gep).const_offset(base, offset);
                gep.replace_with(address);
                gep.erase();
                continue;
            }
            if shape.life(gep, &shape.uses(gep), &mut scratch).crossed.is_empty() {
                continue;
            }
            while let Some((inner, more)) = base.constant_gep() {
                if !inner.is_local() {
                    break;
                }
                (base, offset) = (inner, offset + more);
            }
            rewrite_uses(&b, gep, |b| b.const_offset(base, offset));
            gep.erase();
        }
    }
}
