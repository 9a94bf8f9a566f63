// Non-local jumps (docs/architecture.md, 5). setjmp fills a jump cell of its caller's frame; the caller passes its address.
#include "../jump.h"

// int __isam_setjmp(jmp_buf, struct isam_cell *): returns again when longjmp jumps to the cell
	.section .text.isam.stub.setjmp,"ax",@progbits
	.p2align 6
	.globl __isam_setjmp
	.type __isam_setjmp,@function
__isam_setjmp:
	.cfi_startproc
	movabsq $JUMP_KEY, %rax
	xorq %rsi, %rax
	movq %fs:__isam_psp@tpoff, %rcx
	movq %rsi, JB_CELL(%rdi)
	movq %rcx, JB_PSP(%rdi)
	movq %rax, JB_KEY(%rdi)
	movq (%rsp), %rcx
	leaq 8(%rsp), %rdx
	movq %rcx, CELL_RETURN(%rsi)
	movq %rdx, CELL_SP(%rsi)
	movq %rbx, CELL_REGISTERS(%rsi)
	movq %rbp, CELL_REGISTERS+8(%rsi)
	movq %r12, CELL_REGISTERS+16(%rsi)
	movq %r13, CELL_REGISTERS+24(%rsi)
	movq %r14, CELL_REGISTERS+32(%rsi)
	movq %r15, CELL_REGISTERS+40(%rsi)
	movq %rax, CELL_KEY(%rsi) // last: from now on the cell counts
	xorl %eax, %eax
	retq
	.cfi_endproc
	.size __isam_setjmp, .-__isam_setjmp

// void __isam_longjmp(const struct isam_cell *, int value, void *psp): does not return
	.section .text.isam.stub.longjmp,"ax",@progbits
	.p2align 6
	.globl __isam_longjmp
	.type __isam_longjmp,@function
__isam_longjmp:
	.cfi_startproc
	movl %esi, %eax
	movq CELL_REGISTERS(%rdi), %rbx
	movq CELL_REGISTERS+8(%rdi), %rbp
	movq CELL_REGISTERS+16(%rdi), %r12
	movq CELL_REGISTERS+24(%rdi), %r13
	movq CELL_REGISTERS+32(%rdi), %r14
	movq CELL_REGISTERS+40(%rdi), %r15
	movq CELL_RETURN(%rdi), %rcx
	movq CELL_SP(%rdi), %rsp
	movq %rdx, %fs:__isam_psp@tpoff // not before sp: a handler in between finds both stacks free below
	jmpq *%rcx
	.cfi_endproc
	.size __isam_longjmp, .-__isam_longjmp

	.section .note.GNU-stack,"",@progbits
