// ELF entry. Native C finds out where things are and makes the main thread's TLS block and portable stack before any
// portable code runs; the outermost C frame has a 16-byte aligned CFA, as on the other ISA.
	.section .text.isam.stub.start,"ax",@progbits
	.p2align 6
	.globl __isam_start
	.type __isam_start,@function
__isam_start:
	.cfi_startproc
	.cfi_undefined x30
	mov x29, #0
	mov x30, #0
	mov x0, sp
	mov x20, sp
	bl __isam_start_prepare // where argc is (or will be, if the stack has to move)
	mov x19, x0
	and x1, x0, #-16
	mov sp, x1
	mov x1, x20
	bl __isam_start_finish
	bl __isam_start_psp
	mov x0, x19
	mov x19, #0
	mov x20, #0
	bl __isam_entry
	.globl __isam_root_ret0
__isam_root_ret0:
	udf #0
	.cfi_endproc
	.size __isam_start, .-__isam_start

	.section .note.GNU-stack,"",@progbits
