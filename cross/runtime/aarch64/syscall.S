// The system-call stub. Each part starts at the same offset on both ISAs (the alignments), so that portable code
// may take its address and a symbol table comparison finds nothing.
#include "../record.h"

	.section .text.isam.stub.syscall,"ax",@progbits
	.p2align 7

// long __isam_syscall(long n, long a, long b, long c, long d, long e, long f)
	.globl __isam_syscall
	.type __isam_syscall,@function
__isam_syscall:
	.cfi_startproc
	sub sp, sp, #REC_LEN
	.cfi_def_cfa_offset REC_LEN
	stp x29, x30, [sp, #REC_SAVED_FP]
	.cfi_offset x29, -16
	.cfi_offset x30, -8
	stp x0, x1, [sp, #REC_NR]
	stp x2, x3, [sp, #REC_ARGS+8]
	stp x4, x5, [sp, #REC_ARGS+24]
	str x6, [sp, #REC_ARGS+40]
	mov x0, #0
	b .Lenter
	.cfi_endproc
	.size __isam_syscall, .-__isam_syscall

// long __isam_syscall_cp(volatile int *cancel, long n, long a, long b, long c, long d, long e, long f)
	.p2align 7
	.globl __isam_syscall_cp
	.type __isam_syscall_cp,@function
__isam_syscall_cp:
	.cfi_startproc
	sub sp, sp, #REC_LEN
	.cfi_def_cfa_offset REC_LEN
	stp x29, x30, [sp, #REC_SAVED_FP]
	.cfi_offset x29, -16
	.cfi_offset x30, -8
	stp x1, x2, [sp, #REC_NR]
	stp x3, x4, [sp, #REC_ARGS+8]
	stp x5, x6, [sp, #REC_ARGS+24]
	str x7, [sp, #REC_ARGS+40]
	b .Lenter
	.cfi_endproc
	.size __isam_syscall_cp, .-__isam_syscall_cp

// void __isam_safepoint(void): gettid, so that a taken poll has the same top frame as any other system call
	.p2align 7
	.globl __isam_safepoint
	.type __isam_safepoint,@function
__isam_safepoint:
	.cfi_startproc
	sub sp, sp, #REC_LEN
	.cfi_def_cfa_offset REC_LEN
	stp x29, x30, [sp, #REC_SAVED_FP]
	.cfi_offset x29, -16
	.cfi_offset x30, -8
	mov x0, #178
	stp x0, xzr, [sp, #REC_NR]
	stp xzr, xzr, [sp, #REC_ARGS+8]
	stp xzr, xzr, [sp, #REC_ARGS+24]
	str xzr, [sp, #REC_ARGS+40]
	mov x0, #0
	b .Lenter
	.cfi_endproc
	.size __isam_safepoint, .-__isam_safepoint

// The common part. x0: the cancel pointer.
	.p2align 7
	.type __isam_syscall_common,@function
__isam_syscall_common:
	.cfi_startproc
	.cfi_def_cfa sp, REC_LEN
	.cfi_offset x29, -16
	.cfi_offset x30, -8
.Lenter:
	str x0, [sp, #REC_CANCEL]
	mov x1, #-1
	stp x1, xzr, [sp, #REC_DEADLINE] // and the flags
	.p2align 7
// Re-entry of a restored or translated thread: sp at the record, callee-saved registers as the caller left them (but
// x29, which is remade), everything else dead.
	.globl __isam_syscall_restart
__isam_syscall_restart:
	add x29, sp, #REC_SAVED_FP
.Lgate_check:
	ldr x1, [sp, #REC_FLAGS]
	tbnz x1, #1, .Lgate // FLAG_GATE
	mov x0, sp
	bl __isam_prep
	cbnz x0, .Lanswered
	ldp x0, x1, [sp, #REC_NATIVE]
	ldp x2, x3, [sp, #REC_NATIVE+16]
	ldp x4, x5, [sp, #REC_NATIVE+32]
	.p2align 7
// From here up to the instruction a cancellation still wins (see __isam_cancel_window).
	.globl __isam_cp_begin
__isam_cp_begin:
	ldr x9, [sp, #REC_CANCEL]
	cbz x9, 1f
	ldr w9, [x9]
	cbnz w9, .Lcancelled
1:	ldr x8, [sp, #REC_NATIVE_NR]
	.p2align 6
	.globl __isam_syscall_insn
__isam_syscall_insn:
	svc #0
	ldr x1, [sp, #REC_POST]
	cbnz x1, .Lpost
.Lreturn:
	ldp x29, x30, [sp, #REC_SAVED_FP]
	add sp, sp, #REC_LEN
	.cfi_remember_state
	.cfi_def_cfa_offset 0
	.cfi_restore x29
	.cfi_restore x30
	ret
	.cfi_restore_state
.Lpost:
	mov x1, x0
	mov x0, sp
	bl __isam_post
	b .Lreturn
.Lanswered:
	ldr x0, [sp, #REC_NATIVE]
	b .Lreturn

	.p2align 6
.Lgate:
	add x0, sp, #REC_FLAGS
	mov x2, x1
	mov x1, #0 // FUTEX_WAIT
	mov x3, #0
	mov x4, #0
	mov x5, #0
	mov x8, #98
	.p2align 6
	.globl __isam_gate_insn
__isam_gate_insn:
	svc #0
	b .Lgate_check

	.p2align 6
	.globl __isam_cp_cancel
__isam_cp_cancel:
.Lcancelled:
	ldp x29, x30, [sp, #REC_SAVED_FP]
	add sp, sp, #REC_LEN
	.cfi_def_cfa_offset 0
	.cfi_restore x29
	.cfi_restore x30
	b __isam_cancel // in the caller's place; only reached when libc's cancellation is linked
	.weak __isam_cancel
	.cfi_endproc
	.size __isam_syscall_common, .-__isam_syscall_common

	.section .text.isam.stub.restore_rt,"ax",@progbits
	.p2align 6
	// One system call, then rt_sigreturn: a tracer sends a thread here for a call of its own, and should it die
	// meanwhile, the thread comes back by itself (docs/architecture.md, 4.4).
	.fill 15, 4, 0
	svc #0
	.globl __isam_restore_rt
	.type __isam_restore_rt,@function
__isam_restore_rt:
	mov x8, #139 // rt_sigreturn
	svc #0
	udf #0
	.size __isam_restore_rt, .-__isam_restore_rt

	.section .note.GNU-stack,"",@progbits
