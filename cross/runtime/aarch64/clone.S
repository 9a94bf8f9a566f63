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
	mrs x9, tpidr_el0
	add x9, x9, #:tprel_hi12:__isam_psp
	add x9, x9, #:tprel_lo12_nc:__isam_psp
	ldr x10, [x9]
	and x1, x1, #-16
	stp x0, x3, [x1, #-16]!
	mov w0, w2
	mov x2, x4
	mov x3, x5
	mov x4, x6
	mov x8, #220
	svc #0
	cbz x0, 1f
	str x10, [x9]
	ret
1:	.cfi_undefined x30
	mov x29, #0
	mov x30, #0
	ldp x1, x0, [sp], #16
	blr x1
	.globl __isam_root_ret1
__isam_root_ret1:
	mov x8, #93
	svc #0
	udf #0
	.cfi_endproc
	.size __isam_clone, .-__isam_clone

// void __isam_unmapself(void *base, size_t len): unmap the stack under the thread's feet and end it
	.section .text.isam.stub.unmapself,"ax",@progbits
	.p2align 6
	.globl __isam_unmapself
	.type __isam_unmapself,@function
__isam_unmapself:
	mov x8, #215
	svc #0
	mov x0, #0
	mov x8, #93
	svc #0
	udf #0
	.size __isam_unmapself, .-__isam_unmapself

	.section .note.GNU-stack,"",@progbits
