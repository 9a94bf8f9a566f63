//! What the decoders say of instructions that the proof was once wrong about.
use super::abi::Abi;
use super::insn::{Insn, Parts, Reg};
use isamorph_arch::Isa;

fn decode(isa: Isa, code: &[u8]) -> Insn {
    Abi::new(isa).decoder().unwrap().decode(code, 0x40_0000).unwrap()
}

const RAX: Reg = Reg::gpr(0);
const RCX: Reg = Reg::gpr(2);

#[test]
fn a_prefetch_uses_its_address_and_nothing_else() {
    // prefetcht0 [rax + rcx*4]; prfm pldl1keep, [x0]
    let insn = decode(Isa::X86_64, &[0x0f, 0x18, 0x0c, 0x88]);
    assert_eq!(insn.reads, Parts::all(RAX) | Parts::all(RCX));
    assert_eq!((insn.kills, insn.effects().count()), (Parts::NONE, 0));
    let insn = decode(Isa::Aarch64, &[0x00, 0x00, 0x80, 0xf9]);
    assert_eq!((insn.reads, insn.effects().count()), (Parts::all(Reg::gpr(0)), 0));
}

#[test]
fn a_bit_scan_may_leave_its_result_as_it_was() {
    // bsr ecx, eax; bsf ecx, eax; rep bsf ecx, eax
    for code in [&[0x0f, 0xbd, 0xc8][..], &[0x0f, 0xbc, 0xc8], &[0xf3, 0x0f, 0xbc, 0xc8]] {
        let insn = decode(Isa::X86_64, code);
        assert!(insn.reads.extent(RCX) >= 4 && insn.reads.extent(RAX) == 4, "{code:x?}: {insn:?}");
    }
}

#[test]
fn a_narrow_write_leaves_the_rest() {
    // sete r12b; mov r9d, r12d
    let [r9, r12] = [9, 12].map(Reg::gpr);
    let insn = decode(Isa::X86_64, &[0x41, 0x0f, 0x94, 0xc4]);
    assert_eq!(insn.kills, Parts::low(r12, 1));
    let insn = decode(Isa::X86_64, &[0x45, 0x89, 0xe1]);
    assert_eq!((insn.kills, insn.reads), (Parts::all(r9), Parts::low(r12, 4)));
    assert!(insn.pure, "so much of r12 is used as is used of r9");
}

#[test]
fn no_register_is_an_argument_that_the_abi_does_not_name() {
    let [x86, a64] = Isa::ALL.map(Abi::new);
    // rax, r10, r11; x8 (where a result would go), x9
    for reg in [RAX, Reg::gpr(10), Reg::gpr(11)] {
        assert_eq!((x86.arguments | x86.kept_at_entry).extent(reg), 0, "{reg:?}");
    }
    for reg in [Reg::gpr(8), Reg::gpr(9), Reg::gpr(17)] {
        assert_eq!((a64.arguments | a64.kept_at_entry).extent(reg), 0, "{reg:?}");
    }
    assert_eq!(a64.live_at_return.extent(Reg::gpr(2)), 0);
}
