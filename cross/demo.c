/* The program that cross/demo moves: it reads lines, and for each prints a digest that depends on a
 * random seed, on the line and on everything before it. Nobody can print the rest of its output without
 * its state: a balanced tree in the heap, sums in floating point, a recursion under way, stdio buffers.
 *
 *   demo < INPUT              takes its seed from getrandom
 *   demo --seed HEX < INPUT   prints what a run with that seed must print
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct node {
    struct node *left, *right;
    uint64_t key, priority;
    char *text;
};

static uint64_t state;

static uint64_t next_random(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A treap: insertion recurses, and rotates on the way back through pointers to locals. */
static void insert(struct node **at, uint64_t key, const char *text)
{
    struct node *n = *at;
    if (!n) {
        n = malloc(sizeof *n);
        if (!n || !(n->text = strdup(text)))
            exit(3);
        n->left = n->right = NULL;
        n->key = key;
        n->priority = next_random();
        *at = n;
        return;
    }
    struct node **side = key < n->key ? &n->left : &n->right;
    insert(side, key, text);
    struct node *child = *side;
    if (child->priority > n->priority) {
        if (side == &n->left) {
            n->left = child->right;
            child->right = n;
        } else {
            n->right = child->left;
            child->left = n;
        }
        *at = child;
    }
}

static uint64_t walk(const struct node *n, uint64_t digest, double *weight)
{
    if (!n)
        return digest;
    digest = walk(n->left, digest, weight);
    for (const char *p = n->text; *p; p++)
        digest = (digest ^ (unsigned char)*p) * 0x100000001b3u;
    *weight += sqrt((double)(n->key >> 40)) / (1.0 + (double)(digest & 0xff));
    return walk(n->right, digest ^ n->key, weight);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seed") == 0)
        state = strtoull(argv[2], NULL, 16);
    else if (getrandom(&state, sizeof state, 0) != sizeof state)
        return 2;
    printf("main entered, seed %016" PRIx64 "\n", state);
    fflush(stdout);

    struct node *root = NULL;
    char line[256];
    double weight = 0;
    uint64_t digest = state;
    for (unsigned long number = 1; fgets(line, sizeof line, stdin); number++) {
        line[strcspn(line, "\n")] = 0;
        insert(&root, next_random(), line);
        for (int round = 0; round < 1500; round++)
            digest = walk(root, digest + next_random(), &weight);
        printf("%lu %s %016" PRIx64 " %.6e\n", number, line, digest, weight);
        fflush(stdout);
    }
    return 0;
}
