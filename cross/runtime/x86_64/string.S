// memcpy, memmove, memset, memcmp, bcmp: leaves, so a thread never stops inside. SSE2 only.

	.section .text.isam.leaf.memmove,"ax",@progbits
	.p2align 6
	.globl memcpy
	.globl memmove
	.type memcpy,@function
	.type memmove,@function
memcpy:
memmove:
	.cfi_startproc
	movq %rdi, %rax
	cmpq $16, %rdx
	jb .Lmove_small
	cmpq $32, %rdx
	ja .Lmove_more
	movups (%rsi), %xmm0
	movups -16(%rsi,%rdx), %xmm1
	movups %xmm0, (%rdi)
	movups %xmm1, -16(%rdi,%rdx)
	retq
.Lmove_small:
	cmpl $8, %edx
	jb 1f
	movq (%rsi), %rcx
	movq -8(%rsi,%rdx), %r8
	movq %rcx, (%rdi)
	movq %r8, -8(%rdi,%rdx)
	retq
1:	cmpl $4, %edx
	jb 2f
	movl (%rsi), %ecx
	movl -4(%rsi,%rdx), %r8d
	movl %ecx, (%rdi)
	movl %r8d, -4(%rdi,%rdx)
	retq
2:	testl %edx, %edx
	jz 3f
	movzbl (%rsi), %ecx // first, middle, last: all bytes of 1 to 3
	movzbl -1(%rsi,%rdx), %r8d
	leaq -1(%rdi,%rdx), %r10
	shrl $1, %edx
	movzbl (%rsi,%rdx), %r9d
	movb %cl, (%rdi)
	movb %r9b, (%rdi,%rdx)
	movb %r8b, (%r10)
3:	retq
.Lmove_more:
	movups (%rsi), %xmm4
	movups -16(%rsi,%rdx), %xmm5
	cmpq $64, %rdx
	ja .Lmove_loop
	movups 16(%rsi), %xmm0
	movups -32(%rsi,%rdx), %xmm1
	movups %xmm0, 16(%rdi)
	movups %xmm1, -32(%rdi,%rdx)
	movups %xmm4, (%rdi)
	movups %xmm5, -16(%rdi,%rdx)
	retq
.Lmove_loop:
	leaq (%rdi,%rdx), %r8 // end of the destination
	movq %rdi, %rcx
	subq %rsi, %rcx
	cmpq %rdx, %rcx
	jb .Lmove_backward // source < destination < source + n
	cmpq $2048, %rdx
	jae .Lmove_string
	// forward, 64 bytes at a time to an aligned destination; the first 16 and last 64 bytes may be written twice
	movups -32(%rsi,%rdx), %xmm6
	movups -48(%rsi,%rdx), %xmm7
	movups -64(%rsi,%rdx), %xmm8
	subq %rdi, %rsi
	leaq 16(%rdi), %rdx
	andq $-16, %rdx
	leaq -64(%r8), %r9
4:	cmpq %r9, %rdx
	jae 5f
	movups (%rsi,%rdx), %xmm0
	movups 16(%rsi,%rdx), %xmm1
	movups 32(%rsi,%rdx), %xmm2
	movups 48(%rsi,%rdx), %xmm3
	movaps %xmm0, (%rdx)
	movaps %xmm1, 16(%rdx)
	movaps %xmm2, 32(%rdx)
	movaps %xmm3, 48(%rdx)
	addq $64, %rdx
	jmp 4b
5:	movups %xmm4, (%rdi)
	movups %xmm8, -64(%r8)
	movups %xmm7, -48(%r8)
	movups %xmm6, -32(%r8)
	movups %xmm5, -16(%r8)
	retq
.Lmove_string:
	// rep movsb is quick on everything with ERMS (2013 on), and right everywhere
	movq %rdx, %rcx
	rep movsb
	retq
.Lmove_backward:
	movups 16(%rsi), %xmm6
	movups 32(%rsi), %xmm7
	movups 48(%rsi), %xmm8
	subq %rdi, %rsi
	leaq 64(%rdi), %r9
	movq %r8, %rdx
6:	cmpq %r9, %rdx
	jbe 7f
	movups -16(%rsi,%rdx), %xmm0
	movups -32(%rsi,%rdx), %xmm1
	movups -48(%rsi,%rdx), %xmm2
	movups -64(%rsi,%rdx), %xmm3
	movups %xmm0, -16(%rdx)
	movups %xmm1, -32(%rdx)
	movups %xmm2, -48(%rdx)
	movups %xmm3, -64(%rdx)
	subq $64, %rdx
	jmp 6b
7:	movups %xmm4, (%rdi)
	movups %xmm6, 16(%rdi)
	movups %xmm7, 32(%rdi)
	movups %xmm8, 48(%rdi)
	retq
	.cfi_endproc
	.size memmove, .-memmove
	.size memcpy, .-memcpy

	.section .text.isam.leaf.memset,"ax",@progbits
	.p2align 6
	.globl memset
	.type memset,@function
memset:
	.cfi_startproc
	movq %rdi, %rax
	movzbl %sil, %ecx
	movabsq $0x0101010101010101, %r8
	imulq %r8, %rcx
	cmpq $16, %rdx
	jb 1f
	movq %rcx, %xmm0
	punpcklqdq %xmm0, %xmm0
	movups %xmm0, (%rdi)
	movups %xmm0, -16(%rdi,%rdx)
	cmpq $32, %rdx
	jbe 4f
	movups %xmm0, 16(%rdi)
	movups %xmm0, -32(%rdi,%rdx)
	cmpq $64, %rdx
	jbe 4f
	cmpq $2048, %rdx
	jae 5f
	leaq -32(%rdi,%rdx), %r8 // the last 32 bytes are done
	leaq 32(%rdi), %rdi
	andq $-16, %rdi
3:	movaps %xmm0, (%rdi)
	movaps %xmm0, 16(%rdi)
	addq $32, %rdi
	cmpq %r8, %rdi
	jb 3b
	// the loop may run past -32 by at most 31 bytes, into what is done: still inside
4:	retq
5:	movq %rax, %r9
	movq %rcx, %rax
	movq %rdx, %rcx
	rep stosb
	movq %r9, %rax
	retq
1:	cmpl $8, %edx
	jb 2f
	movq %rcx, (%rdi)
	movq %rcx, -8(%rdi,%rdx)
	retq
2:	cmpl $4, %edx
	jb 6f
	movl %ecx, (%rdi)
	movl %ecx, -4(%rdi,%rdx)
	retq
6:	testl %edx, %edx
	jz 7f
	movb %cl, (%rdi)
	movb %cl, -1(%rdi,%rdx)
	shrl $1, %edx
	movb %cl, (%rdi,%rdx)
7:	retq
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
	xorl %ecx, %ecx
	cmpq $16, %rdx
	jb 3f
	leaq -16(%rdx), %r8
1:	movups (%rdi,%rcx), %xmm0
	movups (%rsi,%rcx), %xmm1
	pcmpeqb %xmm1, %xmm0
	pmovmskb %xmm0, %eax
	subl $0xffff, %eax
	jnz 2f
	cmpq %r8, %rcx
	jae 5f
	addq $16, %rcx
	cmpq %r8, %rcx
	cmovaq %r8, %rcx // the last 16 bytes, some of them again
	jmp 1b
2:	addl $0xffff, %eax
	notl %eax
	bsfl %eax, %eax
	addq %rax, %rcx
	movzbl (%rdi,%rcx), %eax
	movzbl (%rsi,%rcx), %edx
	subl %edx, %eax
	retq
3:	cmpq %rdx, %rcx
	jae 5f
	movzbl (%rdi,%rcx), %eax
	movzbl (%rsi,%rcx), %r8d
	incq %rcx
	subl %r8d, %eax
	jz 3b
	retq
5:	xorl %eax, %eax
	retq
	.cfi_endproc
	.size memcmp, .-memcmp
	.size bcmp, .-bcmp

	.section .note.GNU-stack,"",@progbits
