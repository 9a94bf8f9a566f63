//! Finding the tools that the driver runs: clang and `ld.lld` of LLVM 22, `llvm-strip`, and each ISA's `libgcc.a`.
use std::path::{Path, PathBuf};
use std::process::Command;

use isamorph_arch::Isa;

/// The version of LLVM that code generation is linked with; bitcode of a later one could not be read.
pub const LLVM_MAJOR: u32 = 22;

/// A tool is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// None of the known places has it.
    #[error(
        "no {name} of LLVM {LLVM_MAJOR}: not at ${variable}, nor in {searched}; run cross/setup, or set {variable}"
    )]
    Missing {
        /// What is looked for.
        name: &'static str,
        /// The variable that may say where it is.
        variable: &'static str,
        /// Where it was looked for.
        searched: String,
    },
}

/// `clang`: `$ISAMORPH_CLANG`, LLVM's own folder, or `clang-22` in PATH.
///
/// # Errors
/// If it is in none of these places.
pub fn clang() -> Result<PathBuf, ToolError> {
    find("clang", "ISAMORPH_CLANG")
}

/// `ld.lld`: `$ISAMORPH_LLD`, LLVM's own folder, or `ld.lld-22` in PATH.
///
/// # Errors
/// If it is in none of these places.
pub fn lld() -> Result<PathBuf, ToolError> {
    find("ld.lld", "ISAMORPH_LLD")
}

/// `llvm-strip`: `$ISAMORPH_STRIP`, LLVM's own folder, or `llvm-strip-22` in PATH.
///
/// # Errors
/// If it is in none of these places.
pub fn strip() -> Result<PathBuf, ToolError> {
    find("llvm-strip", "ISAMORPH_STRIP")
}

/// The directories that LLVM's tools are looked for in: its prefix, then Debian's.
fn prefixes() -> Vec<PathBuf> {
    let given = std::env::var_os("LLVM_SYS_221_PREFIX").map(PathBuf::from);
    let known = ["/usr/lib/llvm-22", "/usr/local/llvm-22", "/opt/llvm-22"].map(PathBuf::from);
    given.into_iter().chain(known).map(|prefix| prefix.join("bin")).collect()
}

fn find(name: &'static str, variable: &'static str) -> Result<PathBuf, ToolError> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        let searched = format!("{} (which does not exist)", path.display());
        return Err(ToolError::Missing { name, variable, searched });
    }
    let dirs = prefixes();
    let beside = dirs.iter().map(|dir| dir.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versioned =
        std::env::split_paths(&path).map(|dir| dir.join(format!("{name}-{LLVM_MAJOR}"))).collect::<Vec<_>>();
    beside.chain(versioned).find(|candidate| candidate.is_file()).ok_or_else(|| {
        let shown: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
        ToolError::Missing { name, variable, searched: format!("{}, PATH", shown.join(", ")) }
    })
}

/// The folder of headers that belong to clang itself (`stddef.h`, `stdarg.h`).
#[must_use]
pub fn clang_headers(clang: &Path) -> Option<PathBuf> {
    // Its place relative to the program; asking the program would cost a process per compilation.
    let real = std::fs::canonicalize(clang).ok()?;
    let near = real.parent()?.join(format!("../lib/clang/{LLVM_MAJOR}/include"));
    if near.is_dir() {
        return std::fs::canonicalize(near).ok();
    }
    let output = Command::new(clang).arg("-print-resource-dir").output().ok()?;
    let dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()).join("include");
    dir.is_dir().then_some(dir)
}

/// `libgcc.a` for `isa`: `$ISAMORPH_LIBGCC_X86_64`, `$ISAMORPH_LIBGCC_AARCH64`, the sysroot's, Debian's, or what a
/// gcc says.
#[must_use]
pub fn libgcc(isa: Isa, sysroot: Option<&Path>) -> Option<PathBuf> {
    let (variable, triple) = match isa {
        Isa::X86_64 => ("ISAMORPH_LIBGCC_X86_64", "x86_64-linux-gnu"),
        Isa::Aarch64 => ("ISAMORPH_LIBGCC_AARCH64", "aarch64-linux-gnu"),
    };
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        return Some(path);
    }
    let own = sysroot.map(|dir| dir.join(format!("lib/{}/libgcc.a", isa.name())));
    if let Some(own) = own.filter(|path| path.is_file()) {
        return Some(own);
    }
    for base in ["/usr/lib/gcc", "/usr/lib/gcc-cross"] {
        let dir = Path::new(base).join(triple);
        let versions = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut found: Vec<(u32, PathBuf)> = versions
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.split('.').next()?.parse().ok()?;
                Some((version, entry.path().join("libgcc.a")))
            })
            .filter(|(_, path)| path.is_file())
            .collect();
        found.sort();
        if let Some((_, path)) = found.pop() {
            return Some(path);
        }
    }
    let output = Command::new(format!("{triple}-gcc")).arg("-print-libgcc-file-name").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}
