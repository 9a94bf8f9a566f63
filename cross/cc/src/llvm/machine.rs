//! Target machines: code generation for one ISA.
use super::module::take_message;
use super::{Module, c_string, ffi, shim};
use isamorph_arch::Isa;
use llvm_sys::target::*;
use llvm_sys::target_machine::*;
use std::sync::Once;

/// What differs between the ISAs for the code generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// LLVM's triple.
    pub triple: &'static str,
    /// LLVM's data layout. Both give every C type the same size and alignment.
    pub layout: &'static str,
    /// A nop that is patched to a jump: 5 bytes on x86_64, one instruction on aarch64.
    pub nop: &'static str,
    /// Intrinsic for a full memory fence, where the code generator's own way touches the stack below the frame.
    pub fence: Option<&'static str>,
    /// Constraint letter of a floating-point register in inline assembly.
    pub float_register: &'static str,
}

impl Target {
    /// The target of an ISA.
    pub fn of(isa: Isa) -> Target {
        match isa {
            Isa::X86_64 => Target {
                triple: "x86_64-unknown-linux-musl",
                layout: "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128",
                nop: ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
                fence: Some("llvm.x86.sse2.mfence"),
                float_register: "x",
            },
            Isa::Aarch64 => Target {
                triple: "aarch64-unknown-linux-musl",
                layout: "e-m:e-p270:32:32-p271:32:32-p272:64:64-i8:8:32-i16:16:32-i64:64-i128:128-n32:64-S128-Fn32",
                nop: "nop",
                fence: None,
                float_register: "w",
            },
        }
    }
}

/// Options of code generation that LLVM has only as command-line options of `llc`.
///
/// The first group would change the control flow, the calls or the globals of one ISA only; the second lets values stay
/// in registers across sites; the third makes the block map complete (docs/architecture.md §4.2).
const LLC_OPTIONS: &[&str] = &[
    "-aarch64-enable-global-merge=false",
    "-aarch64-enable-promote-const=false",
    "-aarch64-enable-atomic-cfg-tidy=false",
    "-disable-partial-libcall-inlining",
    "-no-x86-call-frame-opt",
    "-enable-machine-outliner=never",
    "-disable-tail-duplicate",
    "-disable-early-taildup",
    "-tail-dup-placement=false",
    "-aarch64-enable-copyelim=false",
    "-disable-machine-licm",
    "-disable-postra-machine-licm",
    "-disable-machine-cse",
    "-disable-constant-hoisting",
    "-pgo-analysis-map=br-prob",
];

/// LLVM's targets and options are process-wide: set up once.
fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let arguments: Vec<_> =
            std::iter::once("isamorph-cc").chain(LLC_OPTIONS.iter().copied()).map(c_string).collect();
        let pointers: Vec<_> = arguments.iter().map(|a| a.as_ptr()).collect();
        // SAFETY: initialisation of LLVM's registries, once; the strings outlive the call, which copies them.
        unsafe {
            LLVMInitializeX86TargetInfo();
            LLVMInitializeX86Target();
            LLVMInitializeX86TargetMC();
            LLVMInitializeX86AsmPrinter();
            LLVMInitializeX86AsmParser();
            LLVMInitializeAArch64TargetInfo();
            LLVMInitializeAArch64Target();
            LLVMInitializeAArch64TargetMC();
            LLVMInitializeAArch64AsmPrinter();
            LLVMInitializeAArch64AsmParser();
            llvm_sys::support::LLVMParseCommandLineOptions(pointers.len() as i32, pointers.as_ptr(), std::ptr::null());
        }
    });
}

/// A code generator for one ISA.
#[derive(Debug)]
pub struct Machine {
    pub(crate) raw: LLVMTargetMachineRef,
}

impl Drop for Machine {
    fn drop(&mut self) {
        ffi!(LLVMDisposeTargetMachine(self.raw));
    }
}

impl Machine {
    /// A code generator for static, position-dependent code with the baseline features of `isa`.
    pub fn new(isa: Isa) -> Result<Machine, String> {
        initialize();
        let triple = c_string(Target::of(isa).triple);
        let (mut target, mut message) = (std::ptr::null_mut(), std::ptr::null_mut());
        if ffi!(LLVMGetTargetFromTriple(triple.as_ptr(), &mut target, &mut message)) != 0 {
            return Err(take_message(message));
        }
        let cpu = match isa {
            Isa::X86_64 => c"x86-64",
            Isa::Aarch64 => c"generic",
        };
        let raw = ffi!(LLVMCreateTargetMachine(
            target,
            triple.as_ptr(),
            cpu.as_ptr(),
            c"".as_ptr(),
            LLVMCodeGenOptLevel::LLVMCodeGenLevelDefault,
            LLVMRelocMode::LLVMRelocStatic,
            LLVMCodeModel::LLVMCodeModelSmall
        ));
        ffi!(shim::isam_configure(raw));
        Ok(Machine { raw })
    }

    /// The relocatable ELF object of a module. The module is changed on the way and of no further use.
    pub fn emit(&self, module: Module) -> Result<Vec<u8>, String> {
        let (mut buffer, mut message) = (std::ptr::null_mut(), std::ptr::null_mut());
        let kind = LLVMCodeGenFileType::LLVMObjectFile;
        let failed = ffi!(LLVMTargetMachineEmitToMemoryBuffer(self.raw, module.raw, kind, &mut message, &mut buffer));
        if failed != 0 {
            return Err(take_message(message));
        }
        let start = ffi!(llvm_sys::core::LLVMGetBufferStart(buffer)).cast::<u8>();
        let size = ffi!(llvm_sys::core::LLVMGetBufferSize(buffer));
        // SAFETY: the buffer holds `size` bytes and is disposed of only below.
        let bytes = unsafe { std::slice::from_raw_parts(start, size) }.to_vec();
        ffi!(llvm_sys::core::LLVMDisposeMemoryBuffer(buffer));
        Ok(bytes)
    }
}
