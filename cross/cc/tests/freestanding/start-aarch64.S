// A program's own start and system calls, each function in a section of its own (docs/architecture.md §4.1).
	.section .text.isam.stub.start,"ax",@progbits
	.globl __isam_start
	.type __isam_start,@function
__isam_start:
	mov x29, xzr
	bl main
	mov x8, #94 // exit_group
	svc #0
	.size __isam_start, .-__isam_start

	.section .text.isam.stub.print,"ax",@progbits
	.globl print
	.type print,@function
print:
	mov x2, x1
	mov x1, x0
	mov x0, #1
	mov x8, #64 // write
	svc #0
	ret
	.size print, .-print

	.section .isamorph.manifest,"a",@progbits
	.globl __isam_manifest
__isam_manifest:
	.ascii "ISAMPAIR"
	.long 1, 183
	.skip 304

	// What code generation expects of the runtime.
	.section .text.isam.stub.safepoint,"ax",@progbits
	.globl __isam_safepoint
	.type __isam_safepoint,@function
__isam_safepoint:
	ret
	.size __isam_safepoint, .-__isam_safepoint

	.section .note.GNU-stack,"",@progbits
