// A portable jmp_buf: a cell on the portable stack, a site, a signal mask. The functions do not exist yet, so that a
// program that needs them fails to link.
typedef unsigned long __jmp_buf[8];
