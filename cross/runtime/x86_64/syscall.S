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
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	subq $REC_SAVED_FP, %rsp
	.cfi_def_cfa_offset REC_LEN
	movq %rdi, REC_NR(%rsp)
	movq %rsi, REC_ARGS(%rsp)
	movq %rdx, REC_ARGS+8(%rsp)
	movq %rcx, REC_ARGS+16(%rsp)
	movq %r8, REC_ARGS+24(%rsp)
	movq %r9, REC_ARGS+32(%rsp)
	movq 16(%rbp), %rax
	movq %rax, REC_ARGS+40(%rsp)
	xorl %eax, %eax
	jmp .Lenter
	.cfi_endproc
	.size __isam_syscall, .-__isam_syscall

// long __isam_syscall_cp(volatile int *cancel, long n, long a, long b, long c, long d, long e, long f)
	.p2align 7
	.globl __isam_syscall_cp
	.type __isam_syscall_cp,@function
__isam_syscall_cp:
	.cfi_startproc
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	subq $REC_SAVED_FP, %rsp
	.cfi_def_cfa_offset REC_LEN
	movq %rsi, REC_NR(%rsp)
	movq %rdx, REC_ARGS(%rsp)
	movq %rcx, REC_ARGS+8(%rsp)
	movq %r8, REC_ARGS+16(%rsp)
	movq %r9, REC_ARGS+24(%rsp)
	movq 16(%rbp), %rax
	movq %rax, REC_ARGS+32(%rsp)
	movq 24(%rbp), %rax
	movq %rax, REC_ARGS+40(%rsp)
	movq %rdi, %rax
	jmp .Lenter
	.cfi_endproc
	.size __isam_syscall_cp, .-__isam_syscall_cp

// void __isam_safepoint(void): gettid, so that a taken poll has the same top frame as any other system call
	.p2align 7
	.globl __isam_safepoint
	.type __isam_safepoint,@function
__isam_safepoint:
	.cfi_startproc
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	subq $REC_SAVED_FP, %rsp
	.cfi_def_cfa_offset REC_LEN
	xorl %eax, %eax
	movq $178, REC_NR(%rsp)
	movq %rax, REC_ARGS(%rsp)
	movq %rax, REC_ARGS+8(%rsp)
	movq %rax, REC_ARGS+16(%rsp)
	movq %rax, REC_ARGS+24(%rsp)
	movq %rax, REC_ARGS+32(%rsp)
	movq %rax, REC_ARGS+40(%rsp)
	jmp .Lenter
	.cfi_endproc
	.size __isam_safepoint, .-__isam_safepoint

// The common part. rax: the cancel pointer.
	.p2align 7
	.type __isam_syscall_common,@function
__isam_syscall_common:
	.cfi_startproc
	.cfi_def_cfa %rsp, REC_LEN
	.cfi_offset %rbp, -16
.Lenter:
	movq %rax, REC_CANCEL(%rsp)
	movq $-1, REC_DEADLINE(%rsp)
	movq $0, REC_FLAGS(%rsp)
	.p2align 7
// Re-entry of a restored or translated thread: sp at the record, callee-saved registers as the caller left them (but
// rbp, which is remade), everything else dead.
	.globl __isam_syscall_restart
__isam_syscall_restart:
	leaq REC_SAVED_FP(%rsp), %rbp
.Lgate_check:
	testb $FLAG_GATE, REC_FLAGS(%rsp)
	jnz .Lgate
	movq %rsp, %rdi
	callq __isam_prep
	testq %rax, %rax
	jnz .Lanswered
	movq REC_NATIVE(%rsp), %rdi
	movq REC_NATIVE+8(%rsp), %rsi
	movq REC_NATIVE+16(%rsp), %rdx
	movq REC_NATIVE+24(%rsp), %r10
	movq REC_NATIVE+32(%rsp), %r8
	movq REC_NATIVE+40(%rsp), %r9
	.p2align 7
// From here up to the instruction a cancellation still wins (see __isam_cancel_window).
	.globl __isam_cp_begin
__isam_cp_begin:
	movq REC_CANCEL(%rsp), %rax
	testq %rax, %rax
	jz 1f
	cmpl $0, (%rax)
	jnz .Lcancelled
1:	movq REC_NATIVE_NR(%rsp), %rax
	.p2align 6
	.globl __isam_syscall_insn
__isam_syscall_insn:
	syscall
	cmpq $0, REC_POST(%rsp)
	jne .Lpost
.Lreturn:
	addq $REC_SAVED_FP, %rsp
	.cfi_remember_state
	.cfi_def_cfa_offset 16
	popq %rbp
	.cfi_def_cfa_offset 8
	.cfi_restore %rbp
	retq
	.cfi_restore_state
.Lpost:
	movq %rsp, %rdi
	movq %rax, %rsi
	callq __isam_post
	jmp .Lreturn
.Lanswered:
	movq REC_NATIVE(%rsp), %rax
	jmp .Lreturn

	.p2align 6
.Lgate:
	leaq REC_FLAGS(%rsp), %rdi
	xorl %esi, %esi // FUTEX_WAIT
	movl REC_FLAGS(%rsp), %edx
	xorl %r10d, %r10d
	xorl %r8d, %r8d
	xorl %r9d, %r9d
	movl $202, %eax
	.p2align 6
	.globl __isam_gate_insn
__isam_gate_insn:
	syscall
	jmp .Lgate_check

	.p2align 6
	.globl __isam_cp_cancel
__isam_cp_cancel:
.Lcancelled:
	addq $REC_SAVED_FP, %rsp
	.cfi_def_cfa_offset 16
	popq %rbp
	.cfi_def_cfa_offset 8
	.cfi_restore %rbp
	jmp __isam_cancel // in the caller's place; only reached when libc's cancellation is linked
	.weak __isam_cancel
	.cfi_endproc
	.size __isam_syscall_common, .-__isam_syscall_common

	.section .text.isam.stub.restore_rt,"ax",@progbits
	.p2align 6
	// One system call, then rt_sigreturn: a tracer sends a thread here for a call of its own, and should it die
	// meanwhile, the thread comes back by itself (docs/architecture.md, 4.4).
	.fill 62, 1, 0xcc
	syscall
	.globl __isam_restore_rt
	.type __isam_restore_rt,@function
__isam_restore_rt:
	movl $15, %eax // rt_sigreturn
	syscall
	hlt
	.size __isam_restore_rt, .-__isam_restore_rt

	.section .note.GNU-stack,"",@progbits
