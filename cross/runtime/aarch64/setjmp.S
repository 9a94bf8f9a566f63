// Non-local jumps (docs/architecture.md, 5). setjmp fills a jump cell of its caller's frame; the caller passes its address.
#include "../jump.h"
	.arch_extension fp // also where C is compiled with -mgeneral-regs-only

// int __isam_setjmp(jmp_buf, struct isam_cell *): returns again when longjmp jumps to the cell
	.section .text.isam.stub.setjmp,"ax",@progbits
	.p2align 6
	.globl __isam_setjmp
	.type __isam_setjmp,@function
__isam_setjmp:
	.cfi_startproc
	mov x2, #(JUMP_KEY & 0xffff)
	movk x2, #(JUMP_KEY >> 16 & 0xffff), lsl #16
	movk x2, #(JUMP_KEY >> 32 & 0xffff), lsl #32
	movk x2, #(JUMP_KEY >> 48), lsl #48
	eor x2, x2, x1
	mrs x3, tpidr_el0
	add x3, x3, #:tprel_hi12:__isam_psp
	add x3, x3, #:tprel_lo12_nc:__isam_psp
	ldr x3, [x3]
	stp x1, x3, [x0, #JB_CELL]
	str x2, [x0, #JB_KEY]
	mov x3, sp
	stp x30, x3, [x1, #CELL_RETURN]
	stp x19, x20, [x1, #CELL_REGISTERS]
	stp x21, x22, [x1, #CELL_REGISTERS+16]
	stp x23, x24, [x1, #CELL_REGISTERS+32]
	stp x25, x26, [x1, #CELL_REGISTERS+48]
	stp x27, x28, [x1, #CELL_REGISTERS+64]
	str x29, [x1, #CELL_REGISTERS+80]
	stp d8, d9, [x1, #CELL_REGISTERS+88]
	stp d10, d11, [x1, #CELL_REGISTERS+104]
	stp d12, d13, [x1, #CELL_REGISTERS+120]
	stp d14, d15, [x1, #CELL_REGISTERS+136]
	str x2, [x1, #CELL_KEY] // last: from now on the cell counts
	mov x0, #0
	ret
	.cfi_endproc
	.size __isam_setjmp, .-__isam_setjmp

// void __isam_longjmp(const struct isam_cell *, int value, void *psp): does not return
	.section .text.isam.stub.longjmp,"ax",@progbits
	.p2align 6
	.globl __isam_longjmp
	.type __isam_longjmp,@function
__isam_longjmp:
	.cfi_startproc
	ldp x30, x3, [x0, #CELL_RETURN]
	ldp x19, x20, [x0, #CELL_REGISTERS]
	ldp x21, x22, [x0, #CELL_REGISTERS+16]
	ldp x23, x24, [x0, #CELL_REGISTERS+32]
	ldp x25, x26, [x0, #CELL_REGISTERS+48]
	ldp x27, x28, [x0, #CELL_REGISTERS+64]
	ldr x29, [x0, #CELL_REGISTERS+80]
	ldp d8, d9, [x0, #CELL_REGISTERS+88]
	ldp d10, d11, [x0, #CELL_REGISTERS+104]
	ldp d12, d13, [x0, #CELL_REGISTERS+120]
	ldp d14, d15, [x0, #CELL_REGISTERS+136]
	mrs x4, tpidr_el0
	add x4, x4, #:tprel_hi12:__isam_psp
	add x4, x4, #:tprel_lo12_nc:__isam_psp
	mov w0, w1
	mov sp, x3
	str x2, [x4] // not before sp: a handler in between finds both stacks free below
	ret
	.cfi_endproc
	.size __isam_longjmp, .-__isam_longjmp

	.section .note.GNU-stack,"",@progbits
