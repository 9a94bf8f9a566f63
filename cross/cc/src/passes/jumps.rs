//! `setjmp`: a call that returns twice becomes one of the runtime's stub, with a jump cell of the caller's frame.
//!
//! ```text
//!   portable frame   | … | cell 0 | cell 1 | …     one per call of setjmp, unset at entry, unset again at return
//!   slots            | address of cell 0 (null until it is known) | …
//!
//!   setjmp(buf)           __isam_setjmp(buf, cell)
//!   sigsetjmp(buf, save)  __isam_sigsetjmp_mask(buf, save), then __isam_sigsetjmp_tail(buf, __isam_setjmp(buf, cell))
//! ```
//! A cell is native (`isamorph_arch::jump_cell`): translation finds it through the slots and rewrites it. Every site of
//! such a function says in its stack map how many cells there are (docs/architecture.md §5).
//!
//! What lives across the call has slots as at every other site. They still hold it after the second return only because
//! no slot is shared between values: in a function with [`Cells`] control may come back behind a call that it has left.
use super::refuse::Refusal;
use crate::llvm::value::{FUNCTION, attribute_kind};
use crate::llvm::{Builder, Module, Type, Value};
use isamorph_arch::jump_cell;
use llvm_sys::LLVMOpcode::{LLVMCall, LLVMRet};

/// The stub.
const STUB: &str = "__isam_setjmp";
/// Stands where the slots will be told the address of the first cell: `void (ptr cell, i64 cells)`.
const MARKER: &str = "isam.jump.cells";
/// What the C library offers, and whether it takes `savemask`.
const FUNCTIONS: [(&str, bool); 4] =
    [("setjmp", false), ("_setjmp", false), ("sigsetjmp", true), ("__sigsetjmp", true)];

/// Native stacks that a program makes for itself: the C library has none of these.
const CONTEXTS: [&str; 4] = ["getcontext", "setcontext", "makecontext", "swapcontext"];

/// Bytes at the start of the slots that hold the address of the first cell; a multiple of every slot's alignment.
pub const RESERVED: u64 = 16;

/// Which of [`FUNCTIONS`] an instruction calls.
fn family(call: Value) -> Option<(&'static str, bool)> {
    if !call.is(LLVMCall) || call.calls_asm() || !call.callee().is_function() || !call.callee().is_declaration() {
        return None;
    }
    let name = call.callee().name();
    FUNCTIONS.into_iter().find(|(known, _)| *known == name)
}

/// Whether a call that returns twice is one that [`lower`] makes portable.
pub fn is_lowered(call: Value) -> bool {
    family(call).is_some_and(|(_, mask)| {
        let types: Vec<Type> = call.args().into_iter().map(Value::ty).collect();
        let is_int = |ty: Type| ty.kind() == llvm_sys::LLVMTypeKind::LLVMIntegerTypeKind && ty.int_width() == 32;
        is_int(call.ty())
            && match types.as_slice() {
                [buffer] => !mask && buffer.kind() == llvm_sys::LLVMTypeKind::LLVMPointerTypeKind,
                [buffer, save] => mask && buffer.kind() == llvm_sys::LLVMTypeKind::LLVMPointerTypeKind && is_int(*save),
                _ => false,
            }
    })
}

/// Uses of `setjmp` that are no calls: whoever calls it through a pointer has no cell for it.
pub fn refuse_addresses(module: &Module, refusals: &mut Vec<Refusal>) {
    for (name, _) in FUNCTIONS {
        let Some(function) = module.function(name).filter(|f| f.is_declaration()) else { continue };
        for u in function.uses() {
            let called = u.user.is(LLVMCall) && u.user.callee() == function && u.operand + 1 == u.user.operand_count();
            if !called {
                let reason = "a call through it could not be told from others, and has to have a place in its frame";
                refusals.push(Refusal::of(function, format!("the address of `{name}`"), reason, "call it by its name"));
                break;
            }
        }
    }
}

/// Before the optimiser: every call is one of the stub, its cell still to be given.
pub fn lower(module: &Module) {
    let (b, ptr, int) = (module.builder(), module.ptr_type(), module.int_type(32));
    for function in module.functions() {
        for call in function.instructions() {
            let Some((_, mask)) = family(call).filter(|_| is_lowered(call)) else { continue };
            let buffer = call.operand(0);
            b.before(call);
            if mask {
                let ty = Type::function(module.void_type(), &[ptr, int], false);
                b.call(ty, module.declare("__isam_sigsetjmp_mask", ty), &[buffer, call.operand(1)]);
            }
            let ty = Type::function(int, &[ptr, ptr], false);
            let stub = module.declare(STUB, ty);
            stub.add_attribute("returns_twice", 0);
            let mut result = b.call(ty, stub, &[buffer, ptr.zero()]);
            result.add_call_attribute(FUNCTION, "returns_twice", 0);
            if mask {
                let ty = Type::function(int, &[ptr, int], false);
                result = b.call(ty, module.declare("__isam_sigsetjmp_tail", ty), &[buffer, result]);
            }
            call.replace_with(result);
            call.erase();
        }
    }
}

fn is_stub_call(i: Value) -> bool {
    i.is(LLVMCall) && !i.calls_asm() && i.callee().is_function() && i.callee().name() == STUB
}

/// Gives every call of the stub a cell on the portable stack. Before locals move there.
pub fn give_cells(module: &Module, function: Value) {
    let calls: Vec<Value> = function.instructions().into_iter().filter(|&i| is_stub_call(i)).collect();
    let Some(first) = function.blocks().first().and_then(|entry| entry.first_insertion_point()) else { return };
    if calls.is_empty() {
        return;
    }
    let (b, word) = (module.builder(), module.int_type(64));
    let cells = b.before(first).alloca(module.int_type(8).array(jump_cell::LEN * calls.len() as u64), 16);
    let at = |b: &Builder, n: usize| b.const_offset(cells, (jump_cell::LEN * n as u64) as i64);
    let unset = |b: &Builder| {
        for n in 0..calls.len() {
            let key = b.const_offset(at(b, n), jump_cell::KEY_AT as i64);
            // Nothing here reads it.
            b.store(word.zero(), key, 8).make_volatile();
        }
    };
    unset(&b);
    let ty = Type::function(module.void_type(), &[module.ptr_type(), word], false);
    b.call(ty, module.declare(MARKER, ty), &[cells, word.int(calls.len() as u64)]);
    for (n, call) in calls.iter().enumerate() {
        b.before(*call);
        call.set_operand(1, at(&b, n));
    }
    for i in function.instructions().into_iter().filter(|i| i.is(LLVMRet)) {
        unset(b.before(i));
    }
}

/// Whether a call is the marker, which is no call in the end.
pub fn is_marker(callee: Value) -> bool {
    callee.is_function() && callee.name() == MARKER
}

/// The jump cells of a function whose slots are being made.
#[derive(Clone, Copy, Debug)]
pub struct Cells {
    marker: Value,
    /// How many.
    pub count: u64,
}

impl Cells {
    /// Those of a function, if it has any.
    pub fn of(function: Value) -> Option<Cells> {
        let marker = function.instructions().into_iter().find(|i| i.is(LLVMCall) && is_marker(i.callee()))?;
        Some(Cells { marker, count: marker.operand(1).as_int().unwrap_or(0) })
    }

    /// Puts their address into the slots; null before, where `b` stands. A poll may come first.
    pub fn tell(self, module: &Module, b: &Builder, slots: Value) {
        b.store(module.ptr_type().zero(), slots, RESERVED as u32);
        b.before(self.marker).store(self.marker.operand(0), slots, RESERVED as u32);
        self.marker.erase();
    }
}

/// The objection to other calls that return twice, and to those that switch stacks.
pub fn objection(call: Value) -> Option<(String, &'static str, &'static str)> {
    let callee = call.callee();
    if callee.is_function() && callee.is_declaration() && CONTEXTS.contains(&callee.name().as_str()) {
        let reason = "a native stack in memory of the program's own cannot be translated";
        return Some((format!("a call of `{}`", callee.name()), reason, "use threads"));
    }
    let twice = call.call_has_attribute(FUNCTION, attribute_kind("returns_twice"));
    if family(call).is_some() && !is_lowered(call) {
        let what = format!("a call of `{}` that does not fit its prototype", call.callee().name());
        return Some((what, "it is no ordinary function", "include <setjmp.h>"));
    }
    (twice && family(call).is_none()).then(|| {
        let what = format!("a call of `{}`, which returns twice,", call.callee().name());
        (what, "only setjmp and sigsetjmp of the C library are known to do so", "use those")
    })
}
