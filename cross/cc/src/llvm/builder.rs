//! Building instructions.
use super::{Block, Type, Value, c_string, ffi};
use llvm_sys::core::*;
use llvm_sys::debuginfo::LLVMInstructionGetDebugLoc;
use llvm_sys::prelude::*;
use llvm_sys::{LLVMAtomicOrdering, LLVMInlineAsmDialect, LLVMIntPredicate, LLVMOpcode};

const UNNAMED: *const std::ffi::c_char = c"".as_ptr();

/// Builds instructions at a place; new ones take the debug location of the instruction they are put before.
#[derive(Debug)]
pub struct Builder {
    raw: LLVMBuilderRef,
    context: LLVMContextRef,
}

impl Drop for Builder {
    fn drop(&mut self) {
        ffi!(LLVMDisposeBuilder(self.raw));
    }
}

impl Builder {
    pub(crate) fn new(context: LLVMContextRef) -> Self {
        Builder { raw: ffi!(LLVMCreateBuilderInContext(context)), context }
    }

    /// Goes before an instruction.
    pub fn before(&self, instruction: Value) -> &Self {
        ffi!(LLVMPositionBuilderBefore(self.raw, instruction.0));
        self
    }

    /// Goes to the end of a block.
    pub fn at_end(&self, block: Block) -> &Self {
        ffi!(LLVMPositionBuilderAtEnd(self.raw, block.0));
        self
    }

    /// Takes the debug location of an instruction.
    pub fn locate(&self, like: Value) -> &Self {
        ffi!(LLVMSetCurrentDebugLocation2(self.raw, LLVMInstructionGetDebugLoc(like.0)));
        self
    }

    /// A new block at the end of a function.
    pub fn append_block(&self, function: Value) -> Block {
        Block(ffi!(LLVMAppendBasicBlockInContext(self.context, function.0, UNNAMED)))
    }

    /// `iN`
    pub fn int_type(&self, bits: u32) -> Type {
        Type(ffi!(LLVMIntTypeInContext(self.context, bits)))
    }

    /// `alloca ty`
    pub fn alloca(&self, ty: Type, alignment: u32) -> Value {
        let value = Value(ffi!(LLVMBuildAlloca(self.raw, ty.0, UNNAMED)));
        value.set_alignment(alignment);
        value
    }

    /// `load ty, ptr`
    pub fn load(&self, ty: Type, pointer: Value, alignment: u32) -> Value {
        let value = Value(ffi!(LLVMBuildLoad2(self.raw, ty.0, pointer.0, UNNAMED)));
        value.set_alignment(alignment);
        value
    }

    /// `store value, ptr`
    pub fn store(&self, value: Value, pointer: Value, alignment: u32) -> Value {
        let store = Value(ffi!(LLVMBuildStore(self.raw, value.0, pointer.0)));
        store.set_alignment(alignment);
        store
    }

    /// `getelementptr i8, base, bytes`
    pub fn offset(&self, base: Value, bytes: Value) -> Value {
        let byte = ffi!(LLVMInt8TypeInContext(self.context));
        let mut index = [bytes.0];
        Value(ffi!(LLVMBuildGEP2(self.raw, byte, base.0, index.as_mut_ptr(), 1, UNNAMED)))
    }

    /// `getelementptr i8, base, bytes` for a constant; `base` itself for 0.
    pub fn const_offset(&self, base: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return base;
        }
        let word = Type(ffi!(LLVMInt64TypeInContext(self.context)));
        self.offset(base, word.int(bytes as u64))
    }

    /// A call.
    pub fn call(&self, ty: Type, callee: Value, args: &[Value]) -> Value {
        let mut args: Vec<_> = args.iter().map(|a| a.0).collect();
        Value(ffi!(LLVMBuildCall2(self.raw, ty.0, callee.0, args.as_mut_ptr(), args.len() as u32, UNNAMED)))
    }

    /// `callbr` of inline assembly without arguments and results.
    pub fn callbr(&self, asm: Value, ty: Type, next: Block, indirect: Block) -> Value {
        let mut targets = [indirect.0];
        Value(ffi!(LLVMBuildCallBr(
            self.raw,
            ty.0,
            asm.0,
            next.0,
            targets.as_mut_ptr(),
            1,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
            0,
            UNNAMED
        )))
    }

    /// Inline assembly with side effects.
    pub fn asm(&self, ty: Type, template: &str, constraints: &str, side_effects: bool) -> Value {
        Value(ffi!(LLVMGetInlineAsm(
            ty.0,
            template.as_ptr().cast(),
            template.len(),
            constraints.as_ptr().cast(),
            constraints.len(),
            side_effects.into(),
            0,
            LLVMInlineAsmDialect::LLVMInlineAsmDialectATT,
            0
        )))
    }

    /// A jump.
    pub fn br(&self, to: Block) -> Value {
        Value(ffi!(LLVMBuildBr(self.raw, to.0)))
    }

    /// A switch with room for `n` cases.
    pub fn switch(&self, on: Value, default: Block, cases: &[(Value, Block)]) -> Value {
        let switch = ffi!(LLVMBuildSwitch(self.raw, on.0, default.0, cases.len() as u32));
        for (value, block) in cases {
            ffi!(LLVMAddCase(switch, value.0, block.0));
        }
        Value(switch)
    }

    /// `unreachable`
    pub fn unreachable(&self) -> Value {
        Value(ffi!(LLVMBuildUnreachable(self.raw)))
    }

    /// A fence that only orders this thread against its own signal handlers: no instruction.
    pub fn compiler_fence(&self) -> Value {
        let name = "singlethread";
        let scope = ffi!(LLVMGetSyncScopeID(self.context, name.as_ptr().cast(), name.len()));
        let order = LLVMAtomicOrdering::LLVMAtomicOrderingSequentiallyConsistent;
        Value(ffi!(LLVMBuildFenceSyncScope(self.raw, order, scope, UNNAMED)))
    }

    /// A phi without incoming values yet.
    pub fn phi(&self, ty: Type) -> Value {
        Value(ffi!(LLVMBuildPhi(self.raw, ty.0, UNNAMED)))
    }

    /// A two-operand operation.
    pub fn binary(&self, opcode: LLVMOpcode, a: Value, b: Value) -> Value {
        Value(ffi!(LLVMBuildBinOp(self.raw, opcode, a.0, b.0, UNNAMED)))
    }

    /// A comparison of integers.
    pub fn compare(&self, predicate: LLVMIntPredicate, a: Value, b: Value) -> Value {
        Value(ffi!(LLVMBuildICmp(self.raw, predicate, a.0, b.0, UNNAMED)))
    }

    /// `select`
    pub fn select(&self, condition: Value, yes: Value, no: Value) -> Value {
        Value(ffi!(LLVMBuildSelect(self.raw, condition.0, yes.0, no.0, UNNAMED)))
    }

    /// `freeze`: whatever an undefined value is, it is that for all uses.
    pub fn freeze(&self, value: Value) -> Value {
        Value(ffi!(LLVMBuildFreeze(self.raw, value.0, UNNAMED)))
    }

    /// A conversion.
    pub fn cast(&self, opcode: LLVMOpcode, value: Value, to: Type) -> Value {
        Value(ffi!(LLVMBuildCast(self.raw, opcode, value.0, to.0, UNNAMED)))
    }

    /// `extractelement`
    pub fn extract_element(&self, vector: Value, index: Value) -> Value {
        Value(ffi!(LLVMBuildExtractElement(self.raw, vector.0, index.0, UNNAMED)))
    }

    /// `insertelement`
    pub fn insert_element(&self, vector: Value, element: Value, index: Value) -> Value {
        Value(ffi!(LLVMBuildInsertElement(self.raw, vector.0, element.0, index.0, UNNAMED)))
    }

    /// `insertvalue`
    pub fn insert_value(&self, aggregate: Value, element: Value, index: u32) -> Value {
        Value(ffi!(LLVMBuildInsertValue(self.raw, aggregate.0, element.0, index, UNNAMED)))
    }

    /// Attaches branch weights to a terminator.
    pub fn set_branch_weights(&self, terminator: Value, weights: &[u32]) {
        let int = ffi!(LLVMInt32TypeInContext(self.context));
        let name = "branch_weights";
        let mut list = vec![ffi!(LLVMMDStringInContext2(self.context, name.as_ptr().cast(), name.len()))];
        list.extend(weights.iter().map(|&w| ffi!(LLVMValueAsMetadata(LLVMConstInt(int, w.into(), 0)))));
        let node = ffi!(LLVMMDNodeInContext2(self.context, list.as_mut_ptr(), list.len()));
        let kind = ffi!(LLVMGetMDKindIDInContext(self.context, c_string("prof").as_ptr(), 4));
        ffi!(LLVMSetMetadata(terminator.0, kind, LLVMMetadataAsValue(self.context, node)));
    }
}
