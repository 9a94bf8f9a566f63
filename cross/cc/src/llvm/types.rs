//! Types of the IR.
use super::{ffi, value::Value};
use llvm_sys::LLVMTypeKind;
use llvm_sys::core::*;
use llvm_sys::prelude::*;

/// A type, unique within its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type(pub(crate) LLVMTypeRef);

impl Type {
    /// What kind of type this is.
    pub fn kind(self) -> LLVMTypeKind {
        ffi!(LLVMGetTypeKind(self.0))
    }

    /// Width of an integer type in bits.
    pub fn int_width(self) -> u32 {
        ffi!(LLVMGetIntTypeWidth(self.0))
    }

    /// Whether the function type takes variable arguments.
    pub fn is_variadic(self) -> bool {
        ffi!(LLVMIsFunctionVarArg(self.0)) != 0
    }

    /// The result of a function type.
    pub fn result(self) -> Type {
        Type(ffi!(LLVMGetReturnType(self.0)))
    }

    /// The fixed parameters of a function type.
    pub fn params(self) -> Vec<Type> {
        let mut out = vec![std::ptr::null_mut(); ffi!(LLVMCountParamTypes(self.0)) as usize];
        ffi!(LLVMGetParamTypes(self.0, out.as_mut_ptr()));
        out.into_iter().map(Type).collect()
    }

    /// A function type.
    pub fn function(result: Type, params: &[Type], variadic: bool) -> Type {
        let mut params: Vec<_> = params.iter().map(|t| t.0).collect();
        Type(ffi!(LLVMFunctionType(result.0, params.as_mut_ptr(), params.len() as u32, variadic.into())))
    }

    /// `[n x self]`
    pub fn array(self, n: u64) -> Type {
        Type(ffi!(LLVMArrayType2(self.0, n)))
    }

    /// Element of a vector or array type.
    pub fn element(self) -> Type {
        Type(ffi!(LLVMGetElementType(self.0)))
    }

    /// Number of lanes of a fixed vector type.
    pub fn lanes(self) -> u32 {
        ffi!(LLVMGetVectorSize(self.0))
    }

    /// The zero of this type.
    pub fn zero(self) -> Value {
        Value(ffi!(LLVMConstNull(self.0)))
    }

    /// `undef` of this type.
    pub fn undef(self) -> Value {
        Value(ffi!(LLVMGetUndef(self.0)))
    }

    /// A constant of this integer type.
    pub fn int(self, value: u64) -> Value {
        Value(ffi!(LLVMConstInt(self.0, value, 0)))
    }

    /// A constant of this type of integers or vectors of integers, the same in every lane.
    pub fn splat(self, value: u64) -> Value {
        if !self.is_vector() {
            return self.int(value);
        }
        let mut lanes = vec![self.element().int(value).0; self.lanes() as usize];
        Value(ffi!(LLVMConstVector(lanes.as_mut_ptr(), lanes.len() as u32)))
    }

    /// The constant of this type whose bits are all set.
    pub fn ones(self) -> Value {
        Value(ffi!(LLVMConstAllOnes(self.0)))
    }

    /// A constant of this floating-point type.
    pub fn real(self, value: f64) -> Value {
        Value(ffi!(LLVMConstReal(self.0, value)))
    }

    /// Whether it is `half`, `bfloat`, `float`, `double` or `fp128`.
    pub fn is_float(self) -> bool {
        use LLVMTypeKind::*;
        matches!(
            self.kind(),
            LLVMHalfTypeKind | LLVMBFloatTypeKind | LLVMFloatTypeKind | LLVMDoubleTypeKind | LLVMFP128TypeKind
        )
    }

    /// Whether it is a vector of a fixed number of lanes.
    pub fn is_vector(self) -> bool {
        self.kind() == LLVMTypeKind::LLVMVectorTypeKind
    }

    /// Whether a scalable vector, or a type that only some targets have, occurs in it at the top level.
    pub fn is_target_specific(self) -> bool {
        use LLVMTypeKind::*;
        matches!(
            self.kind(),
            LLVMScalableVectorTypeKind
                | LLVMX86_AMXTypeKind
                | LLVMTargetExtTypeKind
                | LLVMX86_FP80TypeKind
                | LLVMPPC_FP128TypeKind
        )
    }

    /// Whether it has no value.
    pub fn is_void(self) -> bool {
        self.kind() == LLVMTypeKind::LLVMVoidTypeKind
    }

    /// As LLVM prints it.
    pub fn name(self) -> String {
        let text = ffi!(LLVMPrintTypeToString(self.0));
        // SAFETY: LLVM returned a NUL-terminated string that is ours to dispose of.
        let out = unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned();
        ffi!(LLVMDisposeMessage(text));
        out
    }
}
