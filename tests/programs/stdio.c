/* stdio buffers half full across the move: writes, reads back, seeks, ungetc, a temporary file. */
#include "check.h"

int main(int argc, char **argv)
{
    check_init(argc, argv);
    uint64_t state = check_seed;
    char path[4096];
    snprintf(path, sizeof path, "%s.data", argv[1]);
    FILE *f = fopen(path, "w+");
    CHECK(f, "%s: errno %d", path, errno);
    static char buffer[5000];
    setvbuf(f, buffer, _IOFBF, sizeof buffer);
    do {
        uint64_t seed = check_next(&state), s = seed, t = seed;
        rewind(f);
        for (int i = 0; i < 2000; i++)
            CHECK(fprintf(f, "%d:%016lx\n", i, (unsigned long)check_next(&s)) > 0, "errno %d", errno);
        rewind(f);
        for (int i = 0; i < 2000; i++) {
            int number;
            unsigned long value;
            int c = fgetc(f);
            ungetc(c, f);
            CHECK(fscanf(f, "%d:%lx\n", &number, &value) == 2, "line %d", i);
            CHECK(number == i && value == check_next(&t), "line %d: %d %lx", i, number, value);
        }
        CHECK(fseek(f, 0, SEEK_SET) == 0 && ftell(f) == 0, "seek");
    } while (check_go_on());
    CHECK(fclose(f) == 0 && unlink(path) == 0, "errno %d", errno);
    return check_pass();
}
