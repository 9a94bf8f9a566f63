// int __isam_clone(int (*fn)(void *), void *stack, int flags, void *arg, int *ptid, void *tls, int *ctid)
//
// tls is neutral: what tpidr_el0 would be (the end of struct pthread). Returns -errno. The child's outermost frame returns
// to __isam_root_ret1. A child that shares the parent's TLS (posix_spawn's) leaves its portable stack pointer behind, so
// the parent restores its own.
	.section .text.isam.stub.clone,"ax",@progbits
	.p2align 6
	.globl __isam_clone
	.type __isam_clone,@function
__isam_clone:
	.cfi_startproc
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	.cfi_def_cfa_register %rbp
	pushq %rbx
	.cfi_offset %rbx, -24
	movq %fs:__isam_psp@tpoff, %rbx
	andq $-16, %rsi
	movq %rcx, -8(%rsi)
	movq %rdi, -16(%rsi)
	subq $16, %rsi
	movl %edx, %edi
	movq %r8, %rdx
	movq 16(%rbp), %r10
	movq %r9, %r8
	addq __isam_tls+40(%rip), %r8 // span
	movl $56, %eax
	syscall
	testl %eax, %eax
	jz 1f
	movq %rbx, %fs:__isam_psp@tpoff
	popq %rbx
	popq %rbp
	.cfi_remember_state
	.cfi_def_cfa %rsp, 8
	retq
1:	.cfi_restore_state
	.cfi_undefined %rip
	xorl %ebp, %ebp
	xorl %ebx, %ebx
	popq %rax
	popq %rdi
	callq *%rax
	.globl __isam_root_ret1
__isam_root_ret1:
	movl %eax, %edi
	movl $60, %eax
	syscall
	hlt
	.cfi_endproc
	.size __isam_clone, .-__isam_clone

// void __isam_unmapself(void *base, size_t len): unmap the stack under the thread's feet and end it
	.section .text.isam.stub.unmapself,"ax",@progbits
	.p2align 6
	.globl __isam_unmapself
	.type __isam_unmapself,@function
__isam_unmapself:
	movl $11, %eax
	syscall
	xorl %edi, %edi
	movl $60, %eax
	syscall
	hlt
	.size __isam_unmapself, .-__isam_unmapself

	.section .note.GNU-stack,"",@progbits
