// A program's own start and system calls, each function in a section of its own (docs/architecture.md §4.1).
	.section .text.isam.stub.start,"ax",@progbits
	.globl __isam_start
	.type __isam_start,@function
__isam_start:
	xorl %ebp, %ebp
	callq main
	movl %eax, %edi
	movl $231, %eax // exit_group
	syscall
	.size __isam_start, .-__isam_start

	.section .text.isam.stub.print,"ax",@progbits
	.globl print
	.type print,@function
print:
	movq %rsi, %rdx
	movq %rdi, %rsi
	movl $1, %edi
	movl $1, %eax // write
	syscall
	retq
	.size print, .-print

	.section .isamorph.manifest,"a",@progbits
	.globl __isam_manifest
__isam_manifest:
	.ascii "ISAMPAIR"
	.long 1, 62
	.skip 304

	// What code generation expects of the runtime.
	.section .text.isam.stub.safepoint,"ax",@progbits
	.globl __isam_safepoint
	.type __isam_safepoint,@function
__isam_safepoint:
	retq
	.size __isam_safepoint, .-__isam_safepoint

	.section .note.GNU-stack,"",@progbits
