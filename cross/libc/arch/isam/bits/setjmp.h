// The address of a jump cell on the portable stack, the portable stack pointer, a check word (cross/runtime/jump.h); the
// rest is musl's for an ABI's sake, unused.
typedef unsigned long __jmp_buf[8];
