// The runtime's own variables: portable C, so that they lie at the same address (and TLS offset) on both ISAs.
#include "record.h"

struct isam_tls __isam_tls;
u64 __isam_map_next;
_Thread_local void *__isam_psp;  // the portable stack pointer
_Thread_local void *__isam_self; // libc's struct pthread
_Thread_local void *__isam_stack_low;
