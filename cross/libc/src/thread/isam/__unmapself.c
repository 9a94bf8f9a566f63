#include "pthread_impl.h"

void __isam_unmapself(void *, size_t);

void __unmapself(void *base, size_t size)
{
	__isam_unmapself(base, size);
}
