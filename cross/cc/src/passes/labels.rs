//! Computed goto without native addresses: a label's value becomes its number in the function.
//!
//! Label addresses would differ between the ISAs, and programs keep them in memory. As numbers they are ordinary data,
//! and `goto *p` is a switch over them.
use crate::llvm::{Block, Module};
use llvm_sys::LLVMOpcode;

/// Replaces every `blockaddress` and `indirectbr` of the module.
pub fn lower(module: &Module) {
    let builder = module.builder();
    let word = module.int_type(64);
    for function in module.functions() {
        let labels: Vec<Block> = function.blocks().into_iter().filter(|b| b.address_taken()).collect();
        let gotos: Vec<_> = function.instructions().into_iter().filter(|i| i.is(LLVMOpcode::LLVMIndirectBr)).collect();
        for (number, label) in (1..).zip(&labels) {
            // 0 stays free: a label's address is not null.
            label.replace_address(word.int(number));
        }
        if gotos.is_empty() {
            continue;
        }
        let nowhere = builder.append_block(function);
        builder.at_end(nowhere).unreachable();
        for goto in gotos {
            let targets = goto.block().successors();
            let on = builder.before(goto).cast(LLVMOpcode::LLVMPtrToInt, goto.operand(0), word);
            let cases: Vec<_> = (1..)
                .zip(&labels)
                .filter(|(_, label)| targets.contains(label))
                .map(|(number, label)| (word.int(number), *label))
                .collect();
            // One entry per edge in the targets' phis: an indirectbr may name a target twice, or one that nobody can reach.
            for (i, target) in targets.iter().enumerate() {
                if targets[..i].contains(target) || !labels.contains(target) {
                    target.remove_predecessor(goto.block());
                }
            }
            builder.switch(on, nowhere, &cases);
            goto.erase();
        }
    }
}
