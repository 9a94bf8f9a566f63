// isamorph-cc makes `sigsetjmp(buf, save)` a call of the first, of setjmp, and of the second with setjmp's result.
#include <setjmp.h>
#include <signal.h>
#include "syscall.h"

void __isam_sigsetjmp_mask(sigjmp_buf buf, int save)
{
	buf->__fl = save;
	if (save) __syscall(SYS_rt_sigprocmask, SIG_SETMASK, 0, buf->__ss, _NSIG/8);
}

// After the jump, on the stack that was jumped to: a signal that the mask lets in must not find the one that was left.
int __isam_sigsetjmp_tail(sigjmp_buf buf, int result)
{
	if (result && buf->__fl) __syscall(SYS_rt_sigprocmask, SIG_SETMASK, buf->__ss, 0, _NSIG/8);
	return result;
}
