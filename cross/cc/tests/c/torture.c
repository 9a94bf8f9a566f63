/* C that stresses the portable passes. It prints what it computes; the reference is a plain native build. */
#include <stdarg.h>

#define NOINLINE __attribute__((noinline))

void out(long);
void out_double(double);
void *zeroed(long);
double sin(double);

typedef struct { long a[5]; } Big;
typedef struct { double x; int y; } Mixed;
typedef struct { char c[3]; } Small;
typedef struct { long double l; } Wide;
typedef struct { float a, b; } Floats;
typedef struct { int a, b, c; } Ints;

/* What the optimiser does not know. */
static volatile int once = 1;

/* Values that change places in every round: none of their slots may be overwritten while another needs it. */
NOINLINE static long rotating(int n)
{
    long a = 1, b = 2, c = 3, old = 0;
    for (int i = 0; i < n; i++) {
        long t = a;
        out(b);
        a = b;
        b = c;
        c = t + i;
        if (i % 5 == 3) {
            out(old);
            old = c;
        }
        if (i % 7 == 2) {
            a = 9;
            continue;
        }
        out(a - old);
    }
    return a * 3 + b * 5 + c * 7 + old;
}

/* State around a switch, of which each case changes a part. */
NOINLINE static long interpret(const char *program, int steps)
{
    long sum = 0, x = 1, y = -1;
    short small = 5;
    double real = 0.5;
    const char *at = program;
    for (; steps > 0; steps--) {
        switch (*at++) {
        case '+': sum += x; break;
        case 'o': out(sum); break;
        case 's': {
            long t = x;
            x = y;
            y = t;
            break;
        }
        case 'x': x++; break;
        case 'c':
            y = sum;
            out(y);
            sum = 0;
            break;
        case 'r':
            real = real * 1.5 + small;
            out_double(real);
            break;
        case 'n': small = small * 3 + x; break;
        case 'k': sum = 7; break;
        case 'j': at = program; break;
        default: return sum;
        }
    }
    out_double(real);
    return sum + x * 3 + y * 5 + small;
}

NOINLINE static unsigned mix(int n, unsigned seed)
{
    for (int i = 0; i < n; i++)
        seed = (seed ^ i) * 16777619;
    return seed;
}

NOINLINE static long fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

NOINLINE static void vla(int n)
{
    char bytes[n];
    int matrix[n][3];
    for (int i = 0; i < n; i++) {
        bytes[i] = i * 7;
        for (int j = 0; j < 3; j++)
            matrix[i][j] = i * j;
        out(i);
    }
    long sum = 0;
    for (int i = 0; i < n; i++)
        sum += bytes[i] + matrix[i][2];
    out(sum);
    if (n > 2)
        vla(n / 2);
    out(bytes[n - 1]);
}

NOINLINE static void alloca_chain(int n)
{
    char *last = 0;
    for (int i = 1; i < n; i++) {
        char *p = __builtin_alloca(i * 3);
        for (int j = 0; j < i * 3; j++)
            p[j] = i;
        *(char **)__builtin_alloca(8) = last;
        if (last)
            out(last[0]);
        last = p;
    }
    out(*last);
}

NOINLINE static long variadic_twice(int n, ...)
{
    va_list ap, again;
    va_start(ap, n);
    va_copy(again, ap);
    long sum = 0;
    for (int i = 0; i < n; i++) {
        out(sum);
        sum = sum * 3 + va_arg(ap, long);
    }
    va_end(ap);
    for (int i = 0; i < n; i++)
        sum += va_arg(again, long);
    va_end(again);
    return sum;
}

NOINLINE static void variadic_mixed(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    for (; *format; format++)
        switch (*format) {
        case 'i': out(va_arg(ap, int)); break;
        case 'l': out(va_arg(ap, long)); break;
        case 'd': out_double(va_arg(ap, double)); break;
        case 'L': out_double((double)va_arg(ap, long double)); break;
        case 'p': out(*va_arg(ap, int *)); break;
        case 'B': { Big b = va_arg(ap, Big); out(b.a[0] + b.a[4]); break; }
        case 'M': { Mixed m = va_arg(ap, Mixed); out_double(m.x); out(m.y); break; }
        case 'S': { Small s = va_arg(ap, Small); out(s.c[0] * 10000 + s.c[1] * 100 + s.c[2]); break; }
        case 'Q': { __int128 q = va_arg(ap, __int128); out(q >> 64); out(q); break; }
        case 'W': { Wide w = va_arg(ap, Wide); out_double(w.l); break; }
        case 'F': { Floats f = va_arg(ap, Floats); out_double(f.a + f.b); break; }
        case 'I': { Ints i = va_arg(ap, Ints); out(i.a + i.b * 10 + i.c * 100); break; }
        }
    va_end(ap);
}

NOINLINE static Big make_big(long x)
{
    Big b;
    for (int i = 0; i < 5; i++) {
        b.a[i] = x * i;
        out(b.a[i]);
    }
    return b;
}

NOINLINE static long take_big(Big b, int k, Big c)
{
    out(k);
    b.a[1] += c.a[2];
    out(b.a[1]);
    return b.a[3];
}

NOINLINE static long nine(long a, long b, long c, long d, long e, long f, long g, long h, long i)
{
    out(a + b);
    long r = a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8 + i * 9;
    out(r);
    return r + i;
}

NOINLINE static long tail_nine(long x)
{
    out(x);
    return nine(x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7, x + 8);
}

NOINLINE static double ten(double a, double b, double c, double d, double e, double f, double g, double h,
                           double i, float j)
{
    out_double(a * b);
    out_double(i * j);
    return a + b + c + d + e + f + g + h + i + j;
}

NOINLINE static __int128 int128(__int128 a, __int128 b)
{
    __int128 r = a / b;
    out(r);
    r = r * a % 1000003 + b;
    out(r >> 64);
    return r;
}

NOINLINE static long double binary128(long double a, long double b)
{
    long double r = a * b;
    out_double(r);
    r = r / 3 + a;
    out_double(r);
    return r > b ? r : b;
}

static int compare(const void *a, const void *b)
{
    out(*(int *)a);
    return *(int *)a - *(int *)b;
}

NOINLINE static void sort(int *v, int n, int (*less)(const void *, const void *))
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && less(&v[j], &v[j - 1]) < 0; j--) {
            int t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
}

NOINLINE static int computed_goto(int n)
{
    static const void *labels[] = {&&a, &&b, &&c, &&d};
    int x = n;
    void *p = labels[n & 3];
    void *kept[2] = {&&b, p};
    goto *p;
a:
    x += 3;
    out(x);
    if (x > 100)
        goto d;
    goto *kept[x & 1];
b:
    x *= 2;
    out(x);
    goto *labels[x % 4];
c:
    x += 1;
    out(x);
    if (x > 200)
        return x;
    goto *labels[(x + 1) % 4];
d:
    out(-x);
    if (x < 50) {
        x += 7;
        goto *labels[x & 3];
    }
    return x;
}

NOINLINE static int switches(int k, int v)
{
    switch (k) {
    case 0: out(v); v++; /* fall through */
    case 1: v *= 2; out(v); break;
    case 2:
        for (int i = 0; i < v; i++)
            out(i);
        break;
    case 3: { int a[v + 1]; a[v] = v; out(a[v]); return a[v]; }
    case 7: return v;
    default: out(1000);
    }
    return v + k;
}

NOINLINE static void pointers_to_frames(long *p, int depth)
{
    long local = depth;
    if (p) {
        *p += depth;
        out(*p);
    }
    if (depth > 0) {
        pointers_to_frames(&local, depth - 1);
        out(local);
    }
}

NOINLINE static void floats(double x, float f, int n)
{
    double sum = 0;
    float g = f;
    for (int i = 0; i < n; i++) {
        sum += x / (i + 1);
        g = g * 1.5f - f;
        out_double(sum);
        out_double(g);
        x = -x;
    }
}

static long table[100];
static _Thread_local long counter = 5;
static _Thread_local struct { int pad; int part[4]; } record;

NOINLINE static long loops(long n)
{
    long sum = 0;
    for (long i = 0; i < n; i++) {
        for (long j = 0; j < i; j++) {
            sum += table[(i * j) % 100];
            if ((sum & 15) == 3)
                continue;
            if (sum > 1000000) {
                out(sum);
                sum -= 1000000;
            }
        }
        table[i % 100] = sum;
        counter += sum & 3;
        record.part[sum & 3]++;
    }
    return sum + counter + record.part[1];
}

NOINLINE static long irreducible(int n)
{
    long sum = 0;
    if (n & 1)
        goto middle;
top:
    sum += n;
    out(sum);
middle:
    sum *= 3;
    if (--n > 0) {
        if (sum & 2)
            goto top;
        goto middle;
    }
    return sum;
}

typedef int Int4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));
typedef long Long8 __attribute__((vector_size(64)));

NOINLINE static void vectors(Int4 a, Double2 b, int n)
{
    Int4 s = a;
    Double2 t = b;
    Long8 w = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < n; i++) {
        s = s * a + i;
        t = t * b;
        w = w * 3 + i;
        out(s[i & 3]);
    }
    out_double(t[0]);
    out(w[7] + w[0]);
    out(s[0] + s[3]);
}

NOINLINE static _Bool booleans(int x)
{
    _Bool a = x > 3, b = x < 10;
    out(x);
    _Bool c = a && b;
    out(c);
    return c ^ a;
}

NOINLINE static long over_aligned(int n)
{
    _Alignas(64) char buffer[128];
    _Alignas(32) long z[4];
    for (int i = 0; i < 128; i++)
        buffer[i] = i * n;
    z[1] = n;
    out((long)buffer % 64);
    out((long)z % 32);
    long sum = 0;
    for (int i = 0; i < 128; i++)
        sum += buffer[i];
    out(sum);
    return sum + z[1];
}

struct node { struct node *left, *right; long value; };

NOINLINE static struct node *tree(int depth, long value)
{
    if (!depth)
        return 0;
    struct node *n = zeroed(sizeof *n);
    n->value = value;
    n->left = tree(depth - 1, value * 2);
    n->right = tree(depth - 1, value * 2 + 1);
    return n;
}

NOINLINE static long walk(struct node *n)
{
    return n ? n->value + walk(n->left) - walk(n->right) : 1;
}

NOINLINE static _Complex double complex_numbers(_Complex double a, _Complex double b)
{
    out(1);
    _Complex double c = a * b;
    out_double(__real c);
    return c / a;
}

NOINLINE static int *chosen(int **a, int **b, int (*less)(const void *, const void *))
{
    int *x = *a, *y = *b;
    return less(x, y) < 0 ? x : y;
}

NOINLINE static long barriers(long x)
{
    double d = x;
    __asm__ volatile("" : "+r"(x) : : "memory");
#ifdef __isamorph__
    __asm__ volatile("" : "+f"(d));
#endif
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_fetch_add(&table[0], x, __ATOMIC_SEQ_CST);
    long expected = table[0];
    out(__atomic_compare_exchange_n(&table[0], &expected, 9, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return (long)d + table[0];
}

void torture(void)
{
    out(fib(12));
    vla(9);
    alloca_chain(6);
    out(variadic_twice(3, 1L, -2L, 3L));
    out(variadic_twice(0));
    out(rotating(60 * once));
    out(interpret("x+o+sn+ocrxk+o+rsnj", 400 * once));
    out(interpret("+x+s+c", 400 * once));
    out(mix(1000 * once, 2166136261));
    int pointed = 77;
    variadic_mixed("ildLBMSQWFIpildLQ", -5, 6L, 2.5, (long double)1.25, make_big(3), (Mixed){4.5, 6},
                   (Small){{1, 2, 3}}, ((__int128)7 << 64) + 9, (Wide){2.75L}, (Floats){1, 2}, (Ints){1, 2, 3},
                   &pointed, 1, 2L, 3.0, 4.0L, (__int128)-1);
    Big b = make_big(2), c = make_big(5);
    out(take_big(b, 3, c));
    out(tail_nine(4));
    out_double(ten(1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5f));
    out(int128((__int128)123456789012345LL << 40, 987654321));
    out_double(binary128(1.5L, 2.25L));
    int v[8] = {5, 2, 8, 1, 9, 3, 7, 0};
    int *first = v, *second = v + 1;
    out(*chosen(&first, &second, compare));
    sort(v, 8, compare);
    for (int i = 0; i < 8; i++)
        out(v[i]);
    for (int i = 0; i < 9; i++)
        out(computed_goto(i));
    for (int i = 0; i < 9; i++)
        out(switches(i, i + 2));
    pointers_to_frames(0, 6);
    floats(1.7, 2.3f, 5);
    for (int i = 0; i < 100; i++)
        table[i] = i * i;
    out(loops(200));
    out(irreducible(7));
    out(irreducible(8));
    vectors((Int4){1, 2, 3, 4}, (Double2){1.5, 2.5}, 6);
    for (int i = 0; i < 12; i += 3)
        out(booleans(i));
    out(over_aligned(3));
    out(walk(tree(6, 1)));
    _Complex double z = complex_numbers(1.0 + 2.0 * 1.0i, 3.0 - 1.0i);
    out_double(__real z);
    out_double(__imag z);
    out(barriers(5));
    /* Instructions on one ISA, calls on the other. */
    out_double(__builtin_floor(2.7) + __builtin_ceil(1.2) + __builtin_sqrt(pointed));
    out_double(__builtin_fmod(pointed, 2.5));
    out_double(__builtin_fma(pointed, 3.0, 4.0));
    out_double(sin(pointed));
    out((long)__builtin_rint(pointed + 0.5));
    out_double(__builtin_fabs(-2.0 * pointed));
    out_double(__builtin_copysign(pointed, -1.0));
    out(__builtin_lrint(pointed + 0.5));
    out_double(__builtin_fmax(pointed, 2.0));
    out_double(__builtin_ldexp(pointed, 4));
}
