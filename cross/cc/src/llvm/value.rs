//! Values: functions, globals, instructions, constants; and basic blocks.
use super::{Type, c_string, ffi, shim, text};
use llvm_sys::core::*;
use llvm_sys::prelude::*;
use llvm_sys::{
    LLVMAtomicOrdering, LLVMAttributeIndex, LLVMLinkage, LLVMOpcode, LLVMTailCallKind, LLVMThreadLocalMode,
    LLVMUnnamedAddr, LLVMValueKind,
};

/// A value of the IR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) LLVMValueRef);

/// A basic block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(pub(crate) LLVMBasicBlockRef);

/// Attribute index of the function itself.
pub const FUNCTION: LLVMAttributeIndex = u32::MAX;
/// Attribute index of the result.
pub const RESULT: LLVMAttributeIndex = 0;

/// A linked list of LLVM as a vector, so that it may change while it is walked.
pub(crate) fn chain(first: LLVMValueRef, next: impl Fn(LLVMValueRef) -> LLVMValueRef) -> Vec<Value> {
    let mut out = Vec::new();
    let mut at = first;
    while !at.is_null() {
        out.push(Value(at));
        at = next(at);
    }
    out
}

/// The number that LLVM gave an enum attribute; 0 if this LLVM has none of that name.
pub fn attribute_kind(name: &str) -> u32 {
    ffi!(LLVMGetEnumAttributeKindForName(name.as_ptr().cast(), name.len()))
}

/// A use of a value: who, and which operand.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The user, an instruction for every use of an instruction.
    pub user: Value,
    /// The operand of the user.
    pub operand: u32,
}

impl Value {
    pub(crate) fn option(raw: LLVMValueRef) -> Option<Value> {
        (!raw.is_null()).then_some(Value(raw))
    }

    /// Its type.
    pub fn ty(self) -> Type {
        Type(ffi!(LLVMTypeOf(self.0)))
    }

    /// Its name, empty if it has none.
    pub fn name(self) -> String {
        let mut length = 0;
        let pointer = ffi!(LLVMGetValueName2(self.0, &mut length));
        text(pointer, length)
    }

    /// Renames it (LLVM adds a number where the name is taken).
    pub fn set_name(self, name: &str) {
        ffi!(LLVMSetValueName2(self.0, name.as_ptr().cast(), name.len()));
    }

    /// What it is.
    pub fn kind(self) -> LLVMValueKind {
        ffi!(LLVMGetValueKind(self.0))
    }

    /// Whether it is an instruction.
    pub fn is_instruction(self) -> bool {
        self.kind() == LLVMValueKind::LLVMInstructionValueKind
    }

    /// Whether it is a function.
    pub fn is_function(self) -> bool {
        self.kind() == LLVMValueKind::LLVMFunctionValueKind
    }

    /// Whether it is an instruction or an argument: what occupies a register.
    pub fn is_local(self) -> bool {
        matches!(self.kind(), LLVMValueKind::LLVMInstructionValueKind | LLVMValueKind::LLVMArgumentValueKind)
    }

    /// Whether it is `undef` or `poison`.
    pub fn is_undefined(self) -> bool {
        matches!(self.kind(), LLVMValueKind::LLVMUndefValueValueKind | LLVMValueKind::LLVMPoisonValueKind)
    }

    /// As LLVM prints it.
    pub fn print(self) -> String {
        super::module::take_message(ffi!(LLVMPrintValueToString(self.0)))
    }

    /// All uses, in use-list order.
    pub fn uses(self) -> Vec<Use> {
        let n = ffi!(shim::isam_uses(self.0, std::ptr::null_mut(), std::ptr::null_mut(), 0));
        let (mut users, mut operands) = (vec![std::ptr::null_mut(); n], vec![0; n]);
        ffi!(shim::isam_uses(self.0, users.as_mut_ptr(), operands.as_mut_ptr(), n));
        users.into_iter().zip(operands).map(|(user, operand)| Use { user: Value(user), operand }).collect()
    }

    /// Whether nothing uses it.
    pub fn is_unused(self) -> bool {
        ffi!(LLVMGetFirstUse(self.0)).is_null()
    }

    /// Puts `other` wherever this value is used.
    pub fn replace_with(self, other: Value) {
        ffi!(LLVMReplaceAllUsesWith(self.0, other.0));
    }

    /// Number of operands.
    pub fn operand_count(self) -> u32 {
        ffi!(LLVMGetNumOperands(self.0)).max(0) as u32
    }

    /// An operand. (LLVM returns null for metadata that is no value; so does this.)
    pub fn operand(self, index: u32) -> Value {
        Value(ffi!(LLVMGetOperand(self.0, index)))
    }

    /// All operands.
    pub fn operands(self) -> Vec<Value> {
        (0..self.operand_count()).map(|i| self.operand(i)).collect()
    }

    /// Replaces an operand.
    pub fn set_operand(self, index: u32, value: Value) {
        ffi!(LLVMSetOperand(self.0, index, value.0));
    }

    /// The value of a constant integer of at most 64 bits.
    pub fn as_int(self) -> Option<u64> {
        let is_int = self.kind() == LLVMValueKind::LLVMConstantIntValueKind && self.ty().int_width() <= 64;
        is_int.then(|| ffi!(LLVMConstIntGetZExtValue(self.0)))
    }

    // Instructions

    /// Operation of an instruction.
    pub fn opcode(self) -> LLVMOpcode {
        ffi!(LLVMGetInstructionOpcode(self.0))
    }

    /// Whether it is an instruction of this operation.
    pub fn is(self, opcode: LLVMOpcode) -> bool {
        self.is_instruction() && self.opcode() == opcode
    }

    /// Block of an instruction.
    pub fn block(self) -> Block {
        Block(ffi!(LLVMGetInstructionParent(self.0)))
    }

    /// Instruction after this one in its block.
    pub fn next(self) -> Option<Value> {
        Value::option(ffi!(LLVMGetNextInstruction(self.0)))
    }

    /// Erases an instruction that nothing uses.
    pub fn erase(self) {
        ffi!(LLVMInstructionEraseFromParent(self.0));
    }

    /// Line of an instruction's debug location; 0 without debug information.
    pub fn debug_line(self) -> u32 {
        ffi!(LLVMGetDebugLocLine(self.0))
    }

    /// File of an instruction's or function's debug location.
    pub fn debug_file(self) -> String {
        let mut length = 0;
        let pointer = ffi!(LLVMGetDebugLocFilename(self.0, &mut length));
        text(pointer, length as usize)
    }

    /// Whether a load or store is atomic.
    pub fn is_atomic_access(self) -> bool {
        ffi!(LLVMGetOrdering(self.0)) != LLVMAtomicOrdering::LLVMAtomicOrderingNotAtomic
    }

    /// Whether this is a fence that other processors see in one order.
    pub fn is_full_fence(self) -> bool {
        self.is(LLVMOpcode::LLVMFence)
            && ffi!(LLVMIsAtomicSingleThread(self.0)) == 0
            && ffi!(LLVMGetOrdering(self.0)) == LLVMAtomicOrdering::LLVMAtomicOrderingSequentiallyConsistent
    }

    /// Makes a load or store one that no code generator merges with another.
    pub fn make_volatile(self) {
        ffi!(LLVMSetVolatile(self.0, 1));
    }

    /// Incoming pairs of a phi.
    pub fn incoming(self) -> Vec<(Value, Block)> {
        (0..ffi!(LLVMCountIncoming(self.0)))
            .map(|i| (Value(ffi!(LLVMGetIncomingValue(self.0, i))), self.incoming_block(i)))
            .collect()
    }

    /// Adds an incoming pair to a phi.
    pub fn add_incoming(self, value: Value, from: Block) {
        let (mut value, mut block) = (value.0, from.0);
        ffi!(LLVMAddIncoming(self.0, &mut value, &mut block, 1));
    }

    /// Where the value in operand `index` of a phi comes from.
    pub fn incoming_block(self, index: u32) -> Block {
        Block(ffi!(LLVMGetIncomingBlock(self.0, index)))
    }

    /// Type that an alloca allocates.
    pub fn allocated_type(self) -> Type {
        Type(ffi!(LLVMGetAllocatedType(self.0)))
    }

    /// Alignment of an alloca, load, store or global, in bytes.
    pub fn alignment(self) -> u32 {
        ffi!(LLVMGetAlignment(self.0))
    }

    /// Sets the alignment of an alloca, load, store or global, in bytes.
    pub fn set_alignment(self, bytes: u32) {
        ffi!(LLVMSetAlignment(self.0, bytes));
    }

    /// Whether this is a GEP by a constant number of bytes: base and bytes.
    pub fn constant_gep(self) -> Option<(Value, i64)> {
        if !self.is(LLVMOpcode::LLVMGetElementPtr) {
            return None;
        }
        let (mut base, mut offset) = (std::ptr::null_mut(), 0);
        let found = ffi!(shim::isam_constant_gep(self.0, &mut base, &mut offset));
        (found != 0).then_some((Value(base), offset))
    }

    /// Splits this instruction's block before it; the block that starts with it.
    pub fn split_before(self) -> Block {
        Block(ffi!(shim::isam_split_before(self.0)))
    }

    // Calls

    /// What a call calls.
    pub fn callee(self) -> Value {
        Value(ffi!(LLVMGetCalledValue(self.0)))
    }

    /// The function type that a call states.
    pub fn call_type(self) -> Type {
        Type(ffi!(LLVMGetCalledFunctionType(self.0)))
    }

    /// The arguments of a call.
    pub fn args(self) -> Vec<Value> {
        (0..ffi!(LLVMGetNumArgOperands(self.0))).map(|i| self.operand(i)).collect()
    }

    /// Name of the intrinsic that a call calls directly, such as `llvm.memcpy.p0.p0.i64`.
    pub fn intrinsic(self) -> Option<String> {
        if !self.is(LLVMOpcode::LLVMCall) {
            return None;
        }
        let callee = self.callee();
        (callee.is_function() && ffi!(LLVMGetIntrinsicID(callee.0)) != 0).then(|| callee.name())
    }

    /// Whether the callee is inline assembly.
    pub fn calls_asm(self) -> bool {
        self.callee().kind() == LLVMValueKind::LLVMInlineAsmValueKind
    }

    /// Template and constraints of inline assembly.
    pub fn asm_text(self) -> (String, String) {
        let (mut n, mut m) = (0, 0);
        let template = text(ffi!(LLVMGetInlineAsmAsmString(self.0, &mut n)), n);
        let constraints = text(ffi!(LLVMGetInlineAsmConstraintString(self.0, &mut m)), m);
        (template, constraints)
    }

    /// Whether a call must be a tail call.
    pub fn is_musttail(self) -> bool {
        ffi!(LLVMGetTailCallKind(self.0)) == LLVMTailCallKind::LLVMTailCallKindMustTail
    }

    /// Makes a call an ordinary one, never a jump.
    pub fn clear_tail(self) {
        ffi!(LLVMSetTailCallKind(self.0, LLVMTailCallKind::LLVMTailCallKindNone));
    }

    /// Removes an enum attribute of a call.
    pub fn remove_call_attribute(self, index: LLVMAttributeIndex, kind: u32) {
        ffi!(LLVMRemoveCallSiteEnumAttribute(self.0, index, kind));
    }

    /// Whether a call site or its callee's declaration has an enum attribute.
    pub fn call_has_attribute(self, index: LLVMAttributeIndex, kind: u32) -> bool {
        !ffi!(LLVMGetCallSiteEnumAttribute(self.0, index, kind)).is_null()
            || (self.callee().is_function() && self.callee().has_attribute(index, kind))
    }

    /// Adds an enum attribute with a number to a call site.
    pub fn add_call_attribute(self, index: LLVMAttributeIndex, name: &str, value: u64) {
        let context = ffi!(LLVMGetTypeContext(self.ty().0));
        let attribute = ffi!(LLVMCreateEnumAttribute(context, attribute_kind(name), value));
        ffi!(LLVMAddCallSiteAttribute(self.0, index, attribute));
    }

    /// Copies a call's attributes at `index` to another call.
    pub fn copy_call_attributes(self, index: LLVMAttributeIndex, to: Value) {
        let mut list = vec![std::ptr::null_mut(); ffi!(LLVMGetCallSiteAttributeCount(self.0, index)) as usize];
        ffi!(LLVMGetCallSiteAttributes(self.0, index, list.as_mut_ptr()));
        for attribute in list {
            ffi!(LLVMAddCallSiteAttribute(to.0, index, attribute));
        }
    }

    /// Takes over the calling convention of another call.
    pub fn copy_calling_convention(self, from: Value) {
        ffi!(LLVMSetInstructionCallConv(self.0, LLVMGetInstructionCallConv(from.0)));
    }

    // Functions and globals

    /// The type of a function or global, behind the pointer.
    pub fn global_type(self) -> Type {
        Type(ffi!(LLVMGlobalGetValueType(self.0)))
    }

    /// Whether it has no body or initializer here.
    pub fn is_declaration(self) -> bool {
        ffi!(LLVMIsDeclaration(self.0)) != 0
    }

    /// Whether a function or global asks for a section by name.
    pub fn has_section(self) -> bool {
        let name = ffi!(LLVMGetSection(self.0));
        // SAFETY: null, or a string of LLVM's that ends with a zero.
        !name.is_null() && unsafe { *name } != 0
    }

    /// Linkage of a function, global or alias.
    pub fn linkage(self) -> LLVMLinkage {
        ffi!(LLVMGetLinkage(self.0))
    }

    /// Sets the linkage.
    pub fn set_linkage(self, linkage: LLVMLinkage) {
        ffi!(LLVMSetLinkage(self.0, linkage));
    }

    /// Whether other objects can name it.
    pub fn is_visible_outside(self) -> bool {
        !matches!(self.linkage(), LLVMLinkage::LLVMInternalLinkage | LLVMLinkage::LLVMPrivateLinkage)
    }

    /// Makes the address significant, so that the object is never merged with an equal one.
    pub fn make_address_significant(self) {
        ffi!(LLVMSetUnnamedAddress(self.0, LLVMUnnamedAddr::LLVMNoUnnamedAddr));
    }

    /// Makes a global thread-local with the local-exec model.
    pub fn make_local_exec(self) {
        ffi!(LLVMSetThreadLocalMode(self.0, LLVMThreadLocalMode::LLVMLocalExecTLSModel));
    }

    /// Whether a global is thread-local.
    pub fn is_thread_local(self) -> bool {
        ffi!(LLVMIsThreadLocal(self.0)) != 0
    }

    /// What an alias stands for.
    pub fn aliasee(self) -> Value {
        Value(ffi!(LLVMAliasGetAliasee(self.0)))
    }

    /// Parameters of a function.
    pub fn params(self) -> Vec<Value> {
        (0..ffi!(LLVMCountParams(self.0))).map(|i| Value(ffi!(LLVMGetParam(self.0, i)))).collect()
    }

    /// Blocks of a function, in order.
    pub fn blocks(self) -> Vec<Block> {
        let mut out = Vec::new();
        let mut at = ffi!(LLVMGetFirstBasicBlock(self.0));
        while !at.is_null() {
            out.push(Block(at));
            at = ffi!(LLVMGetNextBasicBlock(at));
        }
        out
    }

    /// All instructions of a function, in order.
    pub fn instructions(self) -> Vec<Value> {
        self.blocks().into_iter().flat_map(Block::instructions).collect()
    }

    /// Whether a function has an enum attribute.
    pub fn has_attribute(self, index: LLVMAttributeIndex, kind: u32) -> bool {
        !ffi!(LLVMGetEnumAttributeAtIndex(self.0, index, kind)).is_null()
    }

    /// Removes an enum attribute of a function.
    pub fn remove_attribute(self, index: LLVMAttributeIndex, kind: u32) {
        ffi!(LLVMRemoveEnumAttributeAtIndex(self.0, index, kind));
    }

    /// Removes a string attribute of a function.
    pub fn remove_string_attribute(self, name: &str) {
        ffi!(LLVMRemoveStringAttributeAtIndex(self.0, FUNCTION, name.as_ptr().cast(), name.len() as u32));
    }

    /// Adds an enum attribute with a number to a function.
    pub fn add_attribute(self, name: &str, value: u64) {
        let context = ffi!(LLVMGetTypeContext(self.ty().0));
        let attribute = ffi!(LLVMCreateEnumAttribute(context, attribute_kind(name), value));
        ffi!(LLVMAddAttributeAtIndex(self.0, FUNCTION, attribute));
    }

    /// Names of the string attributes of a function.
    pub fn string_attributes(self) -> Vec<String> {
        let mut list = vec![std::ptr::null_mut(); ffi!(LLVMGetAttributeCountAtIndex(self.0, FUNCTION)) as usize];
        ffi!(LLVMGetAttributesAtIndex(self.0, FUNCTION, list.as_mut_ptr()));
        list.retain(|attribute| ffi!(LLVMIsStringAttribute(*attribute)) != 0);
        let name = |attribute| {
            let mut length = 0;
            let pointer = ffi!(LLVMGetStringAttributeKind(attribute, &mut length));
            text(pointer, length as usize)
        };
        list.into_iter().map(name).collect()
    }

    /// Adds a string attribute to a function.
    pub fn add_string_attribute(self, name: &str, value: &str) {
        ffi!(LLVMAddTargetDependentFunctionAttr(self.0, c_string(name).as_ptr(), c_string(value).as_ptr()));
    }

    /// Gives a function a new type with the same first parameters; the new function.
    pub fn retype_function(self, ty: Type) -> Value {
        Value(ffi!(shim::isam_retype_function(self.0, ty.0)))
    }

    /// Promotes allocas of a function to SSA values.
    pub fn promote(self, allocas: &[Value]) {
        let mut list: Vec<_> = allocas.iter().map(|a| a.0).collect();
        ffi!(shim::isam_promote(self.0, list.as_mut_ptr(), list.len()));
    }

    /// Removes blocks that cannot be reached.
    pub fn remove_unreachable_blocks(self) {
        ffi!(shim::isam_remove_unreachable_blocks(self.0));
    }

    /// Relative execution frequency of each block.
    pub fn block_frequencies(self, n: usize) -> Vec<u64> {
        let mut out = vec![0; n];
        ffi!(shim::isam_block_frequencies(self.0, out.as_mut_ptr(), n));
        out
    }

    /// For each block, whether it heads a loop that needs no poll of its own: its nest has at most `limit` rounds, or each
    /// round has a block that polls, as `polling` says for each block.
    pub fn unpolled_headers(self, limit: u32, polling: &[bool]) -> Vec<bool> {
        let mut out: Vec<u8> = polling.iter().map(|&p| p.into()).collect();
        ffi!(shim::isam_unpolled_headers(self.0, limit, out.as_mut_ptr(), out.len()));
        out.into_iter().map(|b| b != 0).collect()
    }

    /// Whether LLVM can tell that an integer, or each element of a vector, is never zero.
    pub fn is_never_zero(self, module: &super::Module) -> bool {
        ffi!(shim::isam_is_never_zero(module.raw, self.0)) != 0
    }

    /// Drops the descriptions of local variables.
    pub fn drop_frame_debug(self) {
        ffi!(shim::isam_drop_frame_debug(self.0));
    }
}

impl Block {
    /// Instructions in order.
    pub fn instructions(self) -> Vec<Value> {
        chain(ffi!(LLVMGetFirstInstruction(self.0)), |i| ffi!(LLVMGetNextInstruction(i)))
    }

    /// The last instruction.
    pub fn terminator(self) -> Option<Value> {
        Value::option(ffi!(LLVMGetBasicBlockTerminator(self.0)))
    }

    /// Blocks that may run next.
    pub fn successors(self) -> Vec<Block> {
        let Some(terminator) = self.terminator() else { return Vec::new() };
        (0..ffi!(LLVMGetNumSuccessors(terminator.0))).map(|i| Block(ffi!(LLVMGetSuccessor(terminator.0, i)))).collect()
    }

    /// The first place where code may be added.
    pub fn first_insertion_point(self) -> Option<Value> {
        Value::option(ffi!(shim::isam_first_insertion_point(self.0)))
    }

    /// Whether a computed goto may name it.
    pub fn address_taken(self) -> bool {
        ffi!(shim::isam_block_address_taken(self.0)) != 0
    }

    /// Puts `inttoptr number` wherever the program uses this block's address.
    pub fn replace_address(self, number: Value) {
        ffi!(shim::isam_replace_block_address(self.0, number.0));
    }

    /// Tells the phis of this block that one edge from `block` is gone.
    pub fn remove_predecessor(self, block: Block) {
        ffi!(shim::isam_remove_predecessor(self.0, block.0));
    }
}
