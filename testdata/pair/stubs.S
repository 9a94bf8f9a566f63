// The stubs and the leaf of the test pairs, and the manifest. Not the runtime's: only what the verifier looks at.
        .section .text.isam.stub, "ax"
        .globl __isam_syscall, __isam_safepoint, __isam_restore_rt
        .type __isam_syscall, %function
        .type __isam_safepoint, %function
        .type __isam_restore_rt, %function
__isam_syscall:
#ifdef __x86_64__
        movq %rdi, %rax
        movq %rsi, %rdi
        syscall
        ret
#else
        mov x8, x0
        mov x0, x1
        svc #0
        ret
#endif
        .balign 32
__isam_safepoint:
        ret
        .balign 32
__isam_restore_rt:
        ret
        .balign 32
#ifdef JUMPS // pairs with setjmp
        .globl __isam_setjmp
        .type __isam_setjmp, %function
__isam_setjmp:
        ret
        .balign 32
#define SETJMP __isam_setjmp
#else
#define SETJMP 0
#endif

        .section .text.isam.leaf, "ax"
        .globl leaf
        .type leaf, %function
leaf:
#ifdef __x86_64__
        leaq 1(%rdi), %rax
        ret
#else
        add x0, x0, #1
        ret
#endif
        .balign 32

        .section .isamorph.manifest, "a"
        .balign 8
        .ascii "ISAMPAIR"
#ifdef __x86_64__
        .long 1, 62
#else
        .long 1, 183
#endif
        .quad stub_start, stub_end, leaf_start, leaf_end, text_start, text_end, native_start, native_end
        .quad __isam_syscall, __isam_syscall, __isam_syscall, 0, __isam_safepoint, __isam_restore_rt
        .quad 0, 0, 0, 0
        .quad polls_start, polls_end, bbmap_start, bbmap_end, stackmaps_start, stackmaps_end
        .quad eh_frame_start, eh_frame_end, 0, SETJMP, 0, 0
        .zero 64
