/* zstd: compress and decompress text-like data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
int main(void)
{
    size_t n = 8 << 20, bound = ZSTD_compressBound(n);
    unsigned char *in = malloc(n), *back = malloc(n), *out = malloc(bound);
    unsigned x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1103515245 + 12345;
        in[i] = (x >> 16 & 7) ? "the quick brown fox jumps "[(i + (x >> 20)) % 26] : (unsigned char)(x >> 24);
    }
    size_t packed = ZSTD_compress(out, bound, in, n, 5);
    if (ZSTD_isError(packed) || ZSTD_decompress(back, n, out, packed) != n || memcmp(in, back, n))
        return 1;
    printf("%zu -> %zu\n", n, packed);
    return 0;
}
