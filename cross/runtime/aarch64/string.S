// memcpy, memmove, memset, memcmp, bcmp: leaves, so a thread never stops inside. Armv8.0-A.
	.arch_extension simd // also where C is compiled with -mgeneral-regs-only

	.section .text.isam.leaf.memmove,"ax",@progbits
	.p2align 6
	.globl memcpy
	.globl memmove
	.type memcpy,@function
	.type memmove,@function
memcpy:
memmove:
	.cfi_startproc
	cmp x2, #16
	b.lo .Lmove_small
	add x4, x1, x2 // end of the source
	add x5, x0, x2 // end of the destination
	cmp x2, #32
	b.hi .Lmove_more
	ldr q0, [x1]
	ldr q1, [x4, #-16]
	str q0, [x0]
	str q1, [x5, #-16]
	ret
.Lmove_small:
	add x4, x1, x2
	add x5, x0, x2
	tbz x2, #3, 1f
	ldr x6, [x1]
	ldr x7, [x4, #-8]
	str x6, [x0]
	str x7, [x5, #-8]
	ret
1:	tbz x2, #2, 2f
	ldr w6, [x1]
	ldr w7, [x4, #-4]
	str w6, [x0]
	str w7, [x5, #-4]
	ret
2:	cbz x2, 3f
	lsr x3, x2, #1 // first, middle, last: all bytes of 1 to 3
	ldrb w6, [x1]
	ldrb w7, [x4, #-1]
	ldrb w8, [x1, x3]
	strb w6, [x0]
	strb w8, [x0, x3]
	strb w7, [x5, #-1]
3:	ret
.Lmove_more:
	cmp x2, #64
	b.hi .Lmove_loop
	ldp q0, q1, [x1]
	ldp q2, q3, [x4, #-32]
	stp q0, q1, [x0]
	stp q2, q3, [x5, #-32]
	ret
.Lmove_loop:
	sub x3, x0, x1
	cmp x3, x2
	b.lo .Lmove_backward // source < destination < source + n
	// forward, 64 bytes at a time to an aligned destination; the first 16 and last 64 bytes may be written twice
	ldr q4, [x1]
	ldp q16, q17, [x4, #-64]
	ldp q18, q19, [x4, #-32]
	add x6, x0, #16
	and x6, x6, #-16
	sub x3, x6, x0
	add x1, x1, x3
	sub x7, x5, #64
4:	cmp x6, x7
	b.hs 5f
	ldp q0, q1, [x1]
	ldp q2, q3, [x1, #32]
	stp q0, q1, [x6]
	stp q2, q3, [x6, #32]
	add x1, x1, #64
	add x6, x6, #64
	b 4b
5:	str q4, [x0]
	stp q16, q17, [x5, #-64]
	stp q18, q19, [x5, #-32]
	ret
.Lmove_backward:
	ldp q16, q17, [x1]
	ldp q18, q19, [x1, #32]
	add x7, x0, #64
6:	cmp x5, x7
	b.ls 7f
	ldp q0, q1, [x4, #-32]
	ldp q2, q3, [x4, #-64]
	stp q0, q1, [x5, #-32]
	stp q2, q3, [x5, #-64]
	sub x4, x4, #64
	sub x5, x5, #64
	b 6b
7:	stp q16, q17, [x0]
	stp q18, q19, [x0, #32]
	ret
	.cfi_endproc
	.size memmove, .-memmove
	.size memcpy, .-memcpy

	.section .text.isam.leaf.memset,"ax",@progbits
	.p2align 6
	.globl memset
	.type memset,@function
memset:
	.cfi_startproc
	dup v0.16b, w1
	add x4, x0, x2
	cmp x2, #16
	b.lo 1f
	str q0, [x0]
	str q0, [x4, #-16]
	cmp x2, #32
	b.ls 4f
	str q0, [x0, #16]
	str q0, [x4, #-32]
	cmp x2, #64
	b.ls 4f
	sub x5, x4, #32 // the last 32 bytes are done
	add x6, x0, #32
	and x6, x6, #-16
3:	stp q0, q0, [x6], #32
	cmp x6, x5
	b.lo 3b
	// the loop may run past -32 by at most 31 bytes, into what is done: still inside
4:	ret
1:	tbz x2, #3, 2f
	str d0, [x0]
	str d0, [x4, #-8]
	ret
2:	tbz x2, #2, 6f
	str s0, [x0]
	str s0, [x4, #-4]
	ret
6:	cbz x2, 7f
	lsr x3, x2, #1
	strb w1, [x0]
	strb w1, [x0, x3]
	strb w1, [x4, #-1]
7:	ret
	.cfi_endproc
	.size memset, .-memset

	// The difference of the first two bytes that differ, the same number on both ISAs.
	.section .text.isam.leaf.memcmp,"ax",@progbits
	.p2align 6
	.globl memcmp
	.globl bcmp // what LLVM makes of a memcmp that is only compared with 0
	.type memcmp,@function
	.type bcmp,@function
memcmp:
bcmp:
	.cfi_startproc
	cmp x2, #8
	b.lo 3f
	sub x3, x2, #8
	mov x4, #0
1:	ldr x5, [x0, x4]
	ldr x6, [x1, x4]
	cmp x5, x6
	b.ne 2f
	cmp x4, x3
	b.hs 5f
	add x4, x4, #8
	cmp x4, x3
	csel x4, x3, x4, hi // the last 8 bytes, some of them again
	b 1b
2:	eor x7, x5, x6
	rev x7, x7
	clz x7, x7
	bic x7, x7, #7 // bit number of the first byte that differs
	lsr x5, x5, x7
	lsr x6, x6, x7
	and w5, w5, #0xff
	and w6, w6, #0xff
	sub w0, w5, w6
	ret
3:	cbz x2, 5f
	ldrb w5, [x0], #1
	ldrb w6, [x1], #1
	sub x2, x2, #1
	subs w7, w5, w6
	b.eq 3b
	mov w0, w7
	ret
5:	mov w0, #0
	ret
	.cfi_endproc
	.size memcmp, .-memcmp
	.size bcmp, .-bcmp

	.section .note.GNU-stack,"",@progbits
