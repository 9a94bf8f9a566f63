//! The portable passes: from the front end's module to one whose frames and data are the same on every ISA.
//!
//! Order matters. [`prepare`] runs before the optimiser, on code whose calls are still as written; [`finish`] runs after
//! it, when no pass may change the module any more but code generation.
mod arithmetic;
mod jumps;
mod labels;
mod libcalls;
mod liveness;
pub mod polls;
mod portable_stack;
mod refuse;
mod remat;
mod slots;
mod tidy;
mod variadic;
mod webs;

pub use refuse::Refusal;
pub use variadic::VariadicUse;

use crate::leaves;
use crate::llvm::{Module, Value};
use llvm_sys::LLVMOpcode;

/// What the passes want to know of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Put polls into loops and recursive functions.
    pub polls: bool,
    /// Upper 40 bits of every site ID of this module.
    pub module_hash: u64,
}

/// Before the optimiser: refuses what is not portable, lowers what would be lost in optimisation.
pub fn prepare(module: &Module) -> Result<VariadicUse, Vec<Refusal>> {
    tidy::vfork_returns_once(module);
    let mut refusals = refuse::check(module);
    let variadics = variadic::lower(module, &mut refusals);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    tidy::neutralise(module);
    arithmetic::define(module);
    labels::lower(module);
    jumps::lower(module);
    Ok(variadics)
}

/// After the optimiser: makes library calls explicit, moves locals to the portable stack, gives values slots, and puts
/// a stack map at every site. The error is a defect of these passes or of LLVM.
pub fn finish(module: &Module, settings: Settings) -> Result<(), FinishError> {
    let mut refusals = Vec::new();
    libcalls::lower(module, &mut refusals);
    if !refusals.is_empty() {
        return Err(FinishError::Refused(refusals));
    }
    tidy::name_private_globals(module);
    tidy::strip_promises(module);
    tidy::define_zero_counts(module);
    let mut sites = slots::Sites::new(module, settings.module_hash);
    let entry_polls = if settings.polls { polls::recursive_functions(module) } else { Default::default() };
    for function in module.functions() {
        if function.is_declaration() {
            continue;
        }
        function.remove_unreachable_blocks();
        tidy::define_phis(function);
        let plan = if settings.polls { polls::plan(function, &entry_polls) } else { polls::Plan::default() };
        if plan.is_empty() && !has_site(function) && portable_stack::may_stay_native(function) {
            continue;
        }
        jumps::give_cells(module, function);
        portable_stack::lower(module, function);
        let cold = polls::insert(module, function, plan);
        tidy::widen_phis(module, function);
        slots::assign(module, function, &cold, &mut sites)?;
    }
    Ok(())
}

/// Why [`finish`] failed.
#[derive(Debug)]
pub enum FinishError {
    /// The program uses something that is not portable.
    Refused(Vec<Refusal>),
    /// These passes left a value in a register across a site.
    LiveAcrossSite {
        /// The function.
        function: String,
        /// The value, as LLVM prints it.
        value: String,
    },
    /// A value that cannot be stored in memory lives across a site.
    NoSlot {
        /// The function.
        function: String,
        /// The value, as LLVM prints it.
        value: String,
    },
    /// More than 2^24 sites.
    TooManySites,
}

/// Whether a thread can be parked inside this call (docs/architecture.md §4.2, *leaves*).
pub fn is_site(instruction: Value) -> bool {
    if !instruction.is(LLVMOpcode::LLVMCall) || instruction.calls_asm() {
        return false;
    }
    let callee = instruction.callee();
    let no_call = |callee: Value| instruction.intrinsic().is_some() || jumps::is_marker(callee);
    !(callee.is_function() && (no_call(callee) || leaves::is_leaf(&callee.name())))
}

fn has_site(function: Value) -> bool {
    function.blocks().into_iter().any(|block| block.instructions().into_iter().any(is_site))
}
