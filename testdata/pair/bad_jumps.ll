; Functions that call setjmp and each break the proof in one way; the tests look for each of them by name.
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

; Translation would not know of the cell.
define i32 @no_cells() #0 {
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 2, i32 0, i64 0)
  ret i32 %r
}

; At one of its sites translation would not.
define i64 @cells_differ() #0 {
  %slots = alloca { ptr, i64 }, align 16
  store ptr @cells, ptr %slots
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 3, i32 0, ptr %slots, i64 16, i64 1)
  %v = call i64 @work(i64 1)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 4, i32 0, ptr %slots, i64 16)
  ret i64 %v
}

; The address of the cells is nowhere.
define i64 @no_address() #0 {
  %slots = alloca { ptr, i64 }, align 16
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 5, i32 0, ptr %slots, i64 16, i64 1)
  %v = call i64 @work(i64 1)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 6, i32 0, ptr %slots, i64 16, i64 1)
  ret i64 %v
}

; What is a constant at the first return is another one at the second.
define i64 @changing() #0 {
  %slots = alloca { ptr, i64 }, align 16
  %spill = alloca i64, align 16
  store ptr @cells, ptr %slots
  store volatile i64 77, ptr %spill
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 7, i32 0, ptr %slots, i64 16, i64 1)
  %x = load volatile i64, ptr %spill
  store volatile i64 78, ptr %spill
  %v = call i64 @work(i64 %x)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 8, i32 0, ptr %slots, i64 16, i64 1)
  ret i64 %v
}

; Likewise in a slot: the register that it is loaded into afterwards holds no residue.
define i64 @changing_slot() #0 {
  %slots = alloca { ptr, i64, i64 }, align 16
  store ptr @cells, ptr %slots
  %at = getelementptr { ptr, i64, i64 }, ptr %slots, i64 0, i32 2
  store i64 123456789012, ptr %at
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 9, i32 0, ptr %slots, i64 24, i64 1)
  %x = load i64, ptr %at
  %v = call i64 @work(i64 1)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 10, i32 0, ptr %slots, i64 24, i64 1)
  store i64 210987654321, ptr %at
  %w = call i64 @work(i64 %v)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 11, i32 0, ptr %slots, i64 24, i64 1)
  %sum = add i64 %w, %x
  ret i64 %sum
}

; A value in a register is as lost as at any other site.
define i64 @live(i64 %a) #0 {
  %slots = alloca { ptr, i64 }, align 16
  store ptr @cells, ptr %slots
  %r = call i32 @__isam_setjmp(ptr @buffer, ptr @cells) #1
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 12, i32 0, ptr %slots, i64 16, i64 1)
  %wide = sext i32 %r to i64
  %sum = add i64 %a, %wide
  ret i64 %sum
}

attributes #0 = { nounwind uwtable "frame-pointer"="all" "disable-tail-calls"="true" }
attributes #1 = { returns_twice }
