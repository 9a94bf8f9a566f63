// The record in the system-call stub's frame; drawn in arch/src/syscall_record.rs, which this file repeats for
// the assembler and for the native leaves.
#ifndef ISAM_RECORD_H
#define ISAM_RECORD_H

#define REC_NR 0
#define REC_ARGS 8
#define REC_DEADLINE 56
#define REC_FLAGS 64
#define REC_CANCEL 72
#define REC_NATIVE_NR 80
#define REC_NATIVE 88
#define REC_POST 136 // first word of the scratch: which post-conversion the call needs, 0 for none
#define REC_SAVED_FP 336
#define REC_RETURN 344
#define REC_LEN 352

#define FLAG_RESUMED 1
#define FLAG_GATE 2

// Everything that a portable process maps lies below, because that is all an x86_64 process can have.
#define ISAM_VA_LIMIT 0x800000000000

#ifndef __ASSEMBLER__
typedef unsigned long u64;
typedef long i64;
typedef unsigned int u32;
typedef int i32;

struct isam_record {
	u64 nr, args[6];
	i64 deadline; // CLOCK_MONOTONIC ns, -1 for none
	u64 flags;
	volatile int *cancel;
	u64 native_nr, native[6];
	u64 post;
	u64 buf[24]; // native copies of structures
	u64 saved_fp, ret;
};

_Static_assert(__builtin_offsetof(struct isam_record, deadline) == REC_DEADLINE, "deadline");
_Static_assert(__builtin_offsetof(struct isam_record, flags) == REC_FLAGS, "flags");
_Static_assert(__builtin_offsetof(struct isam_record, cancel) == REC_CANCEL, "cancel");
_Static_assert(__builtin_offsetof(struct isam_record, native_nr) == REC_NATIVE_NR, "native_nr");
_Static_assert(__builtin_offsetof(struct isam_record, post) == REC_POST, "post");
_Static_assert(__builtin_offsetof(struct isam_record, saved_fp) == REC_SAVED_FP, "saved_fp");
_Static_assert(sizeof(struct isam_record) == REC_LEN, "length");

// Each function of the runtime has a section of its own, so that pairing can give it one address on both ISAs.
#define STUB(name) __attribute__((section(".text.isam.stub." #name), noinline, used))
#define INLINE static inline __attribute__((always_inline))

// What the start stub leaves for libc and for the clone stub: how a thread's TLS block is made. Defined in state.c,
// the same on both ISAs because the pair has one PT_TLS.
struct isam_tls {
	const void *image;
	u64 filesz, memsz, align;
	u64 block; // the main thread's TLS block
	u64 span;  // from tpidr_el0 to fs_base of one thread: align_up(16, align) + align_up(memsz, align)
	u64 low;   // address of the main thread's __isam_stack_low; 0 before libc has started
};
extern struct isam_tls __isam_tls;
// Where the next mapping without a fixed address ends (grows down); 0 before start.
extern u64 __isam_map_next;
extern _Thread_local void *__isam_psp;
// The lowest address that this thread's native stack may have, its guard not counted; 0: its mapping grows. A translation
// reads it, which may need more room than the frames have here.
extern _Thread_local void *__isam_stack_low;

// Room for libc's struct pthread in front of the main thread's TLS block (plus the gap of up to p_align).
#define ISAM_PTHREAD_ROOM 1024
// Zone of automatic mappings: below the kernel's own zone on x86_64, so that the two never meet.
#define ISAM_MAP_TOP 0x6fff00000000
#define ISAM_MAP_BOTTOM 0x100000000000
// Top of the main stack where the kernel's lies above the limit (aarch64).
#define ISAM_STACK_TOP 0x7fef00000000
#ifndef ISAM_STACK_LIMIT // tests lower it, to have a stack moved on x86_64 too
#define ISAM_STACK_LIMIT ISAM_VA_LIMIT
#endif
#endif
#endif
