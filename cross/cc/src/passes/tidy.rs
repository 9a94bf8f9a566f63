//! Small rewrites that make both code generators do the same.
use crate::llvm::value::{FUNCTION, RESULT, attribute_kind};
use crate::llvm::{Block, Module, Target, Type, Value};
use isamorph_arch::Isa;
use llvm_sys::LLVMLinkage::{LLVMExternalLinkage, LLVMInternalLinkage, LLVMLinkerPrivateLinkage, LLVMPrivateLinkage};
use llvm_sys::LLVMOpcode::{LLVMAlloca, LLVMCall, LLVMPHI, LLVMTrunc, LLVMZExt};
use llvm_sys::LLVMTypeKind::{LLVMArrayTypeKind, LLVMIntegerTypeKind};
use llvm_sys::LLVMValueKind::LLVMConstantIntValueKind;
use std::collections::HashMap;

/// String attributes of functions that mean the same on every target.
const KEPT: &[&str] = &["no-builtins", "no-trapping-math", "denormal-fp-math", "denormal-fp-math-f32"];

/// Enum attributes of the neutral target or of a build mode that per-ISA code would differ by.
const DROPPED: &[&str] = &["optnone", "ssp", "sspstrong", "sspreq", "safestack", "shadowcallstack", "alignstack"];

/// Function attributes that let a code generator reason about what a call does. A site does whatever a transformed
/// process does before it returns.
const PROMISES: &[&str] = &[
    "noreturn",
    "memory",
    "willreturn",
    "nosync",
    "nofree",
    "speculatable",
    "mustprogress",
    "norecurse",
    "nocallback",
    "cold",
    "minsize",
    // Also: x86_64 would load single bytes into registers and leave the rest as it was.
    "optsize",
];

/// Attributes of parameters and results with a meaning in one ABI only.
const ABI: &[&str] = &["sret", "returned", "inreg", "swiftself", "writable", "dead_on_unwind", "initializes"];

/// clang knows `vfork` by name as a function that returns twice. The C library's is a fork: it returns once per process.
pub fn vfork_returns_once(module: &Module) {
    let twice = attribute_kind("returns_twice");
    for function in module.functions() {
        if function.name() == "vfork" {
            function.remove_attribute(FUNCTION, twice);
        }
        for i in function.instructions() {
            if i.is(LLVMCall) && !i.calls_asm() && i.callee().name() == "vfork" {
                i.remove_call_attribute(FUNCTION, twice);
            }
        }
    }
}

/// Takes the neutral target's traces off a fresh module, and gives it the target that the optimiser is to assume.
pub fn neutralise(module: &Module) {
    let target = Target::of(Isa::X86_64);
    module.set_target(target.triple, target.layout);
    module.retain_flags(|key| matches!(key, "Debug Info Version" | "Dwarf Version" | "wchar_size"));
    for function in module.functions() {
        for name in function.string_attributes() {
            if !KEPT.contains(&name.as_str()) && !name.starts_with("no-builtin-") {
                function.remove_string_attribute(&name);
            }
        }
        for name in DROPPED {
            function.remove_attribute(FUNCTION, attribute_kind(name));
        }
    }
    align_arrays(module);
}

/// Gives arrays the alignment that code for them profits from, in bytes, as the ABI of x86_64 does for those of at least
/// this size. String literals keep theirs, and objects of which another definition or a section may decide.
fn align_arrays(module: &Module) {
    const ARRAY: u32 = 16;
    let is_long = |ty: Type| ty.kind() == LLVMArrayTypeKind && module.alloc_size(ty) >= u64::from(ARRAY);
    let locals = module.functions().into_iter().flat_map(Value::instructions).filter(|i| i.is(LLVMAlloca));
    let arrays =
        locals.filter(|&local| is_long(local.allocated_type())).chain(module.globals().into_iter().filter(|&g| {
            let decided_here = matches!(g.linkage(), LLVMExternalLinkage | LLVMInternalLinkage) && !g.is_declaration();
            decided_here && !g.has_section() && is_long(g.global_type())
        }));
    for array in arrays.filter(|array| array.alignment() < ARRAY) {
        array.set_alignment(ARRAY);
    }
}

/// Gives every object a section and an address of its own: mergeable constants would be placed per ISA.
pub fn name_private_globals(module: &Module) {
    let objects = module.globals().into_iter().chain(module.functions()).chain(module.aliases());
    for object in objects {
        if object.name().starts_with("llvm.") {
            continue;
        }
        if matches!(object.linkage(), LLVMPrivateLinkage | LLVMLinkerPrivateLinkage) {
            if object.name().is_empty() {
                object.set_name("isam.unnamed");
            }
            object.set_linkage(LLVMInternalLinkage);
        }
        object.make_address_significant();
    }
}

/// Removes what would let a code generator treat sites differently; then sets what every function has
/// (docs/architecture.md §4.2).
pub fn strip_promises(module: &Module) {
    let promises: Vec<u32> = PROMISES.iter().map(|name| attribute_kind(name)).filter(|&kind| kind != 0).collect();
    let abi: Vec<u32> = ABI.iter().map(|name| attribute_kind(name)).filter(|&kind| kind != 0).collect();
    for function in module.functions() {
        if function.name().starts_with("llvm.") {
            continue;
        }
        for &kind in &promises {
            function.remove_attribute(FUNCTION, kind);
        }
        for index in std::iter::once(RESULT).chain(1..=function.params().len() as u32) {
            for &kind in &abi {
                function.remove_attribute(index, kind);
            }
        }
        if !function.is_declaration() {
            function.add_string_attribute("frame-pointer", "all");
            function.add_string_attribute("disable-tail-calls", "true");
            function.add_attribute("nounwind", 0);
            // 2: also correct between the instructions of an epilogue.
            function.add_attribute("uwtable", 2);
        }
        for i in function.instructions() {
            if i.is(LLVMCall) {
                strip_call(i, &promises, &abi);
            }
        }
    }
    drop_lifetimes(module);
}

fn strip_call(call: Value, promises: &[u32], abi: &[u32]) {
    call.clear_tail();
    if call.intrinsic().is_some() {
        return;
    }
    for &kind in promises {
        call.remove_call_attribute(FUNCTION, kind);
    }
    for index in std::iter::once(RESULT).chain(1..=call.args().len() as u32) {
        for &kind in abi {
            call.remove_call_attribute(index, kind);
        }
    }
    if super::is_site(call) {
        // One call of the IR is one call of each machine program.
        call.add_call_attribute(FUNCTION, "nomerge", 0);
        call.add_call_attribute(FUNCTION, "nobuiltin", 0);
    }
}

/// Lifetime marks only help to share native stack slots; thread-local addresses need no instruction of their own.
fn drop_lifetimes(module: &Module) {
    for function in module.functions() {
        for call in function.instructions() {
            let Some(name) = call.intrinsic() else { continue };
            if name.starts_with("llvm.threadlocal.address") {
                call.replace_with(call.operand(0));
                call.erase();
            } else if ["llvm.lifetime.", "llvm.assume", "llvm.experimental.noalias.scope", "llvm.sideeffect"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                call.erase();
            }
        }
    }
}

/// Makes the number of zeros in zero a number: x86_64's instructions would leave in the register whatever was there before,
/// and that would look used.
pub fn define_zero_counts(module: &Module) {
    let b = module.builder();
    for call in module.functions().into_iter().flat_map(Value::instructions) {
        let counts =
            call.intrinsic().is_some_and(|name| name.starts_with("llvm.ctlz.") || name.starts_with("llvm.cttz."));
        if !counts {
            continue;
        }
        call.set_operand(1, module.int_type(1).int(0));
        // What code generation knows not to be zero, it treats so again: it must not know.
        let counted = call.operand(0);
        if counted.is_never_zero(module) && !counted.ty().is_vector() {
            let ty = Type::function(counted.ty(), &[counted.ty()], false);
            let opaque = b.asm(ty, "", "=r,0", false);
            let same = b.before(call).call(ty, opaque, &[counted]);
            call.set_operand(0, same);
        }
    }
}

/// Makes undefined operands of phis zero: a register that holds nothing would still look live at a site.
pub fn define_phis(function: Value) {
    for block in function.blocks() {
        for phi in block.instructions().into_iter().take_while(|i| i.is(LLVMPHI)) {
            for (index, (value, _)) in phi.incoming().into_iter().enumerate() {
                if value.is_undefined() {
                    phi.set_operand(index as u32, phi.ty().zero());
                }
            }
        }
    }
}

/// Makes phis of truth values, and those of narrow integers with a constant operand, 32 bits wide. x86_64 would put the
/// result of a comparison, or the constant, into the low byte of a register and copy all of it later: its upper part, which
/// means nothing, would look live at sites in between.
pub fn widen_phis(module: &Module, function: Value) {
    let (b, wide) = (module.builder(), module.int_type(32));
    let is_constant = |value: Value| value.kind() == LLVMConstantIntValueKind;
    let mut widened: HashMap<Value, Value> = HashMap::new();
    let mut order = Vec::new();
    for block in function.blocks() {
        for phi in block.instructions().into_iter().take_while(|i| i.is(LLVMPHI)) {
            let narrow = phi.ty().kind() == LLVMIntegerTypeKind && phi.ty().int_width() < 32;
            let truth = narrow && phi.ty().int_width() == 1;
            if truth || narrow && phi.incoming().iter().any(|(value, _)| is_constant(*value)) {
                let new = b.before(phi).phi(wide);
                widened.insert(phi, new);
                order.push((phi, new));
            }
        }
    }
    for (phi, new) in &order {
        let mut edges: HashMap<Block, Value> = HashMap::new();
        for (value, from) in phi.incoming() {
            let operand = *edges.entry(from).or_insert_with(|| match (value.as_int(), widened.get(&value)) {
                (Some(constant), _) => wide.int(constant),
                (None, Some(phi)) => *phi,
                (None, None) => match from.terminator() {
                    Some(end) => b.before(end).cast(LLVMZExt, value, wide),
                    None => wide.zero(),
                },
            });
            new.add_incoming(operand, from);
        }
    }
    for (phi, new) in order {
        if let Some(first) = phi.block().first_insertion_point() {
            let value = b.before(first).cast(LLVMTrunc, new, phi.ty());
            phi.replace_with(value);
        }
        phi.erase();
    }
}
