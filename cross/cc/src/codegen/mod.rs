//! From the front end's bitcode to one relocatable object per ISA.
//!
//! ```text
//!   bitcode ─▶ prepare ─▶ default<O2> ─▶ finish ─┬─▶ x86_64 object
//!                 (crate::passes)                └─▶ aarch64 object
//! ```
use crate::llvm::value::Value;
use crate::llvm::{Context, Machine, Module, Target, Type};
use crate::passes::{self, FinishError, Refusal, polls};
use isamorph_arch::Isa;
use llvm_sys::LLVMOpcode::{LLVMCall, LLVMCallBr};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub use crate::passes::VariadicUse;

/// How to compile a module.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// What the module is called in errors, and what its site IDs are made from (with its content).
    pub source_name: String,
    /// 0 to 3, as in `-O`.
    pub opt_level: u8,
    /// Put polls into loops and recursive functions. Only code that nothing can be parked in goes without.
    pub portable_polls: bool,
    /// Keep debug information.
    pub debug: bool,
    /// Folder for the IR of each stage, for debugging of this compiler.
    pub keep_ir: Option<PathBuf>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions { source_name: String::new(), opt_level: 2, portable_polls: true, debug: false, keep_ir: None }
    }
}

/// What a module became.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// ELF relocatable for x86_64.
    pub x86_64: Vec<u8>,
    /// ELF relocatable for aarch64, with the same functions, objects and sites in the same order.
    pub aarch64: Vec<u8>,
    /// Symbols that are variadic functions here: the driver refuses a program whose objects disagree.
    pub variadics: VariadicUse,
}

/// Why a module was not compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The front end's output is not what LLVM reads.
    #[error("{name}: cannot read the front end's output: {reason}")]
    Bitcode {
        /// The module.
        name: String,
        /// LLVM's words.
        reason: String,
    },
    /// The program does something that is not portable.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NotPortable(Vec<Refusal>),
    /// LLVM failed.
    #[error("{name}: {stage} failed: {reason}")]
    Llvm {
        /// The module.
        name: String,
        /// What was being done.
        stage: &'static str,
        /// LLVM's words.
        reason: String,
    },
    /// These passes did not keep their own promise.
    #[error("{name}: in `{function}`, {what}: {value}; this is a defect of isamorph-cc, please report it")]
    Defect {
        /// The module.
        name: String,
        /// The function.
        function: String,
        /// What is wrong.
        what: &'static str,
        /// The value, as LLVM prints it.
        value: String,
    },
}

/// Compiles a module of bitcode for both ISAs.
///
/// # Errors
/// [`CompileError`]; `NotPortable` lists everything that was found at once.
pub fn compile_module(bitcode: &[u8], options: &CompileOptions) -> Result<Compiled, CompileError> {
    let name = &options.source_name;
    let failed = |stage| move |reason: String| CompileError::Llvm { name: name.clone(), stage, reason };
    let mut context = Context::new();
    let x86_64 = Machine::new(Isa::X86_64).map_err(failed("setting up x86_64 code generation"))?;
    let aarch64 = Machine::new(Isa::Aarch64).map_err(failed("setting up aarch64 code generation"))?;
    let module = context.parse(bitcode, name).map_err(|reason| CompileError::Bitcode { name: name.clone(), reason })?;
    keep(options, "0.front", &module);
    let variadics = passes::prepare(&module).map_err(CompileError::NotPortable)?;
    keep(options, "1.neutral", &module);
    module.verify().map_err(failed("checking the neutral module"))?;
    let pipeline = match options.opt_level {
        0 | 1 => "default<O1>",
        2 => "default<O2>",
        _ => "default<O3>",
    };
    module.run_passes(pipeline, &x86_64).map_err(failed("optimisation"))?;
    keep(options, "2.optimised", &module);
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(bitcode);
    let mut hash = [0; 8];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let settings = passes::Settings { polls: options.portable_polls, module_hash: u64::from_le_bytes(hash) };
    let finished = passes::finish(&module, settings);
    keep(options, "3.portable", &module);
    finished.map_err(|error| finish_error(name, error))?;
    module.verify().map_err(failed("checking the portable module"))?;

    let second = module.duplicate();
    let mut objects = Vec::new();
    for (isa, machine, module) in [(Isa::X86_64, &x86_64, module), (Isa::Aarch64, &aarch64, second)] {
        retarget(&module, isa);
        objects.push(machine.emit(module).map_err(failed("code generation"))?);
        let errors = context.take_errors();
        if !errors.is_empty() {
            return Err(failed("code generation")(errors.join("; ")));
        }
    }
    let (Some(aarch64), Some(x86_64)) = (objects.pop(), objects.pop()) else {
        return Err(failed("code generation")("no object".into()));
    };
    Ok(Compiled { x86_64, aarch64, variadics })
}

fn finish_error(name: &str, error: FinishError) -> CompileError {
    let defect = |function, what, value| CompileError::Defect { name: name.into(), function, what, value };
    match error {
        FinishError::Refused(refusals) => CompileError::NotPortable(refusals),
        FinishError::LiveAcrossSite { function, value } => defect(function, "a value lives across a site", value),
        FinishError::NoSlot { function, value } => defect(function, "a value cannot have a slot", value),
        FinishError::TooManySites => CompileError::Llvm {
            name: name.into(),
            stage: "numbering of sites",
            reason: "more than 2^24 call sites in one module; split it".into(),
        },
    }
}

fn keep(options: &CompileOptions, stage: &str, module: &Module) {
    if let Some(folder) = &options.keep_ir {
        let stem = Path::new(&options.source_name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A debugging aid: that the folder cannot be written must not fail the compilation.
        let _ = std::fs::write(folder.join(format!("{stem}.{stage}.ll")), module.print());
    }
}

/// Gives the module its ISA: triple, data layout, and the text of polls and barriers.
fn retarget(module: &Module, isa: Isa) {
    let target = Target::of(isa);
    module.set_target(target.triple, target.layout);
    let poll = format!(
        "1:\n\t{}\n\t.pushsection .isamorph.polls,\"a\",@progbits\n\t.quad 1b, ${{0:l}}\n\t.popsection",
        target.nop
    );
    let builder = module.builder();
    for function in module.functions() {
        for i in function.instructions() {
            if let Some(fence) = target.fence.filter(|_| i.is_full_fence()) {
                let ty = Type::function(module.void_type(), &[], false);
                builder.before(i).call(ty, module.declare(fence, ty), &[]);
                i.erase();
                continue;
            }
            if !(i.is(LLVMCallBr) || i.is(LLVMCall)) || !i.calls_asm() {
                continue;
            }
            let (template, constraints) = i.callee().asm_text();
            let asm: Value = if template == polls::PLACEHOLDER {
                builder.asm(i.call_type(), &poll, &constraints, true)
            } else {
                let constraints = float_constraints(&constraints, target.float_register);
                builder.asm(i.call_type(), &template, &constraints, true)
            };
            i.set_operand(i.operand_count() - 1, asm);
        }
    }
}

/// `f` is a floating-point register of the neutral target.
fn float_constraints(constraints: &str, register: &str) -> String {
    let one = |c: &str| match c.strip_suffix('f') {
        Some(prefix) if prefix.chars().all(|c| "=+&*".contains(c)) => format!("{prefix}{register}"),
        _ => c.to_owned(),
    };
    constraints.split(',').map(one).collect::<Vec<_>>().join(",")
}
