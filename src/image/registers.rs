//! General registers in images, beside those that the kernel gives: the same values under CRIU's names.
use isamorph_arch::{aarch64, x86_64};

use super::proto;

impl From<&x86_64::Regs> for proto::UserX86RegsEntry {
    fn from(r: &x86_64::Regs) -> Self {
        Self {
            r15: r.r15,
            r14: r.r14,
            r13: r.r13,
            r12: r.r12,
            bp: r.rbp,
            bx: r.rbx,
            r11: r.r11,
            r10: r.r10,
            r9: r.r9,
            r8: r.r8,
            ax: r.rax,
            cx: r.rcx,
            dx: r.rdx,
            si: r.rsi,
            di: r.rdi,
            orig_ax: r.orig_rax,
            ip: r.rip,
            cs: r.cs,
            flags: r.eflags,
            sp: r.rsp,
            ss: r.ss,
            fs_base: r.fs_base,
            gs_base: r.gs_base,
            ds: r.ds,
            es: r.es,
            fs: r.fs,
            gs: r.gs,
            mode: Some(proto::X86RegsMode::Native.into()),
        }
    }
}

impl From<&proto::UserX86RegsEntry> for x86_64::Regs {
    fn from(r: &proto::UserX86RegsEntry) -> Self {
        Self {
            r15: r.r15,
            r14: r.r14,
            r13: r.r13,
            r12: r.r12,
            rbp: r.bp,
            rbx: r.bx,
            r11: r.r11,
            r10: r.r10,
            r9: r.r9,
            r8: r.r8,
            rax: r.ax,
            rcx: r.cx,
            rdx: r.dx,
            rsi: r.si,
            rdi: r.di,
            orig_rax: r.orig_ax,
            rip: r.ip,
            cs: r.cs,
            eflags: r.flags,
            rsp: r.sp,
            ss: r.ss,
            fs_base: r.fs_base,
            gs_base: r.gs_base,
            ds: r.ds,
            es: r.es,
            fs: r.fs,
            gs: r.gs,
        }
    }
}

impl From<&aarch64::Regs> for proto::UserAarch64RegsEntry {
    /// The thread pointer is not among them: images have it in `ThreadInfoAarch64`.
    fn from(r: &aarch64::Regs) -> Self {
        Self { regs: r.x.to_vec(), sp: r.sp, pc: r.pc, pstate: r.pstate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_comes_back() {
        // 27 values that all differ: one that went to another's place would show.
        let mut word = 0;
        let mut next = || {
            word += 1;
            word
        };
        #[rustfmt::skip]
        let regs = x86_64::Regs {
            r15: next(), r14: next(), r13: next(), r12: next(), rbp: next(), rbx: next(), r11: next(), r10: next(),
            r9: next(), r8: next(), rax: next(), rcx: next(), rdx: next(), rsi: next(), rdi: next(), orig_rax: next(),
            rip: next(), cs: next(), eflags: next(), rsp: next(), ss: next(), fs_base: next(), gs_base: next(),
            ds: next(), es: next(), fs: next(), gs: next(),
        };
        let entry = proto::UserX86RegsEntry::from(&regs);
        assert_eq!((entry.ax, entry.sp, entry.ip, entry.orig_ax), (regs.rax, regs.rsp, regs.rip, regs.orig_rax));
        assert_eq!(entry.mode(), proto::X86RegsMode::Native);
        assert_eq!(x86_64::Regs::from(&entry), regs);
    }
}
