//! Arithmetic that the two machines do differently gets one meaning, before the optimiser draws conclusions.
//!
//! | operation | x86_64 | aarch64 | here |
//! | --- | --- | --- | --- |
//! | `x / 0` | #DE, SIGFPE | 0 | 0 |
//! | `x % 0` | #DE, SIGFPE | x | x |
//! | `MIN / -1`, `MIN % -1` | #DE, SIGFPE | MIN, 0 | MIN, 0 |
//! | a shift by its width or more | by vectors: 0; by others: modulo the width | modulo the width, or 0 | modulo the width |
//! | `abs(MIN)` | MIN | MIN | MIN, which LLVM is told |
//!
//! C leaves all of these undefined, so any meaning will do, and values cost less than traps: aarch64 has no instruction
//! that raises SIGFPE. (Conversions from floating point saturate: the front end says so.) Divisions by constants and
//! shifts by constants in range, which is most of them, stay as they are.
use crate::llvm::{Builder, Module, Value};
use llvm_sys::LLVMIntPredicate::{LLVMIntEQ, LLVMIntULE};
use llvm_sys::LLVMOpcode::{self, *};

/// Defines all of it in the module.
pub fn define(module: &Module) {
    let b = module.builder();
    for function in module.functions() {
        for i in function.instructions() {
            match i.opcode() {
                LLVMSDiv | LLVMUDiv | LLVMSRem | LLVMURem if !harmless_divisor(i.operand(1)) => divide(&b, i),
                LLVMShl | LLVMLShr | LLVMAShr => shift(&b, i),
                LLVMCall if i.intrinsic().is_some_and(|name| name.starts_with("llvm.abs.")) => {
                    i.set_operand(1, module.int_type(1).int(0));
                }
                _ => {}
            }
        }
    }
}

/// Whether a divisor is a constant other than 0 and -1.
fn harmless_divisor(divisor: Value) -> bool {
    let ty = divisor.ty();
    // A constant vector is looked at by the optimiser, which folds what is added here.
    let Some(value) = divisor.as_int().filter(|_| !ty.is_vector() && ty.int_width() <= 64) else { return false };
    value != 0 && value != u64::MAX >> (64 - ty.int_width())
}

/// ```text
///   unsigned:  q = b == 0 ? 0 : a / (b == 0 ? 1 : b)             r = b == 0 ? a : a % …
///   signed:    b + 1 <= 1 says that b is 0 or -1; then q = a * b, r = a & ~b
/// ```
fn divide(b: &Builder, i: Value) {
    let (opcode, dividend, divisor, ty) = (i.opcode(), i.operand(0), i.operand(1), i.ty());
    b.before(i);
    // Both are used several times: an undefined value would be another one each time.
    let (dividend, divisor) = (b.freeze(dividend), b.freeze(divisor));
    let (zero, one) = (ty.zero(), ty.splat(1));
    let signed = matches!(opcode, LLVMSDiv | LLVMSRem);
    let special = if signed {
        let shifted = b.binary(LLVMAdd, divisor, one);
        b.compare(LLVMIntULE, shifted, one)
    } else {
        b.compare(LLVMIntEQ, divisor, zero)
    };
    let safe = b.select(special, one, divisor);
    let plain = b.binary(opcode, dividend, safe);
    let otherwise = match opcode {
        LLVMSDiv => b.binary(LLVMMul, dividend, divisor),
        LLVMUDiv => zero,
        LLVMURem => dividend,
        _ => {
            let inverse = b.binary(LLVMXor, divisor, ty.ones());
            b.binary(LLVMAnd, dividend, inverse)
        }
    };
    let result = b.select(special, otherwise, plain);
    i.replace_with(result);
    i.erase();
}

/// Takes the count modulo the width: an `and`, which code generation knows to be what the machine does anyway.
fn shift(b: &Builder, i: Value) {
    let (count, ty) = (i.operand(1), i.ty());
    let width = u64::from(if ty.is_vector() { ty.element() } else { ty }.int_width());
    if count.as_int().is_some_and(|count| !ty.is_vector() && count < width) {
        return;
    }
    let (opcode, by): (LLVMOpcode, Value) =
        if width.is_power_of_two() { (LLVMAnd, ty.splat(width - 1)) } else { (LLVMURem, ty.splat(width)) };
    let count = b.before(i).binary(opcode, count, by);
    i.set_operand(1, count);
}
