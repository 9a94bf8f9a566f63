// Where the runtime's start stub enters C, with the main thread's TLS block and portable stack in place.
int main();
int __libc_start_main(int (*)(), int, char **, void (*)(), void (*)(), void (*)());

void __isam_entry(long *sp)
{
	__libc_start_main(main, *sp, (char **)(sp + 1), 0, 0, 0);
}
