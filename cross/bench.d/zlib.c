/* zlib: compress and decompress text-like data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
int main(void)
{
    size_t n = 4 << 20;
    unsigned char *in = malloc(n), *back = malloc(n);
    uLong bound = compressBound(n), packed = bound, got = n;
    unsigned char *out = malloc(bound);
    unsigned x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1103515245 + 12345;
        in[i] = (x >> 16 & 7) ? "the quick brown fox jumps "[(i + (x >> 20)) % 26] : (unsigned char)(x >> 24);
    }
    if (compress2(out, &packed, in, n, 6) != Z_OK || uncompress(back, &got, out, packed) != Z_OK || memcmp(in, back, n))
        return 1;
    printf("%lu -> %lu crc %lx\n", (unsigned long)n, packed, crc32(0, out, (uInt)packed));
    return 0;
}
