/* Data and code of every kind of section that is paired, or stays per ISA. */
void print(const char *text, long length);
const char *part(int n);
extern int weakling(void) __attribute__((weak));

static volatile int table[4] = {1, 2, 3, 4};
static volatile int zeros[100];
const char *const names[] = {"even\n", "odd\n"};
static int registered __attribute__((section("registry"), used)) = 7;
extern int __start_registry[], __stop_registry[];

/* A jump table on both ISAs, and constants in pools. */
__attribute__((noinline)) static double choose(int n)
{
	switch (n) {
	case 0: print("zero\n", 5); return 3.25;
	case 1: print("one\n", 4); return 77.5;
	case 2: print("two\n", 4); return 1.125;
	case 3: print("three\n", 6); return 12.5;
	case 4: print("four\n", 5); return 9.5;
	case 5: print("five\n", 5); return 8.5;
	default: return 0.5;
	}
}

int main(void)
{
	long double wide = table[2];
	for (int n = 0; n < 3; n++) {
		print(part(n), 4);
		zeros[n] = (int)(choose(n) * wide);
	}
	if (weakling)
		return 1;
	/* 9 + 232 + 3 + 7 + 1 = 252 */
	return zeros[0] + zeros[1] + zeros[2] + *__start_registry + (int)(__stop_registry - __start_registry);
}
