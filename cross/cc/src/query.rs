//! What `configure`, `cmake` and people ask a compiler about itself.
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use isamorph_arch::Isa;

use crate::options::{Options, Query};
use crate::sysroot::Sysroot;
use crate::tools;

/// Neither ISA's name: a program that picks assembly by it must find none.
pub const MACHINE: &str = "isamorph-unknown-linux-musl";

/// Prints the answer.
///
/// # Errors
/// If clang is needed for it and cannot be run.
pub fn answer(query: &Query, options: &Options, sysroot: Option<&Sysroot>) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let root = || sysroot.map(|s| s.root().display().to_string()).unwrap_or_default();
    match query {
        Query::Version => {
            let clang = tools::clang()?;
            let output = Command::new(&clang).arg("--version").output();
            let output = output.with_context(|| format!("running {}", clang.display()))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.lines().next().unwrap_or("clang");
            // Build systems know the dialect by the word "clang" and the number after it.
            println!("{version} (isamorph-cc {own})\nTarget: {MACHINE}\nThread model: posix\nSysroot: {}", root());
        }
        Query::Help => println!(
            "usage: isamorph-cc [options] file...\n\n\
             A C compiler with the options of cc. A link writes a pair: OUTPUT_{x}, OUTPUT_{a}, and OUTPUT as a\n\
             symbolic link to this machine's. Further options:\n\
             \x20 --isamorph-no-verify   write a pair that is not verified; it cannot be moved\n\
             \x20 --build-sysroot --musl-source DIR --overrides DIR --runtime DIR [-o DIR]\n\
             \x20                        build the C library; see cross/setup",
            x = Isa::X86_64.pair_suffix(),
            a = Isa::Aarch64.pair_suffix(),
        ),
        Query::Machine => println!("{MACHINE}"),
        Query::ShortVersion => println!("{}", tools::LLVM_MAJOR),
        Query::SearchDirs => {
            let mut dirs: Vec<_> = options.library_paths.iter().map(|d| d.display().to_string()).collect();
            dirs.extend(sysroot.map(|s| s.lib().display().to_string()));
            println!("programs: =\nlibraries: ={}", dirs.join(":"));
        }
        Query::Sysroot => println!("{}", root()),
        Query::Libgcc => println!("{}", find_file(OsStr::new("libc.a"), sysroot).display()),
        Query::Fixed(text) => println!("{text}"),
        Query::Program(name) => {
            let found = match name.to_str() {
                Some("ld" | "ld.lld") => tools::lld().ok(),
                _ => None,
            };
            println!("{}", found.unwrap_or_else(|| PathBuf::from(name)).display());
        }
        Query::File(name) => println!("{}", find_file(name, sysroot).display()),
    }
    Ok(())
}

fn find_file(name: &OsStr, sysroot: Option<&Sysroot>) -> PathBuf {
    let path = sysroot.map(|s| s.lib().join(name)).filter(|path| path.exists());
    path.unwrap_or_else(|| PathBuf::from(name))
}
