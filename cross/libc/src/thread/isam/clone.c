// musl declares __clone variadic and writes it in assembly; here that is the runtime's stub, behind portable varargs.
#define _GNU_SOURCE
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include "pthread_impl.h"
#include "record.h"

int __isam_clone(int (*)(void *), void *, int, void *, int *, void *, int *);

int __clone(int (*func)(void *), void *stack, int flags, void *arg, ...)
{
	va_list ap;
	va_start(ap, arg);
	int *ptid = va_arg(ap, int *);
	void *tls = va_arg(ap, void *);
	int *ctid = va_arg(ap, int *);
	va_end(ap);
	if (!func || !stack)
		return -EINVAL;
	if (flags & CLONE_SETTLS) {
		// The new thread's __isam_stack_low: at the same offset as this thread's.
		pthread_t new = (pthread_t)((char *)tls - sizeof *new);
		ptrdiff_t offset = (char *)&__isam_stack_low - (char *)__pthread_self();
		*(void **)((char *)new + offset) = (char *)new->stack - new->stack_size;
	}
	return __isam_clone(func, stack, flags, arg, ptid, tls, ctid);
}
