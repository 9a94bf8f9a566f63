// A jump cell and the words of a jmp_buf; drawn in arch/src/jump_cell.rs, which this file repeats for the assembler and
// for libc.
#ifndef ISAM_JUMP_H
#define ISAM_JUMP_H

#define CELL_KEY 0
#define CELL_RETURN 8
#define CELL_SP 16
#define CELL_REGISTERS 24
#define JUMP_KEY 0x6973616d6a6d7063

// Words of a jmp_buf: nothing in it depends on the instruction set.
#define JB_CELL 0
#define JB_PSP 8
#define JB_KEY 16

#ifndef __ASSEMBLER__
struct isam_cell {
	unsigned long key, ret, sp, registers[19];
};

_Static_assert(__builtin_offsetof(struct isam_cell, sp) == CELL_SP, "sp");
_Static_assert(__builtin_offsetof(struct isam_cell, registers) == CELL_REGISTERS, "registers");
_Static_assert(sizeof(struct isam_cell) == 176, "length");

_Noreturn void __isam_longjmp(const struct isam_cell *, int value, void *psp);
#endif
#endif
