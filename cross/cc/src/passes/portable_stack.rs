//! Locals with an address live on the portable stack, whose layout does not depend on the ISA.
//!
//! ```text
//!   higher  ┌──────────────┐ ← __isam_psp at entry, again at return
//!           │ fixed locals │
//!           ├──────────────┤ ← base (a value like any other: it gets a slot)
//!           │ VLA, alloca  │   moves while the function runs
//!   lower   └──────────────┘ ← __isam_psp
//! ```
//! A local's address is the base plus a constant, computed anew where it is used. The pointer moves before anything is
//! stored below it (a compiler fence orders that), so that a signal handler finds a free stack.
use super::remat;
use crate::llvm::{Builder, Module, Value};
use llvm_sys::LLVMOpcode::*;

/// Alignment of the portable stack pointer between frames, in bytes.
const ALIGNMENT: u64 = 16;

/// `__isam_psp`
pub fn pointer(module: &Module) -> Value {
    let global = module.declare_global("__isam_psp", module.ptr_type());
    global.make_local_exec();
    global
}

/// Whether a function without sites may leave its locals in its native frame: nobody sees that frame parked.
/// Over-aligned ones would realign the frame.
pub fn may_stay_native(function: Value) -> bool {
    let entry = function.blocks()[0];
    function.instructions().into_iter().all(|i| {
        let fixed = |i: Value| i.block() == entry && i.operand(0).as_int().is_some();
        !i.is(LLVMAlloca) || (fixed(i) && u64::from(i.alignment()) <= ALIGNMENT)
    })
}

/// Moves every local of the function.
pub fn lower(module: &Module, function: Value) {
    let entry = function.blocks()[0];
    let allocas: Vec<Value> = function.instructions().into_iter().filter(|i| i.is(LLVMAlloca)).collect();
    if allocas.is_empty() {
        return;
    }
    let (fixed, variable): (Vec<Value>, Vec<Value>) =
        allocas.into_iter().partition(|a| a.block() == entry && a.operand(0).as_int().is_some());
    let (offsets, size, alignment) = layout(module, &fixed);

    let b = module.builder();
    let (ptr, word) = (module.ptr_type(), module.int_type(64));
    let psp = pointer(module);
    let Some(first) = entry.first_insertion_point() else { return };
    b.before(first);
    let old = b.load(ptr, psp, 8);
    let mut base = b.const_offset(old, -(size as i64));
    if alignment > ALIGNMENT {
        base = align_down(&b, base, alignment);
    }
    if !fixed.is_empty() {
        b.store(base, psp, 8);
        b.compiler_fence();
    }
    for (local, offset) in fixed.iter().zip(offsets) {
        remat::rewrite_uses(&b, *local, |b| b.const_offset(base, offset as i64));
        local.erase();
    }
    for local in variable {
        b.before(local);
        let count = local.operand(0);
        let count = if count.ty().int_width() < 64 { b.cast(LLVMZExt, count, word) } else { count };
        let bytes = b.binary(LLVMMul, count, word.int(module.alloc_size(local.allocated_type())));
        let negative = b.binary(LLVMSub, word.zero(), bytes);
        let top = b.load(ptr, psp, 8);
        let low = b.offset(top, negative);
        let address = align_down(&b, low, u64::from(local.alignment()).max(ALIGNMENT));
        b.store(address, psp, 8);
        b.compiler_fence();
        local.replace_with(address);
        local.erase();
    }
    for i in function.instructions() {
        if let Some(name) = i.intrinsic() {
            if name.starts_with("llvm.stacksave") {
                let saved = b.before(i).load(ptr, psp, 8);
                i.replace_with(saved);
                i.erase();
            } else if name.starts_with("llvm.stackrestore") {
                b.before(i).store(i.operand(0), psp, 8);
                b.compiler_fence();
                i.erase();
            }
        } else if i.is(LLVMRet) {
            b.before(i).compiler_fence();
            // Without over-alignment the entry value is the base plus the size, which saves a slot.
            let entry_value = if alignment > ALIGNMENT { old } else { b.const_offset(base, size as i64) };
            b.store(entry_value, psp, 8);
        }
    }
}

/// Offset of each local from the base, size of all and the greatest alignment, in bytes.
fn layout(module: &Module, locals: &[Value]) -> (Vec<u64>, u64, u64) {
    let (mut at, mut alignment, mut offsets) = (0u64, ALIGNMENT, Vec::new());
    for local in locals {
        let count = local.operand(0).as_int().unwrap_or(1);
        let bytes = module.alloc_size(local.allocated_type()).saturating_mul(count);
        let align = u64::from(local.alignment()).max(1);
        alignment = alignment.max(align);
        at = at.next_multiple_of(align);
        offsets.push(at);
        at = at.saturating_add(bytes);
    }
    (offsets, at.next_multiple_of(alignment), alignment)
}

/// `pointer` rounded down to a multiple of `alignment`, still derived from `pointer`.
fn align_down(b: &Builder, pointer: Value, alignment: u64) -> Value {
    let word = b.int_type(64);
    let address = b.cast(LLVMPtrToInt, pointer, word);
    let excess = b.binary(LLVMAnd, address, word.int(alignment - 1));
    let back = b.binary(LLVMSub, word.zero(), excess);
    b.offset(pointer, back)
}
