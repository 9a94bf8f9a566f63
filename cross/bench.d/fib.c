/* Recursion: nothing but calls. */
#include <stdint.h>
#include <stdio.h>
static uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
int main(void) { printf("%lu\n", (unsigned long)fib(38)); return 0; }
