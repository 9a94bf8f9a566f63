#error "the registers of sys/user.h and sys/procfs.h differ per ISA: a portable program cannot use them"
