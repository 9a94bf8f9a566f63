/* The native world around tests/c/torture.c: output, a portable stack, a safepoint that counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((tls_model("local-exec"))) _Thread_local char *__isam_psp;
static long safepoints;

void out(long value) { printf("%ld\n", value); }

void out_double(double value)
{
    unsigned long bits;
    memcpy(&bits, &value, sizeof bits);
    printf("%016lx\n", bits);
}

void __isam_safepoint(void) { safepoints++; }

void *zeroed(long bytes) { return calloc(1, bytes); }

void torture(void);

int main(void)
{
    enum { SIZE = 16 << 20 };
    char *top = (char *)(((unsigned long)malloc(SIZE) + SIZE) & ~15UL);
    __isam_psp = top;
    torture();
    if (__isam_psp != top)
        printf("the portable stack pointer is off by %ld\n", (long)(top - __isam_psp));
    fprintf(stderr, "%ld\n", safepoints);
    return 0;
}
