; Functions that call setjmp and hold: slots, a constant in a register, a constant in the frame that nothing changes.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"

declare void @llvm.experimental.stackmap(i64, i32, ...)
declare i64 @__isam_syscall(i64, i64)
declare i32 @__isam_setjmp(ptr, ptr) #1

@cells = global [44 x i64] zeroinitializer
@buffer = global [8 x i64] zeroinitializer

define i64 @work(i64 %a) #0 {
  %r = call i64 @__isam_syscall(i64 178, i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 1, i32 0, i64 0)
  ret i64 %r
}

define i64 @jumper(i64 %a) #0 {
  %slots = alloca { ptr, i64, i64 }, align 16
  store ptr @cells, ptr %slots
  %a.at = getelementptr { ptr, i64, i64 }, ptr %slots, i64 0, i32 2
  store i64 %a, ptr %a.at
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 2, i32 0, ptr %slots, i64 24, i64 1)
  %again = sext i32 %r to i64
  %b = load i64, ptr %a.at
  %v = call i64 @work(i64 %b)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 3, i32 0, ptr %slots, i64 24, i64 1)
  ret i64 %v
}

; The constant is in the frame when control comes back, from whichever site.
define i64 @steady() #0 {
  %slots = alloca { ptr, i64 }, align 16
  %spill = alloca i64, align 16
  store ptr @cells, ptr %slots
  store volatile i64 77, ptr %spill
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 4, i32 0, ptr %slots, i64 16, i64 2)
  %x = load volatile i64, ptr %spill
  %v = call i64 @work(i64 %x)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 5, i32 0, ptr %slots, i64 16, i64 2)
  ret i64 %v
}

attributes #0 = { nounwind uwtable "frame-pointer"="all" "disable-tail-calls"="true" }
attributes #1 = { returns_twice }
