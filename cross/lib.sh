# What the scripts beside this file share. Sourced by bash; expects `set -euo pipefail`.
# shellcheck shell=bash

cross=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$cross")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/isamorph
# shellcheck disable=SC2034 # used by those who source this
isas=(x86_64 aarch64)
export LLVM_SYS_221_PREFIX=${LLVM_SYS_221_PREFIX:-/usr/lib/llvm-22}

fail() {
    echo "cross/$(basename "$0"): $*" >&2
    exit 1
}

# close_leaked: closes all descriptors but the standard three, in a subshell that will become a program to be dumped. What the
# caller of a script forgot to close is none of that program's.
close_leaked() {
    local fd
    for fd in /proc/self/fd/*; do
        [ "${fd##*/}" -le 2 ] || eval "exec ${fd##*/}>&-"
    done
}

# rust_target ISA: the Rust target for static programs of that ISA. Debian's own Rust has no musl for a foreign ISA, and a
# static glibc does as well for what these programs need.
rust_target() {
    local libs target
    libs=$(rustc --print sysroot)/lib/rustlib
    for target in "$1-unknown-linux-musl" "$1-unknown-linux-gnu"; do
        if [ -d "$libs/$target/lib" ]; then
            echo "$target"
            return
        fi
    done
    return 1
}

# static_environment: what cargo and the C compilers of its build scripts need to make static programs of either ISA.
static_environment() {
    local target
    export RUSTFLAGS='-C target-feature=+crt-static'
    for target in musl gnu; do
        export "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_${target^^}_LINKER=aarch64-linux-gnu-gcc"
        export "CC_aarch64_unknown_linux_$target=aarch64-linux-gnu-gcc" "AR_aarch64_unknown_linux_$target=aarch64-linux-gnu-ar"
        export "CC_x86_64_unknown_linux_$target=gcc"
    done
    # C code is compiled with glibc's headers. Linked with musl it may only use what both have: no fortified entry points.
    export CFLAGS_aarch64_unknown_linux_musl='-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0'
    export CFLAGS_x86_64_unknown_linux_musl=$CFLAGS_aarch64_unknown_linux_musl
}
