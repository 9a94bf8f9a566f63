//! Declarations of `shim/shim.cpp`.
use llvm_sys::prelude::{LLVMBasicBlockRef, LLVMModuleRef, LLVMTypeRef, LLVMValueRef};
use llvm_sys::target_machine::LLVMTargetMachineRef;

unsafe extern "C" {
    pub fn isam_split_before(inst: LLVMValueRef) -> LLVMBasicBlockRef;
    pub fn isam_retype_function(old: LLVMValueRef, ty: LLVMTypeRef) -> LLVMValueRef;
    pub fn isam_uses(value: LLVMValueRef, users: *mut LLVMValueRef, operands: *mut u32, n: usize) -> usize;
    pub fn isam_promote(function: LLVMValueRef, allocas: *mut LLVMValueRef, n: usize);
    pub fn isam_remove_unreachable_blocks(function: LLVMValueRef);
    pub fn isam_block_frequencies(function: LLVMValueRef, out: *mut u64, n: usize);
    pub fn isam_unpolled_headers(function: LLVMValueRef, limit: u32, out: *mut u8, n: usize);
    pub fn isam_block_address_taken(block: LLVMBasicBlockRef) -> i32;
    pub fn isam_replace_block_address(block: LLVMBasicBlockRef, number: LLVMValueRef);
    pub fn isam_remove_predecessor(block: LLVMBasicBlockRef, predecessor: LLVMBasicBlockRef);
    pub fn isam_constant_gep(value: LLVMValueRef, base: *mut LLVMValueRef, offset: *mut i64) -> i32;
    pub fn isam_first_insertion_point(block: LLVMBasicBlockRef) -> LLVMValueRef;
    pub fn isam_is_never_zero(module: LLVMModuleRef, value: LLVMValueRef) -> i32;
    pub fn isam_drop_frame_debug(function: LLVMValueRef);
    pub fn isam_configure(machine: LLVMTargetMachineRef);
    pub fn isam_clear_module_flags(module: LLVMModuleRef);
}
