// ELF entry. Native C finds out where things are and makes the main thread's TLS block and portable stack before any
// portable code runs; the outermost C frame has a 16-byte aligned CFA, as on the other ISA.
	.section .text.isam.stub.start,"ax",@progbits
	.p2align 6
	.globl __isam_start
	.type __isam_start,@function
__isam_start:
	.cfi_startproc
	.cfi_undefined %rip
	xorl %ebp, %ebp
	movq %rsp, %rdi
	movq %rsp, %rbx
	andq $-16, %rsp
	callq __isam_start_prepare // where argc is (or will be, if the stack has to move)
	movq %rax, %rsp
	andq $-16, %rsp
	movq %rax, %rdi
	movq %rbx, %rsi
	movq %rax, %rbx
	callq __isam_start_finish
	callq __isam_start_psp
	movq %rbx, %rdi
	xorl %ebp, %ebp
	xorl %ebx, %ebx
	xorl %r12d, %r12d
	xorl %r13d, %r13d
	xorl %r14d, %r14d
	xorl %r15d, %r15d
	callq __isam_entry
	.globl __isam_root_ret0
__isam_root_ret0:
	hlt
	.cfi_endproc
	.size __isam_start, .-__isam_start

	.section .note.GNU-stack,"",@progbits
