; Functions that each break the proof in one way; the tests look for each of them by name.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"

declare void @llvm.experimental.stackmap(i64, i32, ...)
declare i64 @__isam_syscall(i64, i64)
declare i64 @leaf(i64)

define i64 @callee(i64 %a) #0 {
  %r = call i64 @__isam_syscall(i64 178, i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 1, i32 0, i64 0)
  ret i64 %r
}

; %a lives in a callee-saved register across the call.
define i64 @live_register(i64 %a) #0 {
  %r = call i64 @callee(i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 2, i32 0, i64 0)
  %sum = add i64 %r, %a
  ret i64 %sum
}

; %d lives in a spill slot (x86_64) or in d8 (aarch64).
define double @live_float(double %d) #0 {
  %r = call i64 @callee(i64 0)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 3, i32 0, i64 0)
  %f = uitofp i64 %r to double
  %sum = fadd double %f, %d
  ret double %sum
}

; A phi of two constants is in a register across the call.
define i64 @phi_of_constants(i1 %c, i64 %x) #0 {
entry:
  br i1 %c, label %a, label %b
a:
  %ra = call i64 @leaf(i64 %x)
  br label %join
b:
  %rb = call i64 @leaf(i64 77)
  br label %join
join:
  %p = phi i64 [ 1000000007, %a ], [ 998244353, %b ]
  %arg = phi i64 [ %ra, %a ], [ %rb, %b ]
  %r = call i64 @callee(i64 %arg)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 4, i32 0, i64 0)
  %m = mul i64 %p, %r
  ret i64 %m
}

; The slot is written on one path only.
define i64 @unwritten_slot(i1 %c, i64 %a) #0 {
entry:
  %slots = alloca { i64, i64 }, align 16
  br i1 %c, label %write, label %join
write:
  store i64 %a, ptr %slots
  br label %join
join:
  %r = call i64 @callee(i64 1)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 5, i32 0, ptr %slots, i64 16)
  %b = load i64, ptr %slots
  %sum = add i64 %r, %b
  ret i64 %sum
}

; The call has no record.
define i64 @no_site(i64 %a) #0 {
  %r = call i64 @callee(i64 %a)
  %s = add i64 %r, 1
  ret i64 %s
}

; An indirect call has no record.
define i64 @no_site_indirect(ptr %f) #0 {
  %r = call i64 %f(i64 1)
  %s = add i64 %r, 1
  ret i64 %s
}

; The slots' address is given away.
define i64 @escape(i64 %a) #0 {
  %slots = alloca { i64, i64 }, align 16
  store i64 %a, ptr %slots
  %at = ptrtoint ptr %slots to i64
  %r = call i64 @callee(i64 %at)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 6, i32 0, ptr %slots, i64 16)
  %b = load i64, ptr %slots
  %sum = add i64 %r, %b
  ret i64 %sum
}

@global = global ptr null

define void @escape_by_store() #0 {
  %slots = alloca { i64, i64 }, align 16
  store ptr %slots, ptr @global
  %r = call i64 @callee(i64 2)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 8, i32 0, ptr %slots, i64 16)
  ret void
}

; A call that is a jump.
define i64 @tail_jump(i64 %a) #1 {
  %r = musttail call i64 @callee(i64 %a)
  ret i64 %r
}

; A frame whose size is not known.
define i64 @variable_frame(i64 %n) #0 {
  %p = alloca i8, i64 %n, align 16
  store ptr %p, ptr @global
  ret i64 0
}

define i64 @system_call() #0 {
  call void asm sideeffect ".ifeq ISA-62\0Asyscall\0A.else\0Asvc #0\0A.endif", "~{memory}"()
  ret i64 0
}

; An instruction that portable code does not have.
define i64 @not_modelled() #0 {
  call void asm sideeffect ".ifeq ISA-62\0Acpuid\0A.else\0Amsr daifset, #2\0A.endif", "~{rax},~{rbx},~{rcx},~{rdx},~{memory}"()
  ret i64 0
}

; Overwrites a callee-saved register without saving it.
define i64 @not_restored() #0 {
  call void asm sideeffect ".ifeq ISA-62\0Axorl %r12d, %r12d\0A.else\0Amov x20, #5\0A.endif", "~{memory}"()
  ret i64 0
}

; An argument on the stack is read after the call, where no translation would bring it.
define i64 @stack_argument(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f, i64 %g, i64 %h, i64 %i, i64 %j) #0 {
  %r = call i64 @callee(i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 7, i32 0, i64 0)
  %sum = add i64 %r, %j
  ret i64 %sum
}

; Uses a register in which no caller passes anything.
define i64 @no_argument() #0 {
  %r = call i64 asm sideeffect ".ifeq ISA-62\0Amovq %r11, $0\0A.else\0Amov $0, x9\0A.endif", "=r"()
  store i64 %r, ptr @global
  ret i64 0
}

; A register that could carry a third result is used after a call.
define i64 @no_result(i64 %a) #0 {
  %r = call i64 @callee(i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 8, i32 0, i64 0)
  %s = call i64 asm sideeffect ".ifeq ISA-62\0Amovq %r11, $0\0A.else\0Amov $0, x5\0A.endif", "=r"()
  ret i64 %s
}

attributes #0 = { nounwind uwtable "frame-pointer"="all" "disable-tail-calls"="true" }
attributes #1 = { nounwind uwtable "frame-pointer"="all" }
