// musl declares __clone variadic and writes it in assembly; here that is the runtime's stub, behind portable varargs.
#include <stdarg.h>
#include "pthread_impl.h"

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
	return __isam_clone(func, stack, flags, arg, ptid, tls, ctid);
}
