// Thread-local storage (arch/src/tls.rs): struct pthread, gap, TLS block, and the word that x86_64's thread pointer
// points at, at the same addresses on both ISAs. The start stub has made the main thread's block.
#include <elf.h>
#include <limits.h>
#include <sys/mman.h>
#include <string.h>
#include <stddef.h>
#include "pthread_impl.h"
#include "libc.h"
#include "atomic.h"
#include "syscall.h"
#include "record.h"

// A created thread's portable stack, in the mapping of its native one (and its TLS): the same life, no commitment.
#define PORTABLE_STACK (8UL << 20)
#define PAGE 4096UL

_Static_assert(sizeof(struct pthread) <= ISAM_PTHREAD_ROOM, "the start stub reserves too little");

volatile int __thread_list_lock;
static struct tls_module main_tls;

int __init_tp(void *p)
{
	pthread_t td = p;
	td->self = td;
	libc.can_do_threads = 1;
	td->detach_state = DT_JOINABLE;
	td->tid = __syscall(SYS_set_tid_address, &__thread_list_lock);
	td->locale = &libc.global_locale;
	td->robust_list.head = &td->robust_list.head;
	td->sysinfo = __sysinfo;
	td->next = td->prev = td;
	return 0;
}

static uintptr_t up(uintptr_t n, uintptr_t to)
{
	return (n + to - 1) & -to;
}

// `mem` is libc.tls_size bytes, zero: [guard page][portable stack][struct pthread][gap][block][self word][dtv]
void *__copy_tls(unsigned char *mem)
{
	const struct isam_tls *t = &__isam_tls;
	uintptr_t guard = up((uintptr_t)mem, PAGE), top = guard + PAGE + PORTABLE_STACK;
	uintptr_t block = up(top + sizeof(struct pthread) + main_tls.offset, libc.tls_align);
	uintptr_t tpidr = block - main_tls.offset;
	uintptr_t *self_word = (uintptr_t *)(tpidr + t->span);
	pthread_t td = (pthread_t)(tpidr - sizeof(struct pthread));

	__syscall(SYS_mprotect, guard, PAGE, PROT_NONE);
	memcpy((void *)block, t->image, t->filesz);
	*self_word = (uintptr_t)self_word;

	// Its two variables of the runtime: at the same offsets as this thread's.
	char *ours = (char *)__get_tp() + main_tls.offset;
	*(void **)(block + ((char *)&__isam_self - ours)) = td;
	*(void **)(block + ((char *)&__isam_psp - ours)) = (void *)((uintptr_t)td & -16);

	td->dtv = self_word + 1;
	td->dtv[0] = 1;
	td->dtv[1] = block;
	return td;
}

// A thread's frames may need more stack on the other ISA than they have here: that much of a guard can become stack.
#define STACK_SLACK (128UL << 10)

static void static_init_tls(size_t *aux)
{
	static uintptr_t main_dtv[2];
	const struct isam_tls *t = &__isam_tls;
	Elf64_Phdr *phdr = (void *)aux[AT_PHDR];
	size_t n;

	for (n = aux[AT_PHNUM]; n; n--, phdr++)
		if (phdr->p_type == PT_GNU_STACK && phdr->p_memsz > __default_stacksize)
			__default_stacksize = phdr->p_memsz < DEFAULT_STACK_MAX ? phdr->p_memsz : DEFAULT_STACK_MAX;

	__default_guardsize = DEFAULT_GUARD_SIZE + STACK_SLACK;
	__isam_tls.low = (uintptr_t)&__isam_stack_low;

	main_tls.image = (void *)t->image;
	main_tls.len = t->filesz;
	main_tls.align = t->align < 16 ? 16 : t->align;
	main_tls.offset = up(GAP_ABOVE_TP, t->align);
	main_tls.size = up(t->memsz, t->align);
	libc.tls_cnt = 1;
	libc.tls_head = &main_tls;
	libc.tls_align = main_tls.align;
	libc.tls_size = up(2*PAGE + PORTABLE_STACK + sizeof(struct pthread) + main_tls.align + t->span + 16
		+ 4*sizeof(uintptr_t), 16);

	pthread_t td = (pthread_t)(t->block - main_tls.offset - sizeof(struct pthread));
	__isam_self = td;
	td->dtv = main_dtv;
	main_dtv[0] = 1;
	main_dtv[1] = t->block;
	__init_tp(td);
}

weak_alias(static_init_tls, __init_tls);
