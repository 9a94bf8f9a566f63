// What the portable passes need and LLVM's C API lacks. No logic of its own: each function is one call into LLVM,
// or one analysis whose result is copied out. Mirrored by src/llvm/shim.rs.
#include "llvm-c/Core.h"
#include "llvm-c/TargetMachine.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/Analysis/AssumptionCache.h"
#include "llvm/Analysis/BlockFrequencyInfo.h"
#include "llvm/Analysis/BranchProbabilityInfo.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/Analysis/ScalarEvolution.h"
#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/Analysis/ValueTracking.h"
#include "llvm/IR/BasicBlock.h"
#include "llvm/IR/DebugInfoMetadata.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/Function.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/Support/CBindingWrapping.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Utils/Local.h"
#include "llvm/Transforms/Utils/PromoteMemToReg.h"

using namespace llvm;

static TargetMachine *machine(LLVMTargetMachineRef tm) { return reinterpret_cast<TargetMachine *>(tm); }

extern "C" {

// The block that starts with `inst` after its block was split before it.
LLVMBasicBlockRef isam_split_before(LLVMValueRef inst) {
  auto *I = unwrap<Instruction>(inst);
  return wrap(I->getParent()->splitBasicBlock(I->getIterator()));
}

// Replaces `old` by a function of type `type`, whose first parameters are those of `old`; moves body, attributes, debug
// information and every use. Returns the new function; `old` is gone.
LLVMValueRef isam_retype_function(LLVMValueRef old, LLVMTypeRef type) {
  auto *O = unwrap<Function>(old);
  auto *N = Function::Create(unwrap<FunctionType>(type), O->getLinkage(), O->getAddressSpace(), "", nullptr);
  O->getParent()->getFunctionList().insert(O->getIterator(), N);
  N->copyAttributesFrom(O);
  N->setComdat(O->getComdat());
  N->copyMetadata(O, 0);
  N->splice(N->begin(), O);
  auto NA = N->arg_begin();
  for (Argument &A : O->args()) {
    A.replaceAllUsesWith(&*NA);
    NA->takeName(&A);
    ++NA;
  }
  N->takeName(O);
  O->replaceAllUsesWith(N);
  O->eraseFromParent();
  return wrap(N);
}

// Number of uses of `value`; the first `n` are copied out.
size_t isam_uses(LLVMValueRef value, LLVMValueRef *users, unsigned *operands, size_t n) {
  size_t i = 0;
  for (Use &U : unwrap(value)->uses()) {
    if (i < n) {
      users[i] = wrap(U.getUser());
      operands[i] = U.getOperandNo();
    }
    i++;
  }
  return i;
}

// Promotes allocas that are only loaded and stored whole to SSA values.
void isam_promote(LLVMValueRef function, LLVMValueRef *allocas, size_t n) {
  DominatorTree DT(*unwrap<Function>(function));
  SmallVector<AllocaInst *, 32> A;
  for (size_t i = 0; i < n; i++)
    A.push_back(unwrap<AllocaInst>(allocas[i]));
  PromoteMemToReg(A, DT);
}

void isam_remove_unreachable_blocks(LLVMValueRef function) { removeUnreachableBlocks(*unwrap<Function>(function)); }

// Relative execution frequency of each block, in block order.
void isam_block_frequencies(LLVMValueRef function, uint64_t *out, size_t n) {
  Function &F = *unwrap<Function>(function);
  DominatorTree DT(F);
  LoopInfo LI(DT);
  BranchProbabilityInfo BPI(F, LI);
  BlockFrequencyInfo BFI(F, BPI, LI);
  size_t i = 0;
  for (BasicBlock &B : F)
    if (i < n)
      out[i++] = BFI.getBlockFreq(&B).getFrequency();
}

// Which natural loops of the function need no poll of their own: sets out[i] for block i (in block order) when it heads one.
// On input, out[i] says that a poll surely happens whenever block i is left. A loop needs none when
// - such a block is part of each of its rounds, or
// - it runs, together with the loops in it that have none for this reason, at most `limit` times.
void isam_unpolled_headers(LLVMValueRef function, unsigned limit, uint8_t *out, size_t n) {
  Function &F = *unwrap<Function>(function);
  DominatorTree DT(F);
  LoopInfo LI(DT);
  if (LI.empty()) {
    std::fill(out, out + n, 0);
    return;
  }
  SmallPtrSet<BasicBlock *, 16> Polling;
  size_t i = 0;
  for (BasicBlock &B : F)
    if (i < n && out[i++])
      Polling.insert(&B);
  TargetLibraryInfoImpl TLII(F.getParent()->getTargetTriple());
  TargetLibraryInfo TLI(TLII, &F);
  AssumptionCache AC(F);
  ScalarEvolution SE(F, TLI, AC, DT, LI);
  DenseMap<BasicBlock *, uint64_t> Rounds; // 0: polls in each round
  // Inner loops first: the poll goes as far out as it may.
  SmallVector<Loop *, 4> Loops = LI.getLoopsInPreorder();
  for (Loop *L : reverse(Loops)) {
    SmallVector<BasicBlock *, 4> Latches;
    L->getLoopLatches(Latches);
    if (any_of(L->blocks(), [&](BasicBlock *B) {
          return Polling.contains(B) && all_of(Latches, [&](BasicBlock *Latch) { return DT.dominates(B, Latch); });
        })) {
      Rounds[L->getHeader()] = 0;
      continue;
    }
    uint64_t Body = 0;
    for (Loop *Inner : L->getSubLoops())
      if (auto Found = Rounds.find(Inner->getHeader()); Found != Rounds.end())
        Body += Found->second;
    uint64_t Trips = SE.getSmallConstantMaxTripCount(L);
    uint64_t All = Trips * std::max<uint64_t>(Body, 1);
    if (Trips != 0 && All <= limit)
      Rounds[L->getHeader()] = All;
  }
  i = 0;
  for (BasicBlock &B : F)
    if (i < n)
      out[i++] = Rounds.contains(&B);
}

// Whether the address of a block is taken (a computed goto).
int isam_block_address_taken(LLVMBasicBlockRef block) { return unwrap(block)->hasAddressTaken(); }

// Replaces every use of the address of `block` by `inttoptr number`.
void isam_replace_block_address(LLVMBasicBlockRef block, LLVMValueRef number) {
  if (BlockAddress *A = BlockAddress::lookup(unwrap(block))) {
    A->replaceAllUsesWith(ConstantExpr::getIntToPtr(unwrap<Constant>(number), A->getType()));
    if (A->use_empty())
      A->destroyConstant();
  }
}

// Tells the phis of `block` that one edge from `predecessor` is gone.
void isam_remove_predecessor(LLVMBasicBlockRef block, LLVMBasicBlockRef predecessor) {
  unwrap(block)->removePredecessor(unwrap(predecessor), true);
}

// Whether `value` is a GEP by a constant number of bytes; then *base and *offset.
int isam_constant_gep(LLVMValueRef value, LLVMValueRef *base, int64_t *offset) {
  auto *G = dyn_cast<GetElementPtrInst>(unwrap(value));
  if (!G || G->getType()->isVectorTy())
    return 0;
  const DataLayout &DL = G->getModule()->getDataLayout();
  APInt O(DL.getIndexTypeSizeInBits(G->getType()), 0);
  if (!G->accumulateConstantOffset(DL, O))
    return 0;
  *base = wrap(G->getPointerOperand());
  *offset = O.getSExtValue();
  return 1;
}

// Where the first non-phi instruction of `block` that may be preceded by new code stands.
LLVMValueRef isam_first_insertion_point(LLVMBasicBlockRef block) {
  auto It = unwrap(block)->getFirstInsertionPt();
  return It == unwrap(block)->end() ? nullptr : wrap(&*It);
}

// Whether `value` is known not to be zero.
int isam_is_never_zero(LLVMModuleRef module, LLVMValueRef value) {
  return isKnownNonZero(unwrap(value), SimplifyQuery(unwrap(module)->getDataLayout()));
}

// Removes debug records and everything else that names `function`'s native frame; variables then have no location.
void isam_drop_frame_debug(LLVMValueRef function) {
  for (BasicBlock &B : *unwrap<Function>(function))
    for (Instruction &I : B)
      I.dropDbgRecords();
}

// Target options (doc: llvm/Target/TargetOptions.h) that LLVMTargetMachineOptions lacks.
void isam_configure(LLVMTargetMachineRef tm) {
  TargetOptions &O = machine(tm)->Options;
  O.FunctionSections = true;
  O.DataSections = true;
  O.UniqueSectionNames = true;
  O.TrapUnreachable = true;
  O.NoTrapAfterNoreturn = false;
  O.BBAddrMap = true;
  O.UseInitArray = true;
  O.EnableMachineOutliner = false;
  O.EmitAddrsig = false;
}

void isam_clear_module_flags(LLVMModuleRef module) {
  if (auto *Flags = unwrap(module)->getModuleFlagsMetadata())
    Flags->eraseFromParent();
}
}
