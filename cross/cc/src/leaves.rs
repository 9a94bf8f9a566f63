//! The functions that are no sites: they neither poll nor call the system, so that no thread is ever parked in them.

/// Memory functions that code generation calls by itself on one ISA and expands in line on the other.
const MEMORY: [&str; 5] = ["memcmp", "memcpy", "memmove", "memset", "bcmp"];

/// Helpers of a compiler's runtime library that LLVM 22 calls for C on either ISA
/// (`llvm/include/llvm/IR/RuntimeLibcalls.td`; libgcc's names).
const HELPERS: &[&str] = &[
    // 128-bit integers
    "__ashlti3",
    "__ashrti3",
    "__lshrti3",
    "__multi3",
    "__divti3",
    "__udivti3",
    "__modti3",
    "__umodti3",
    "__divmodti4",
    "__udivmodti4",
    "__muloti4",
    "__clzti2",
    "__ctzti2",
    "__ffsti2",
    "__popcountdi2",
    "__popcountsi2",
    "__popcountti2",
    "__parityti2",
    "__paritydi2",
    "__paritysi2",
    // binary128
    "__addtf3",
    "__subtf3",
    "__multf3",
    "__divtf3",
    "__negtf2",
    "__eqtf2",
    "__netf2",
    "__lttf2",
    "__letf2",
    "__gttf2",
    "__getf2",
    "__unordtf2",
    "__extendsftf2",
    "__extenddftf2",
    "__extendhftf2",
    "__trunctfsf2",
    "__trunctfdf2",
    "__trunctfhf2",
    "__fixtfsi",
    "__fixtfdi",
    "__fixtfti",
    "__fixunstfsi",
    "__fixunstfdi",
    "__fixunstfti",
    "__floatsitf",
    "__floatditf",
    "__floattitf",
    "__floatunsitf",
    "__floatunditf",
    "__floatuntitf",
    "__powitf2",
    // 128-bit integers and binary16/32/64
    "__fixsfti",
    "__fixdfti",
    "__fixunssfti",
    "__fixunsdfti",
    "__floattisf",
    "__floattidf",
    "__floatuntisf",
    "__floatuntidf",
    "__extendhfsf2",
    "__truncsfhf2",
    "__truncdfhf2",
    "__powisf2",
    "__powidf2",
    // complex arithmetic
    "__mulsc3",
    "__muldc3",
    "__multc3",
    "__divsc3",
    "__divdc3",
    "__divtc3",
];

/// Whether a call of `symbol` needs no site.
#[must_use]
pub fn is_leaf(symbol: &str) -> bool {
    MEMORY.contains(&symbol) || is_helper(symbol)
}

/// Whether `symbol` is taken from each ISA's own compiler runtime library, so that its address may differ.
#[must_use]
pub fn is_helper(symbol: &str) -> bool {
    HELPERS.contains(&symbol)
}
