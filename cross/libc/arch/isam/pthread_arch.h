// The thread pointer itself differs per ISA; the thread finds its struct pthread in a thread-local variable of the
// runtime. The layout (arch/src/tls.rs) is variant I's, with a 16-byte gap that variant II's code does not mind.
extern __thread struct __pthread *__isam_self;
#define __get_tp() ((uintptr_t)__isam_self + sizeof(struct __pthread))

#define TLS_ABOVE_TP
#define GAP_ABOVE_TP 16
