// musl's, but for the runtime's two variables, which this thread goes on with.
#include <string.h>
#include "pthread_impl.h"
#include "libc.h"

extern _Thread_local void *__isam_psp;

void __reset_tls()
{
	pthread_t self = __pthread_self();
	void *stack = __isam_psp;
	struct tls_module *p;
	size_t i, n = self->dtv[0];
	if (n) for (p=libc.tls_head, i=1; i<=n; i++, p=p->next) {
		char *mem = (char *)(self->dtv[i] - DTP_OFFSET);
		memcpy(mem, p->image, p->len);
		memset(mem+p->len, 0, p->size - p->len);
	}
	__isam_psp = stack;
	__isam_self = self;
}
