/* launch CAPABILITIES PROGRAM ARGUMENT...: starts a program as a session leader with no capability outside the mask.
 *
 * A process can only move to a machine that grants what it has: a node grants everything, a host inside a container less.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s CAPABILITIES PROGRAM ARGUMENT...\n", argv[0]);
        return 2;
    }
    unsigned long long keep = strtoull(argv[1], NULL, 16);
    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap) != 0) {
            perror("PR_CAPBSET_DROP");
            return 1;
        }
    }
    setsid();
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 1;
}
