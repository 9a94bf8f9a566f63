//! Builds the C++ shim over the parts of LLVM that its C API lacks.
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an object file depends on besides its source: the sysroot's cache is keyed by a hash of these.
const CODE_GENERATION: &[&str] =
    &["shim", "src/passes", "src/codegen", "src/llvm", "src/pair", "src/leaves.rs", "src/frontend.rs", "src/options"];

fn main() {
    let mut hasher = DefaultHasher::new();
    for path in CODE_GENERATION {
        println!("cargo:rerun-if-changed={path}");
        hash_files(Path::new(path), &mut hasher);
    }
    println!("cargo:rustc-env=ISAMORPH_CODE_GENERATION={:016x}", hasher.finish());

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

fn hash_files(path: &Path, hasher: &mut DefaultHasher) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        paths.sort();
        paths.iter().for_each(|p| hash_files(p, hasher));
    } else {
        path.hash(hasher);
        std::fs::read(path).unwrap_or_default().hash(hasher);
    }
}
