//! Builds the C++ shim over the parts of LLVM that its C API lacks.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=LLVM_SYS_221_PREFIX");
    // llvm-sys found this one; both must use the same LLVM.
    let config = std::env::var("DEP_LLVM_22_CONFIG_PATH").unwrap_or_else(|_| "llvm-config-22".into());
    let flags = Command::new(&config).arg("--cxxflags").output().unwrap_or_else(|error| {
        panic!("cannot run {config}: {error}; install LLVM 22's development files or set LLVM_SYS_221_PREFIX")
    });
    let mut build = cc::Build::new();
    build.cpp(true).file("shim/shim.cpp").opt_level(2).warnings(false);
    for flag in String::from_utf8_lossy(&flags.stdout).split_whitespace() {
        match flag.strip_prefix("-I") {
            // System headers: their warnings are not ours.
            Some(path) => build.flag("-isystem").flag(path),
            None => build.flag(flag),
        };
    }
    build.flag("-fno-rtti").compile("isamorph_shim");
}
