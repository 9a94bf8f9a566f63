//! A live process under ptrace: stopped and running types, remote system calls, memory, registers.
