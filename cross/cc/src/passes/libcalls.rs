//! Makes explicit every call that a code generator would invent: what is one instruction on one ISA and a library call
//! on the other would be a site on one of them only.
//!
//! `sqrt`, `fabs`, `copysign` of float and double are instructions on both; helpers of the compiler's runtime library
//! (128-bit arithmetic) are leaves and stay implicit.
use super::refuse::Refusal;
use crate::llvm::value::FUNCTION;
use crate::llvm::{Builder, Module, Type, Value};
use llvm_sys::LLVMOpcode::*;
use llvm_sys::LLVMTypeKind::*;

/// Intrinsics whose arguments and result are of one floating-point type, and the C function that does the same.
///
/// `roundeven` is `rint`: portable programs round to nearest, and musl has no `roundeven`.
const SAME_TYPE: &[(&str, &str)] = &[
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("asin", "asin"),
    ("acos", "acos"),
    ("atan", "atan"),
    ("atan2", "atan2"),
    ("sinh", "sinh"),
    ("cosh", "cosh"),
    ("tanh", "tanh"),
    ("pow", "pow"),
    ("exp", "exp"),
    ("exp2", "exp2"),
    ("exp10", "exp10"),
    ("log", "log"),
    ("log2", "log2"),
    ("log10", "log10"),
    ("floor", "floor"),
    ("ceil", "ceil"),
    ("trunc", "trunc"),
    ("rint", "rint"),
    ("nearbyint", "nearbyint"),
    ("round", "round"),
    ("roundeven", "rint"),
    ("fma", "fma"),
    ("frem", "fmod"),
    ("minnum", "fmin"),
    ("maxnum", "fmax"),
];

/// Intrinsics that return an integer.
const TO_INTEGER: &[&str] = &["lrint", "llrint", "lround", "llround"];

/// Lowers all of them in the module.
pub fn lower(module: &Module, refusals: &mut Vec<Refusal>) {
    let builder = module.builder();
    for function in module.functions() {
        for instruction in function.instructions() {
            lower_one(module, &builder, function, instruction, refusals);
        }
    }
}

fn lower_one(m: &Module, b: &Builder, function: Value, i: Value, refusals: &mut Vec<Refusal>) {
    b.before(i);
    if i.is(LLVMFRem) {
        let result = elementwise(m, b, "fmod", &i.operands(), i.ty());
        return replace(i, result);
    }
    let Some(name) = i.intrinsic() else { return };
    let Some(base) = name.strip_prefix("llvm.") else { return };
    let base = base.strip_prefix("experimental.constrained.").unwrap_or(base);
    let base = base.split('.').next().unwrap_or_default();
    let args: Vec<Value> = i.args().into_iter().filter(|a| a.ty().kind() != LLVMMetadataTypeKind).collect();
    let scalar = |ty: Type| if ty.is_vector() { ty.element() } else { ty };
    let wide = args.first().is_some_and(|a| scalar(a.ty()).kind() == LLVMFP128TypeKind);
    let result = if let Some((_, c_name)) = SAME_TYPE.iter().find(|(intrinsic, _)| *intrinsic == base) {
        elementwise(m, b, c_name, &args, i.ty())
    } else if TO_INTEGER.contains(&base) {
        elementwise(m, b, base, &args, i.ty())
    } else if base == "fmuladd" {
        let product = b.binary(LLVMFMul, args[0], args[1]);
        b.binary(LLVMFAdd, product, args[2])
    } else if base == "ldexp" {
        elementwise(m, b, "ldexp", &args, i.ty())
    } else if base == "sqrt" && wide {
        elementwise(m, b, "sqrt", &args, i.ty())
    } else if base == "sincos" && !args[0].ty().is_vector() {
        let sine = elementwise(m, b, "sin", &args, args[0].ty());
        let cosine = elementwise(m, b, "cos", &args, args[0].ty());
        pair(b, i.ty(), sine, cosine)
    } else if (base == "frexp" || base == "modf") && !args[0].ty().is_vector() {
        split(m, b, function, base, args[0], i)
    } else if base == "frameaddress" {
        // A depth of recursion is measured with it: the portable stack grows and shrinks with the native one.
        portable_frame(m, b, i)
    } else {
        let unknown = matches!(base, "sincospi" | "sincos" | "modf" | "frexp")
            || (wide && matches!(base, "minimum" | "maximum" | "minimumnum" | "maximumnum"));
        if unknown {
            refusals.push(Refusal::at(
                i,
                function,
                format!("the compiler builtin `{name}`"),
                "no C function does it on both instruction sets",
                "use plain C",
            ));
        }
        return;
    };
    replace(i, result);
}

fn replace(old: Value, new: Value) {
    old.replace_with(new);
    old.erase();
}

fn pair(b: &Builder, ty: Type, first: Value, second: Value) -> Value {
    let half = b.insert_value(ty.undef(), first, 0);
    b.insert_value(half, second, 1)
}

/// `frexp` and `modf`: the second result is written through a pointer.
fn split(m: &Module, b: &Builder, function: Value, name: &str, arg: Value, i: Value) -> Value {
    let entry = function.blocks()[0];
    let second = if name == "frexp" { m.int_type(32) } else { arg.ty() };
    let first_place = entry.first_insertion_point().unwrap_or(i);
    let cell = b.before(first_place).alloca(second, 16);
    b.before(i);
    let (callee, ty) = c_function(m, name, arg.ty(), &[arg.ty(), m.ptr_type()], arg.ty());
    let whole = site(b, ty, callee, &[arg, cell]);
    let other = b.load(second, cell, m.alignment(second) as u32);
    pair(b, i.ty(), whole, other)
}

fn portable_frame(m: &Module, b: &Builder, i: Value) -> Value {
    if i.operand(0).as_int() != Some(0) {
        return m.ptr_type().zero();
    }
    b.load(m.ptr_type(), super::portable_stack::pointer(m), 8)
}

/// Calls `name` once per lane.
fn elementwise(m: &Module, b: &Builder, name: &str, args: &[Value], result: Type) -> Value {
    if !result.is_vector() {
        return scalar_call(m, b, name, args, result);
    }
    let (mut out, index) = (result.undef(), m.int_type(32));
    for lane in 0..result.lanes() {
        let lane = index.int(lane.into());
        let lanes: Vec<Value> =
            args.iter().map(|a| if a.ty().is_vector() { b.extract_element(*a, lane) } else { *a }).collect();
        let value = scalar_call(m, b, name, &lanes, result.element());
        out = b.insert_element(out, value, lane);
    }
    out
}

fn scalar_call(m: &Module, b: &Builder, name: &str, args: &[Value], result: Type) -> Value {
    let half = matches!(args[0].ty().kind(), LLVMHalfTypeKind | LLVMBFloatTypeKind);
    let float = m.float_type();
    let args: Vec<Value> =
        args.iter().map(|a| if half && a.ty().is_float() { b.cast(LLVMFPExt, *a, float) } else { *a }).collect();
    let wanted = if half && result.is_float() { float } else { result };
    // C's long is 64 bits wide, and so is whatever the intrinsic returns; a narrower result is converted.
    let returned = if TO_INTEGER.contains(&name) { m.int_type(64) } else { wanted };
    let types: Vec<Type> = args.iter().map(|a| a.ty()).collect();
    let (callee, ty) = c_function(m, name, args[0].ty(), &types, returned);
    let value = site(b, ty, callee, &args);
    if half && result.is_float() {
        return b.cast(LLVMFPTrunc, value, result);
    }
    if returned != result { b.cast(LLVMTrunc, value, result) } else { value }
}

/// The C function `name` for floating-point type `of`.
fn c_function(m: &Module, name: &str, of: Type, params: &[Type], result: Type) -> (Value, Type) {
    let suffix = match of.kind() {
        LLVMFloatTypeKind => "f",
        LLVMFP128TypeKind => "l",
        _ => "",
    };
    let ty = Type::function(result, params, false);
    (m.declare(&format!("{name}{suffix}"), ty), ty)
}

/// A call that no code generator may turn back into an instruction.
fn site(b: &Builder, ty: Type, callee: Value, args: &[Value]) -> Value {
    let call = b.call(ty, callee, args);
    call.add_call_attribute(FUNCTION, "nobuiltin", 0);
    call
}
