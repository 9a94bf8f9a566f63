//! Refuses by name what cannot be made portable: file, line, function, reason, remedy.
use super::jumps;
use crate::llvm::value::{FUNCTION, attribute_kind};
use crate::llvm::{Module, Value};
use llvm_sys::LLVMOpcode;
use std::fmt;

/// Something in the program that is not portable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Source file, if the module says so.
    pub file: String,
    /// Line, 0 if unknown.
    pub line: u32,
    /// Function or global.
    pub place: String,
    /// What it is.
    pub what: String,
    /// Why it is not portable.
    pub reason: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line != 0 {
                write!(f, "{}:", self.line)?;
            }
            write!(f, " ")?;
        }
        write!(f, "in `{}`: {} is not portable: {}; {}", self.place, self.what, self.reason, self.remedy)
    }
}

impl Refusal {
    /// A refusal of an instruction.
    pub fn at(instruction: Value, function: Value, what: String, reason: &'static str, remedy: &'static str) -> Self {
        let (file, line) = (instruction.debug_file(), instruction.debug_line());
        let file = if file.is_empty() { function.debug_file() } else { file };
        Refusal { file, line, place: function.name(), what, reason, remedy }
    }

    /// A refusal of a function or global.
    pub fn of(global: Value, what: String, reason: &'static str, remedy: &'static str) -> Self {
        let file = if global.is_function() { global.debug_file() } else { String::new() };
        Refusal { file, line: 0, place: global.name(), what, reason, remedy }
    }
}

const ASM_REASON: &str = "it exists for one instruction set only";
const ASM_REMEDY: &str = "use C or a compiler builtin";

/// Everything in the module that is refused.
pub fn check(module: &Module) -> Vec<Refusal> {
    let mut out = Vec::new();
    let asm = module.inline_asm();
    if let Some(line) = asm.lines().find(|line| !line.trim().is_empty()) {
        let what = format!("assembly outside a function (`{}`)", line.trim());
        let place = "the file's top level".to_owned();
        out.push(Refusal { file: String::new(), line: 0, place, what, reason: ASM_REASON, remedy: ASM_REMEDY });
    }
    for ifunc in module.ifuncs() {
        let reason = "which function it stands for is decided per machine, once";
        out.push(Refusal::of(ifunc, "an ifunc".into(), reason, "call through a function pointer"));
    }
    let naked = attribute_kind("naked");
    for function in module.functions() {
        if function.has_attribute(FUNCTION, naked) {
            out.push(Refusal::of(function, "a naked function".into(), ASM_REASON, ASM_REMEDY));
        }
        for instruction in function.instructions() {
            if let Some((what, reason, remedy)) = objection(module, instruction) {
                out.push(Refusal::at(instruction, function, what, reason, remedy));
            }
        }
    }
    jumps::refuse_addresses(module, &mut out);
    out
}

type Objection = (String, &'static str, &'static str);

fn objection(module: &Module, i: Value) -> Option<Objection> {
    use LLVMOpcode::*;
    let specific = i.ty().is_target_specific() || (i.is(LLVMAlloca) && i.allocated_type().is_target_specific());
    if specific {
        let what = format!("a value of type {}", i.ty().name());
        return Some((what, "its size depends on the machine", "use fixed-width vector types"));
    }
    match i.opcode() {
        LLVMCallBr => Some(("`asm goto`".into(), ASM_REASON, ASM_REMEDY)),
        LLVMInvoke | LLVMLandingPad | LLVMResume => Some((
            "exception handling".into(),
            "unwinding through portable frames is not supported yet",
            "compile without -fexceptions",
        )),
        LLVMVAArg => Some((
            "a `va_arg` of this type".into(),
            "its layout is not known to the portable calling convention",
            "pass a pointer",
        )),
        LLVMAtomicRMW | LLVMAtomicCmpXchg => wide_atomic(module, i.operand(1)),
        LLVMLoad if i.is_atomic_access() => wide_atomic(module, i),
        LLVMStore if i.is_atomic_access() => wide_atomic(module, i.operand(0)),
        LLVMCall => call_objection(i),
        _ => None,
    }
}

fn wide_atomic(module: &Module, operand: Value) -> Option<Objection> {
    (module.store_size(operand.ty()) > 8).then(|| {
        let reason = "the baseline instruction sets have none, and library locks are not portable";
        ("an atomic access of more than 8 bytes".into(), reason, "use a mutex")
    })
}

fn call_objection(i: Value) -> Option<Objection> {
    if i.is_musttail() {
        let reason = "a jump on one instruction set would cost a frame on the other";
        return Some(("a `musttail` call".into(), reason, "use a loop or an ordinary call"));
    }
    if i.calls_asm() {
        let (template, constraints) = i.callee().asm_text();
        let named = constraints.split(',').any(|c| c.contains('{') && c != "~{memory}" && !c.starts_with("~{"));
        return (!template.trim().is_empty() || named).then(|| {
            let text = template.split_whitespace().collect::<Vec<_>>().join(" ");
            let what = if named { "a register variable".into() } else { format!("inline assembly (`{text}`)") };
            (what, ASM_REASON, ASM_REMEDY)
        });
    }
    if let Some(objection) = jumps::objection(i) {
        return Some(objection);
    }
    for (attribute, what) in [
        ("inalloca", "an `inalloca` argument"),
        ("preallocated", "a preallocated argument"),
        ("swifterror", "a `swifterror` argument"),
        ("byval", "a `byval` argument"),
        ("nest", "a static chain"),
    ] {
        let kind = attribute_kind(attribute);
        if (1..=i.args().len() as u32).any(|index| i.call_has_attribute(index, kind)) {
            return Some((what.into(), "its place in the frame depends on the ABI", "pass a pointer"));
        }
    }
    intrinsic_objection(&i.intrinsic()?)
}

fn intrinsic_objection(name: &str) -> Option<Objection> {
    let base = name.strip_prefix("llvm.")?;
    let is = |prefix: &str| base == prefix || base.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    let native = "its result is an address in native code or a native frame, which differs between instruction sets";
    if is("returnaddress") || is("addressofreturnaddress") || is("sponentry") {
        return Some(("`__builtin_return_address`".into(), native, "pass what identifies the caller as an argument"));
    }
    if is("thread.pointer") {
        return Some(("`__builtin_thread_pointer`".into(), "its value differs", "use a thread-local variable"));
    }
    if is("readcyclecounter") || is("readsteadycounter") {
        let reason = "the counters of two machines have nothing in common";
        return Some(("a cycle counter".into(), reason, "use clock_gettime"));
    }
    if is("read_register") || is("write_register") || is("read_volatile_register") {
        return Some(("a register variable".into(), ASM_REASON, ASM_REMEDY));
    }
    if is("init.trampoline") || is("adjust.trampoline") {
        return Some(("a nested function's address".into(), "it is code made at run time", "pass a context pointer"));
    }
    if is("clear_cache") {
        return Some(("code made at run time".into(), "it is native", "link with an interpreter instead of a JIT"));
    }
    if is("eh.sjlj.setjmp") || is("eh.sjlj.longjmp") {
        let reason = "what it keeps is native, in memory of the program's own";
        return Some(("`__builtin_setjmp` or `__builtin_longjmp`".into(), reason, "use <setjmp.h>"));
    }
    for isa in ["riscv", "x86", "aarch64", "arm", "vp", "vscale", "coro"] {
        if is(isa) {
            let reason = "only some machines have it";
            return Some((format!("the compiler builtin `{name}`"), reason, "use C or generic vector types"));
        }
    }
    None
}
