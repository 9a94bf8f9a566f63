//! Variable arguments without an ABI: a `va_list` is a pointer to an array of 8-byte slots that the caller fills.
//!
//! ```text
//!   f(a, b, ...)  becomes  f(a, b, ptr args)
//!   args: | arg 1 | arg 2 | (gap) | 16-byte arg 3, 16-aligned | 0 … |     at least 8 slots, unused ones zero
//! ```
//! This is what clang's `va_arg` for the neutral target walks. Callees such as `open` read arguments that were not
//! passed; hence the zeroed slots. A caller that does not know that the callee is variadic cannot be lowered; the
//! driver compares [`VariadicUse`] of all objects.
use super::refuse::Refusal;
use crate::llvm::value::{FUNCTION, RESULT, attribute_kind};
use crate::llvm::{Builder, Module, Type, Value};
use llvm_sys::LLVMOpcode::{LLVMCall, LLVMSExt, LLVMZExt};
use llvm_sys::LLVMTypeKind::{LLVMArrayTypeKind, LLVMIntegerTypeKind};
use std::collections::{BTreeSet, HashMap};

/// Slots that a callee may read whatever was passed.
const MIN_SLOTS: u64 = 8;
const SLOT: u64 = 8;

/// Which symbols this module uses as variadic functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariadicUse {
    /// Variadic functions that other objects can name, and their aliases.
    pub defined: Vec<String>,
    /// External functions called with a variadic type.
    pub called: Vec<String>,
    /// External functions called with a type that is not variadic.
    pub called_plain: Vec<String>,
}

/// Lowers every variadic function, call and `va_*` intrinsic.
pub fn lower(module: &Module, refusals: &mut Vec<Refusal>) -> VariadicUse {
    let usage = survey(module, refusals);
    for function in module.functions() {
        lower_calls(module, function, refusals);
    }
    if !refusals.is_empty() {
        return usage;
    }
    for function in module.functions() {
        let ty = function.global_type();
        let intrinsic = function.name().starts_with("llvm.");
        // A declaration without parameters may be an unprototyped one; its calls say what it is.
        if !ty.is_variadic() || intrinsic || (function.is_declaration() && ty.params().is_empty()) {
            continue;
        }
        let mut params = ty.params();
        params.push(module.ptr_type());
        let function = function.retype_function(Type::function(ty.result(), &params, false));
        lower_va(module, function, function.params().last().copied());
    }
    usage
}

fn survey(module: &Module, refusals: &mut Vec<Refusal>) -> VariadicUse {
    let (mut defined, mut called, mut plain) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for function in module.functions() {
        let variadic = function.global_type().is_variadic();
        if variadic && !function.is_declaration() && function.is_visible_outside() {
            defined.insert(function.name());
        }
        for call in function.instructions().into_iter().filter(|i| i.is(LLVMCall) && !i.calls_asm()) {
            let callee = call.callee();
            if !callee.is_function() || call.intrinsic().is_some() {
                continue;
            }
            if call.call_type().is_variadic() {
                called.insert(callee.name());
            } else if callee.is_declaration() {
                // `char snprintf(); … snprintf();` is how `configure` asks whether it can be linked. A real call of a
                // variadic function has an argument, in every C.
                if !call.args().is_empty() {
                    plain.insert(callee.name());
                }
            } else if callee.global_type().is_variadic() {
                refusals.push(Refusal::at(
                    call,
                    function,
                    format!("a call of the variadic function `{}` through a type that is not variadic", callee.name()),
                    "variable arguments are passed in memory",
                    "declare its prototype before the call",
                ));
            }
        }
    }
    for alias in module.aliases().into_iter().filter(|alias| alias.is_visible_outside()) {
        if alias.aliasee().is_function() && alias.aliasee().global_type().is_variadic() {
            defined.insert(alias.name());
        }
    }
    let list = |set: BTreeSet<String>| set.into_iter().collect();
    VariadicUse { defined: list(defined), called: list(called), called_plain: list(plain) }
}

fn lower_va(module: &Module, function: Value, list: Option<Value>) {
    let builder = module.builder();
    let ptr = module.ptr_type();
    for call in function.instructions() {
        let Some(name) = call.intrinsic() else { continue };
        if name.starts_with("llvm.va_start") {
            // `va_start` in a function without variable arguments does not compile.
            let Some(list) = list else { continue };
            builder.before(call).store(list, call.operand(0), 8);
        } else if name.starts_with("llvm.va_copy") {
            let from = builder.before(call).load(ptr, call.operand(1), 8);
            builder.store(from, call.operand(0), 8);
        } else if !name.starts_with("llvm.va_end") {
            continue;
        }
        call.erase();
    }
}

fn lower_calls(module: &Module, function: Value, refusals: &mut Vec<Refusal>) {
    let calls: Vec<_> = function
        .instructions()
        .into_iter()
        .filter(|i| i.is(LLVMCall) && !i.calls_asm() && i.call_type().is_variadic() && i.intrinsic().is_none())
        .collect();
    if !function.global_type().is_variadic() && !function.is_declaration() {
        lower_va(module, function, None);
    }
    let Some(entry) = function.blocks().first().copied() else { return };
    let builder = module.builder();
    // One buffer per function: it is filled just before each call and dead after it.
    let mut plans = HashMap::new();
    let mut slots = MIN_SLOTS;
    for &call in &calls {
        match layout(module, call) {
            Ok(plan) => {
                slots = slots.max(plan.slots);
                plans.insert(call, plan);
            }
            Err(ty) => refusals.push(Refusal::at(
                call,
                function,
                format!("a variable argument of type {ty}"),
                "it fits no argument slot",
                "pass a pointer to it",
            )),
        }
    }
    let Some(first) = entry.first_insertion_point() else { return };
    if plans.is_empty() {
        return;
    }
    let buffer = builder.before(first).alloca(module.int_type(64).array(slots), 16);
    for call in calls {
        if let Some(plan) = plans.remove(&call) {
            lower_call(module, &builder, call, buffer, plan);
        }
    }
}

/// Where each variable argument of a call goes.
struct Layout {
    /// Byte offset per variable argument.
    offsets: Vec<u64>,
    /// Slots in use.
    slots: u64,
}

fn layout(module: &Module, call: Value) -> Result<Layout, String> {
    let fixed = call.call_type().params().len();
    let (mut at, mut offsets) = (0u64, Vec::new());
    for arg in &call.args()[fixed..] {
        let ty = arg.ty();
        let (size, align) = (module.alloc_size(ty), module.alignment(ty));
        if size > 2 * SLOT {
            return Err(ty.name());
        }
        // An array of two slots is a struct that clang took apart; it has the alignment of a slot.
        if align >= 16 && ty.kind() != LLVMArrayTypeKind {
            at = at.next_multiple_of(16);
        }
        offsets.push(at);
        at += size.next_multiple_of(SLOT).max(SLOT);
    }
    Ok(Layout { offsets, slots: at / SLOT })
}

fn lower_call(module: &Module, builder: &Builder, call: Value, buffer: Value, plan: Layout) {
    let ty = call.call_type();
    let fixed = ty.params().len();
    let word = module.int_type(64);
    let (args, sign) = (call.args(), attribute_kind("signext"));
    builder.before(call);
    let mut filled = vec![false; plan.slots.max(MIN_SLOTS) as usize];
    for (index, (&arg, &offset)) in args[fixed..].iter().zip(&plan.offsets).enumerate() {
        let mut value = arg;
        if arg.ty().kind() == LLVMIntegerTypeKind && arg.ty().int_width() < 64 {
            let attribute_index = (fixed + index + 1) as u32;
            let extend = if call.call_has_attribute(attribute_index, sign) { LLVMSExt } else { LLVMZExt };
            value = builder.cast(extend, arg, word);
        }
        let size = module.alloc_size(value.ty());
        if size < SLOT {
            builder.store(word.zero(), builder.const_offset(buffer, offset as i64), 8);
        }
        builder.store(value, builder.const_offset(buffer, offset as i64), 8);
        for slot in offset / SLOT..(offset + size).div_ceil(SLOT) {
            filled[slot as usize] = true;
        }
    }
    for slot in (0..filled.len()).filter(|&slot| !filled[slot]) {
        builder.store(word.zero(), builder.const_offset(buffer, slot as i64 * 8), 8);
    }
    let mut params = ty.params();
    params.push(module.ptr_type());
    let mut new_args = args[..fixed].to_vec();
    new_args.push(buffer);
    let new = builder.call(Type::function(ty.result(), &params, false), call.callee(), &new_args);
    new.copy_calling_convention(call);
    for index in [FUNCTION, RESULT].into_iter().chain(1..=fixed as u32) {
        call.copy_call_attributes(index, new);
    }
    if !ty.result().is_void() {
        let name = call.name();
        call.replace_with(new);
        new.set_name(&name);
    }
    call.erase();
}
