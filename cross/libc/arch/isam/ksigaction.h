// The kernel's structure is one on both ISAs. Every handler returns by way of the runtime's restorer, whose address is
// the same in both executables: a restored process has no vDSO to return through.
#include <features.h>

struct k_sigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	unsigned mask[2];
};

#define __restore __isam_restore_rt
#define __restore_rt __isam_restore_rt
void __isam_restore_rt(void);
