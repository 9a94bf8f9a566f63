; A pair that holds: a frame with slots, one without, a poll, a constant kept in a register or spill slot.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"

declare void @llvm.experimental.stackmap(i64, i32, ...)
declare i64 @__isam_syscall(i64, i64)
declare void @__isam_safepoint()
declare i64 @leaf(i64)

@table = global [2 x ptr] [ptr @outer, ptr @inner]
@count = global i64 3

define i64 @inner(i64 %a) #0 {
  %slots = alloca { i64, i64 }, align 16
  store i64 %a, ptr %slots
  %r = call i64 @__isam_syscall(i64 178, i64 %a)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 1, i32 0, ptr %slots, i64 16)
  %b = load i64, ptr %slots
  %sum = add i64 %r, %b
  ret i64 %sum
}

define i64 @outer(i64 %n) #0 {
entry:
  %slots = alloca { i64, i64, i32 }, align 16
  %i.at = getelementptr { i64, i64, i32 }, ptr %slots, i64 0, i32 1
  %flag.at = getelementptr { i64, i64, i32 }, ptr %slots, i64 0, i32 2
  store i64 %n, ptr %slots
  store i32 7, ptr %flag.at
  br label %loop

loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %acc = phi i64 [ 1, %entry ], [ %acc.next, %next ]
  callbr void asm sideeffect "${:comment} poll\0A0: .ifeq ISA-62\0A.byte 0x0f,0x1f,0x44,0,0\0A.else\0Anop\0A.endif\0A.pushsection .isamorph.polls,\22a\22\0A.quad 0b, ${0:l}\0A.popsection", "!i"() to label %hot [label %cold]

cold:
  store i64 %i, ptr %i.at
  call void @__isam_safepoint()
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 2, i32 0, ptr %slots, i64 24)
  %i.back = load i64, ptr %i.at
  br label %hot

hot:
  %i.hot = phi i64 [ %i, %loop ], [ %i.back, %cold ]
  store i64 %i.hot, ptr %i.at
  %l = call i64 @leaf(i64 %i.hot)
  %v = call i64 @inner(i64 %l)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 3, i32 0, ptr %slots, i64 24)
  %flag = load i32, ptr %flag.at
  %flag.wide = zext i32 %flag to i64
  %acc.next = add i64 %v, %flag.wide
  br label %next

next:
  %i.now = load i64, ptr %i.at
  %i.next = add i64 %i.now, 1
  %end = load i64, ptr %slots
  %more = icmp ult i64 %i.next, %end
  br i1 %more, label %loop, label %exit

exit:
  ret i64 %acc.next
}

define i64 @through(ptr %f) #0 {
  %r = call i64 %f(i64 5)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 4, i32 0, i64 0)
  ret i64 %r
}

; The switch becomes a jump table on both.
define i64 @choose(i64 %what, i64 %x) #0 {
  switch i64 %what, label %other [ i64 0, label %a
    i64 1, label %b
    i64 2, label %c
    i64 3, label %d
    i64 4, label %e ]
a:
  %ra = call i64 @inner(i64 %x)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 5, i32 0, i64 0)
  ret i64 %ra
b:
  %rb = mul i64 %x, 77
  ret i64 %rb
c:
  %rc = xor i64 %x, 1234
  ret i64 %rc
d:
  %rd = udiv i64 %x, 10
  ret i64 %rd
e:
  %re = call i64 @outer(i64 %x)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 6, i32 0, i64 0)
  ret i64 %re
other:
  ret i64 -1
}

; Constants of a phi are put in registers in the predecessors, before their calls (portable.md, residue i);
; here the same constant comes from both, so it is residue.
define double @constants(i64 %x, i64 %n) #0 {
entry:
  %slots = alloca { i64, i64 }, align 16
  store i64 %x, ptr %slots
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %i.at = getelementptr { i64, i64 }, ptr %slots, i64 0, i32 1
  store i64 %i, ptr %i.at
  %r1 = call i64 @inner(i64 305419896012345)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 7, i32 0, ptr %slots, i64 16)
  %r2 = call i64 @inner(i64 305419896012345)
  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 8, i32 0, ptr %slots, i64 16)
  %i.back = load i64, ptr %i.at
  %i.next = add i64 %i.back, 1
  %again = icmp ult i64 %i.next, 100
  br i1 %again, label %loop, label %exit
exit:
  %d = uitofp i64 %r2 to double
  %e = fadd double %d, 0x3FF123456789ABCD
  ret double %e
}

attributes #0 = { nounwind uwtable "frame-pointer"="all" "disable-tail-calls"="true" }
