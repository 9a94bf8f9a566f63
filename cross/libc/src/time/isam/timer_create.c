// SIGEV_THREAD timers jump out of pthread_exit() in their callback. Until setjmp exists here, such a callback aborts; all
// other timers are as they were.
#include <setjmp.h>
#include "atomic.h"
#undef setjmp
#define setjmp(buf) 0
#define longjmp(buf, value) a_crash()
#include "../timer_create.c"
