/* A process of a chosen shape: heap MIB STRIDE DEPTH, then it sleeps.
 * MIB of heap whose every STRIDEth page is touched (2: as many pagemap runs as pages), DEPTH frames of recursion. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int stop; /* never set; the compiler must not know */

static uint64_t __attribute__((noinline)) deeper(unsigned depth, uint64_t *sum)
{
    uint64_t mine = *sum + depth;
    if (depth == 0) {
        puts("READY");
        fflush(stdout);
        while (!stop)
            sleep(1000);
        return mine;
    }
    uint64_t below = deeper(depth - 1, &mine);
    return below + mine;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t bytes = strtoul(argv[1], 0, 0) << 20, step = strtoul(argv[2], 0, 0) * 4096;
    char *heap = malloc(bytes);
    if (!heap)
        return 1;
    for (size_t at = 0; at < bytes; at += step)
        heap[at] = (char)(at / 4096 + 1) | 1;
    uint64_t sum = (uint64_t)(uintptr_t)heap;
    return (int)deeper((unsigned)strtoul(argv[3], 0, 0), &sum);
}
