// setjmp is a stub that isamorph-cc calls with a jump cell of the caller's frame (docs/architecture.md, 5); a jmp_buf is
// the cell's address, the portable stack pointer, and a word by which both are recognised.
#include <setjmp.h>
#include <stdlib.h>
#include "libc.h"
#include "syscall.h"
#include "jump.h"

extern _Thread_local void *__isam_psp;

static void end(const char *why, size_t length)
{
	__syscall(SYS_write, 2, why, length);
	abort();
}

#define END(why) end(why, sizeof why - 1)

_Noreturn void longjmp(jmp_buf buf, int value)
{
	const unsigned long *words = buf->__jb;
	const struct isam_cell *cell = (void *)words[JB_CELL/8];
	unsigned long key = JUMP_KEY ^ (unsigned long)cell;

	if (words[JB_KEY/8] != key)
		END("longjmp: the jmp_buf was not filled by setjmp\n");
	// Below the pointer is what functions left behind that have returned.
	if ((char *)cell < (char *)__isam_psp || cell->key != key)
		END("longjmp: the function that called setjmp has returned\n");
	__isam_longjmp(cell, value ? value : 1, (void *)words[JB_PSP/8]);
}

weak_alias(longjmp, _longjmp);
