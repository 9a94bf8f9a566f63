//! Contexts and modules, which own everything else.
use super::{Machine, Type, Value, builder::Builder, c_string, ffi, libc_char, text, value};
use llvm_sys::LLVMDiagnosticSeverity;
use llvm_sys::core::*;
use llvm_sys::prelude::*;
use std::ffi::{CStr, c_void};

/// An LLVM context, with the errors that LLVM reported in it.
#[derive(Debug)]
pub struct Context {
    raw: LLVMContextRef,
    // LLVM holds its address.
    #[allow(clippy::box_collection)]
    errors: Box<Vec<String>>,
}

extern "C" fn on_diagnostic(info: LLVMDiagnosticInfoRef, sink: *mut c_void) {
    if ffi!(LLVMGetDiagInfoSeverity(info)) != LLVMDiagnosticSeverity::LLVMDSError {
        return;
    }
    let description = take_message(ffi!(LLVMGetDiagInfoDescription(info)));
    // SAFETY: `sink` is the vector boxed in the context, which LLVM calls only while the context lives.
    unsafe { (*sink.cast::<Vec<String>>()).push(description) };
}

/// The text of a message that LLVM allocated, which is disposed of.
pub(crate) fn take_message(message: *mut libc_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: LLVM returned a NUL-terminated string that is ours to dispose of.
    let out = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    ffi!(LLVMDisposeMessage(message));
    out
}

impl Context {
    /// A fresh context.
    pub fn new() -> Self {
        let mut errors = Box::new(Vec::new());
        let raw = ffi!(LLVMContextCreate());
        let sink: *mut Vec<String> = &mut *errors;
        ffi!(LLVMContextSetDiagnosticHandler(raw, Some(on_diagnostic), sink.cast()));
        Context { raw, errors }
    }

    /// Errors that LLVM reported since the last call.
    pub fn take_errors(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.errors)
    }

    /// A module read from bitcode.
    pub fn parse(&mut self, bitcode: &[u8], name: &str) -> Result<Module, String> {
        let name = c_string(name);
        let buffer =
            ffi!(LLVMCreateMemoryBufferWithMemoryRangeCopy(bitcode.as_ptr().cast(), bitcode.len(), name.as_ptr()));
        let mut module = std::ptr::null_mut();
        let failed = ffi!(llvm_sys::bit_reader::LLVMParseBitcodeInContext2(self.raw, buffer, &mut module));
        ffi!(LLVMDisposeMemoryBuffer(buffer));
        if failed != 0 {
            let errors = self.take_errors();
            return Err(if errors.is_empty() { "not LLVM bitcode".into() } else { errors.join("; ") });
        }
        Ok(Module { raw: module, context: self.raw })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        ffi!(LLVMContextDispose(self.raw));
    }
}

/// A module. It must be dropped before its context.
#[derive(Debug)]
pub struct Module {
    pub(crate) raw: LLVMModuleRef,
    context: LLVMContextRef,
}

impl Drop for Module {
    fn drop(&mut self) {
        ffi!(LLVMDisposeModule(self.raw));
    }
}

impl Module {
    /// An independent copy in the same context.
    pub fn duplicate(&self) -> Module {
        Module { raw: ffi!(LLVMCloneModule(self.raw)), context: self.context }
    }

    /// A builder for instructions of this module.
    pub fn builder(&self) -> Builder {
        Builder::new(self.context)
    }

    /// `iN`
    pub fn int_type(&self, bits: u32) -> Type {
        Type(ffi!(LLVMIntTypeInContext(self.context, bits)))
    }

    /// `ptr`
    pub fn ptr_type(&self) -> Type {
        Type(ffi!(LLVMPointerTypeInContext(self.context, 0)))
    }

    /// `void`
    pub fn void_type(&self) -> Type {
        Type(ffi!(LLVMVoidTypeInContext(self.context)))
    }

    /// `float`
    pub fn float_type(&self) -> Type {
        Type(ffi!(LLVMFloatTypeInContext(self.context)))
    }

    /// All functions, in order.
    pub fn functions(&self) -> Vec<Value> {
        value::chain(ffi!(LLVMGetFirstFunction(self.raw)), |f| ffi!(LLVMGetNextFunction(f)))
    }

    /// All global variables, in order.
    pub fn globals(&self) -> Vec<Value> {
        value::chain(ffi!(LLVMGetFirstGlobal(self.raw)), |g| ffi!(LLVMGetNextGlobal(g)))
    }

    /// All aliases, in order.
    pub fn aliases(&self) -> Vec<Value> {
        value::chain(ffi!(LLVMGetFirstGlobalAlias(self.raw)), |g| ffi!(LLVMGetNextGlobalAlias(g)))
    }

    /// All ifuncs, in order.
    pub fn ifuncs(&self) -> Vec<Value> {
        value::chain(ffi!(LLVMGetFirstGlobalIFunc(self.raw)), |g| ffi!(LLVMGetNextGlobalIFunc(g)))
    }

    /// The function of this name, if there is one.
    pub fn function(&self, name: &str) -> Option<Value> {
        let name = c_string(name);
        Value::option(ffi!(LLVMGetNamedFunction(self.raw, name.as_ptr())))
    }

    /// The function of this name, declared with `ty` if need be.
    pub fn declare(&self, name: &str, ty: Type) -> Value {
        self.function(name).unwrap_or_else(|| {
            let name = c_string(name);
            Value(ffi!(LLVMAddFunction(self.raw, name.as_ptr(), ty.0)))
        })
    }

    /// The global variable of this name, declared with `ty` if need be.
    pub fn declare_global(&self, name: &str, ty: Type) -> Value {
        let name = c_string(name);
        Value::option(ffi!(LLVMGetNamedGlobal(self.raw, name.as_ptr())))
            .unwrap_or_else(|| Value(ffi!(LLVMAddGlobal(self.raw, ty.0, name.as_ptr()))))
    }

    /// Assembly outside functions.
    pub fn inline_asm(&self) -> String {
        let mut length = 0;
        let pointer = ffi!(LLVMGetModuleInlineAsm(self.raw, &mut length));
        text(pointer, length)
    }

    /// Size of a value of `ty` in memory, without tail padding, in bytes.
    pub fn store_size(&self, ty: Type) -> u64 {
        let layout = ffi!(llvm_sys::target::LLVMGetModuleDataLayout(self.raw));
        ffi!(llvm_sys::target::LLVMStoreSizeOfType(layout, ty.0))
    }

    /// Distance of two values of `ty` in an array, in bytes.
    pub fn alloc_size(&self, ty: Type) -> u64 {
        let layout = ffi!(llvm_sys::target::LLVMGetModuleDataLayout(self.raw));
        ffi!(llvm_sys::target::LLVMABISizeOfType(layout, ty.0))
    }

    /// ABI alignment of `ty` in bytes.
    pub fn alignment(&self, ty: Type) -> u64 {
        let layout = ffi!(llvm_sys::target::LLVMGetModuleDataLayout(self.raw));
        ffi!(llvm_sys::target::LLVMABIAlignmentOfType(layout, ty.0)).into()
    }

    /// Sets triple and data layout.
    pub fn set_target(&self, triple: &str, layout: &str) {
        let (triple, layout) = (c_string(triple), c_string(layout));
        ffi!(LLVMSetTarget(self.raw, triple.as_ptr()));
        ffi!(LLVMSetDataLayout(self.raw, layout.as_ptr()));
    }

    /// Runs a pass pipeline, in `opt -passes=` syntax.
    pub fn run_passes(&self, passes: &str, machine: &Machine) -> Result<(), String> {
        use llvm_sys::transforms::pass_builder::*;
        let text = c_string(passes);
        let options = ffi!(LLVMCreatePassBuilderOptions());
        let error = ffi!(LLVMRunPasses(self.raw, text.as_ptr(), machine.raw, options));
        ffi!(LLVMDisposePassBuilderOptions(options));
        if error.is_null() {
            return Ok(());
        }
        let message = ffi!(llvm_sys::error::LLVMGetErrorMessage(error));
        // SAFETY: LLVM returned a NUL-terminated string that is ours to dispose of.
        let out = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        ffi!(llvm_sys::error::LLVMDisposeErrorMessage(message));
        Err(out)
    }

    /// Checks the module against LLVM's rules.
    pub fn verify(&self) -> Result<(), String> {
        use llvm_sys::analysis::*;
        let mut message = std::ptr::null_mut();
        let action = LLVMVerifierFailureAction::LLVMReturnStatusAction;
        let failed = ffi!(LLVMVerifyModule(self.raw, action, &mut message));
        let message = take_message(message);
        if failed != 0 { Err(message) } else { Ok(()) }
    }

    /// The module as text.
    pub fn print(&self) -> String {
        take_message(ffi!(LLVMPrintModuleToString(self.raw)))
    }

    /// Removes every module flag whose key `keep` does not want.
    pub fn retain_flags(&self, keep: impl Fn(&str) -> bool) {
        let mut n = 0;
        let entries = ffi!(LLVMCopyModuleFlagsMetadata(self.raw, &mut n));
        let mut kept = Vec::new();
        for i in 0..n as u32 {
            let mut length = 0;
            let key = text(ffi!(LLVMModuleFlagEntriesGetKey(entries, i, &mut length)), length);
            if keep(&key) {
                let behavior = ffi!(LLVMModuleFlagEntriesGetFlagBehavior(entries, i));
                kept.push((behavior, key, ffi!(LLVMModuleFlagEntriesGetMetadata(entries, i))));
            }
        }
        ffi!(LLVMDisposeModuleFlagsMetadata(entries));
        ffi!(super::shim::isam_clear_module_flags(self.raw));
        for (behavior, key, metadata) in kept {
            ffi!(LLVMAddModuleFlag(self.raw, behavior, key.as_ptr().cast(), key.len(), metadata));
        }
    }
}
