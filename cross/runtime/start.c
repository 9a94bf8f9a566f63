// The native leaves of the start stub: refuse a machine that a portable process cannot live on, move a stack that lies
// too high, and make the main thread's TLS block and portable stack. No TLS and no portable stack exist yet.
#include "native.h"

enum { AT_NULL = 0, AT_PHDR = 3, AT_PHNUM = 5, AT_PAGESZ = 6, AT_PLATFORM = 15, AT_BASE_PLATFORM = 24, AT_RANDOM = 25,
       AT_EXECFN = 31 };
enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20, MAP_GROWSDOWN = 0x100, MAP_NORESERVE = 0x4000,
       MAP_STACK = 0x20000, MAP_FIXED_NOREPLACE = 0x100000 };
enum { PT_LOAD = 1, PT_TLS = 7, PF_X = 1 };
enum { PAGE = 4096 };

struct phdr {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};
struct mm_map { // struct prctl_mm_map
	u64 start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
	u64 *auxv;
	u32 auxv_size, exe_fd;
};

static const char page_size[] __attribute__((section(".rodata.isam.page_size"))) =
	"isamorph: this program needs a kernel with 4 KiB pages\n";
static const char no_space[] __attribute__((section(".rodata.isam.no_space"))) =
	"isamorph: this program needs a kernel with 48-bit user addresses, and memory for its stacks\n";
static const char no_tls[] __attribute__((section(".rodata.isam.no_tls"))) =
	"isamorph: this program has no usable PT_TLS segment\n";

#define DIE(message) (native6(NR_write, 2, (u64)(message), sizeof(message) - 1, 0, 0, 0), die())
_Noreturn INLINE void die(void)
{
	for (;;)
		native6(NR_exit_group, 127, 0, 0, 0, 0, 0);
}

INLINE u64 align_up(u64 n, u64 to) { return (n + to - 1) & -to; }

// A private anonymous mapping that ends at or below `top`; 0 if there is none. A kernel or emulator that does not know
// MAP_FIXED_NOREPLACE takes the address for a hint; any place below the limit will do.
INLINE u64 map_below(u64 top, u64 len, u64 flags)
{
	for (u64 at = top - len; at >= ISAM_MAP_BOTTOM; at -= 1UL << 30) {
		i64 got = native6(NR_mmap, at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags,
		                  (u64)-1, 0);
		if (got > 0 && (u64)got + len <= ISAM_VA_LIMIT)
			return (u64)got;
		if (got > 0)
			native6(NR_munmap, (u64)got, len, 0, 0, 0, 0);
		else if (got != -17 /* EEXIST */)
			return 0;
	}
	return 0;
}

// Where each part of the kernel's initial stack is (all of them lists of words that end in 0).
struct initial {
	u64 *argc, *argv, *envp, *auxv, *end;
};

INLINE struct initial parse(u64 *sp)
{
	struct initial s = { sp, sp + 1, sp + 2 + sp[0], 0, 0 };
	s.auxv = s.envp;
	while (*s.auxv++)
		;
	s.end = s.auxv;
	while (*s.end != AT_NULL)
		s.end += 2;
	s.end += 2;
	return s;
}

INLINE u64 auxiliary(const struct initial *s, u64 type)
{
	for (u64 *a = s->auxv; *a != AT_NULL; a += 2)
		if (*a == type)
			return a[1];
	return 0;
}

// One past the last byte of the stack's mapping: the name of the executable is the highest thing in it, and then a word.
INLINE u64 stack_end(const struct initial *s)
{
	const char *name = (const char *)auxiliary(s, AT_EXECFN);
	while (*name++)
		;
	return align_up((u64)name + 8, PAGE);
}

// Copies the initial stack to where x86_64 could have it too; the pointers in it move along. Returns the new argc's place.
INLINE u64 *move_stack(struct initial old)
{
	u64 end = stack_end(&old), from = (u64)old.argc;
	u64 len = align_up(end - from, PAGE) + 32 * PAGE; // with room for what follows at once
	u64 base = map_below(ISAM_STACK_TOP, len, MAP_GROWSDOWN | MAP_STACK);
	if (!base)
		DIE(no_space);
	u64 delta = end - (base + len); // a multiple of the page size
	for (u64 p = from; p < end; p += 8)
		*(u64 *)(p - delta) = *(u64 *)p;
	struct initial s = parse((u64 *)(from - delta));
	for (u64 *p = s.argv; p < s.auxv; p++)
		if (*p >= from && *p < end)
			*p -= delta;
	for (u64 *a = s.auxv; *a != AT_NULL; a += 2)
		switch (*a) {
		case AT_PLATFORM: case AT_BASE_PLATFORM: case AT_RANDOM: case AT_EXECFN:
			if (a[1] >= from && a[1] < end)
				a[1] -= delta;
		}
	return s.argc;
}

// Returns where the initial stack is, or will be once sp is there.
STUB(start_prepare) u64 *__isam_start_prepare(u64 *sp)
{
	struct initial s = parse(sp);
	if (auxiliary(&s, AT_PAGESZ) != PAGE)
		DIE(page_size);
	return (u64)sp < ISAM_STACK_LIMIT ? sp : move_stack(s);
}

// Tells the kernel where the stack is now, for /proc and for those who read it; best effort (a kernel without
// CONFIG_CHECKPOINT_RESTORE refuses).
INLINE void announce_stack(const struct initial *s)
{
	struct mm_map map;
	map.start_code = (u64)-1;
	map.end_code = map.start_data = map.end_data = 0;
	const struct phdr *ph = (const struct phdr *)auxiliary(s, AT_PHDR);
	for (u64 n = auxiliary(s, AT_PHNUM); n; n--, ph++) {
		if (ph->type != PT_LOAD)
			continue;
		u64 end = ph->vaddr + ph->filesz;
		if (ph->flags & PF_X && ph->vaddr < map.start_code)
			map.start_code = ph->vaddr;
		if (ph->flags & PF_X && end > map.end_code)
			map.end_code = end;
		if (ph->vaddr > map.start_data)
			map.start_data = ph->vaddr;
		if (end > map.end_data)
			map.end_data = end;
	}
	map.start_brk = map.brk = (u64)native6(NR_brk, 0, 0, 0, 0, 0, 0); // nothing has grown it yet
	map.start_stack = (u64)s->argc;
	// The strings lie in one piece: arguments, environment, then the name of the executable.
	u64 name = auxiliary(s, AT_EXECFN);
	map.env_end = name;
	map.env_start = map.arg_end = s->envp[0] ? s->envp[0] : name;
	map.arg_start = s->argv[0] ? s->argv[0] : map.arg_end;
	map.auxv = s->auxv;
	map.auxv_size = (u32)((u64)s->end - (u64)s->auxv);
	map.exe_fd = (u32)-1;
	native6(NR_prctl, 35 /* PR_SET_MM */, 14 /* PR_SET_MM_MAP */, (u64)&map, sizeof map, 0, 0);
}

// On the final stack: drops the old one, and makes the TLS block and the portable stack.
STUB(start_finish) void __isam_start_finish(u64 *sp, u64 *old_sp)
{
	struct initial s = parse(sp);
	if (sp != old_sp) {
		// The old argv still has the old addresses. The kernel keeps everything else at least 1 MiB below a stack.
		struct initial old = parse(old_sp);
		u64 low = ((u64)old_sp & -(u64)PAGE) - (1UL << 20), high = stack_end(&old);
		native6(NR_munmap, low, high - low, 0, 0, 0, 0);
		announce_stack(&s);
	}

	const struct phdr *ph = (const struct phdr *)auxiliary(&s, AT_PHDR), *tls = 0;
	for (u64 n = auxiliary(&s, AT_PHNUM); n; n--, ph++)
		if (ph->type == PT_TLS)
			tls = ph;
	if (!tls || tls->align & (tls->align - 1) || tls->align > PAGE || tls->vaddr & (tls->align - 1))
		DIE(no_tls);
	struct isam_tls *t = &__isam_tls;
	t->image = (const void *)tls->vaddr;
	t->filesz = tls->filesz;
	t->memsz = tls->memsz;
	t->align = tls->align ? tls->align : 1;
	u64 gap = align_up(16, t->align);
	t->span = gap + align_up(t->memsz, t->align);

	// [guard][portable stack][room for struct pthread, gap, TLS block, self word], in one mapping
	struct { u64 soft, hard; } limit;
	u64 stack = 8UL << 20;
	if (!native6(NR_prlimit64, 0, 3 /* RLIMIT_STACK */, 0, (u64)&limit, 0, 0) && limit.soft < 1UL << 40)
		stack = limit.soft < 16 * PAGE ? 16 * PAGE : align_up(limit.soft, PAGE);
	u64 head = align_up(ISAM_PTHREAD_ROOM, PAGE) + PAGE; // p_align is at most a page
	u64 len = PAGE + stack + align_up(head + t->span + 16, PAGE);
	u64 base = map_below(ISAM_MAP_TOP, len, MAP_NORESERVE);
	if (!base)
		DIE(no_space);
	native6(NR_mprotect, base, PAGE, 0, 0, 0, 0);
	__isam_map_next = base;
	t->block = base + PAGE + stack + head;
	const char *from = t->image;
	for (u64 i = 0; i < t->filesz; i++)
		((volatile char *)t->block)[i] = from[i]; // volatile: no memcpy
	if (set_thread_pointer(t->block - gap))
		DIE(no_tls);
}

// The first thing with a thread pointer, in a function of its own: the compiler may keep a thread pointer that it read
// before it was set.
STUB(start_psp) void __isam_start_psp(void)
{
	__isam_psp = (void *)(__isam_tls.block - align_up(ISAM_PTHREAD_ROOM, PAGE) - PAGE);
}
