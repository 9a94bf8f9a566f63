//! Interim code generation by LLVM's command-line tools, until `codegen` has landed: no slots, polls or sites.
use std::path::Path;
use std::process::Command;

/// Both relocatables of a module.
#[derive(Debug)]
pub struct Compiled {
    /// For x86_64.
    pub x86_64: Vec<u8>,
    /// For aarch64.
    pub aarch64: Vec<u8>,
}

/// Compiles bitcode of the neutral target.
///
/// # Errors
/// If one of the tools fails.
pub fn compile_module(bitcode: &[u8]) -> std::io::Result<Compiled> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("a.bc"), bitcode)?;
    let run = |tool: &str, args: &[&str], files: [&Path; 2]| {
        let mut command = Command::new(Path::new("/usr/lib/llvm-22/bin").join(tool));
        let status = command.args(args).arg(files[0]).arg("-o").arg(files[1]).status()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("{tool} failed"))) }
    };
    run("opt", &["-O2", "-S"], [&path("a.bc"), &path("a.ll")])?;
    let mut text = String::new();
    for line in std::fs::read_to_string(path("a.ll"))?.lines() {
        let neutral = ["\"target-abi\"", "\"riscv-isa\"", "\"SmallDataLimit\""];
        if line.starts_with("target ") {
            continue;
        }
        if let Some((number, _)) = line.split_once(" = !{i32 ")
            && neutral.iter().any(|n| line.contains(&format!("!{n}")))
        {
            text += &format!("{number} = !{{i32 1, !\"was-neutral-{}\", i32 0}}\n", &number[1..]);
            continue;
        }
        let mut line = line
            .replace(" = private unnamed_addr ", " = internal ")
            .replace(" = private ", " = internal ")
            .replace("unnamed_addr constant", "constant");
        for key in ["\"target-cpu\"=\"", "\"target-features\"=\""] {
            if let Some(start) = line.find(key)
                && let Some(length) = line[start + key.len()..].find('"')
            {
                line.replace_range(start..start + key.len() + length + 1, "");
            }
        }
        text += &line;
        text.push('\n');
    }
    std::fs::write(path("b.ll"), text)?;
    let common = [
        "-O2",
        "-relocation-model=static",
        "-function-sections",
        "-data-sections",
        "-trap-unreachable",
        "-filetype=obj",
        "-frame-pointer=all",
        "-basic-block-address-map",
        "-pgo-analysis-map=br-prob",
    ];
    let x: Vec<&str> = common.iter().copied().chain(["-mtriple=x86_64-unknown-linux-musl"]).collect();
    let a: Vec<&str> = common
        .iter()
        .copied()
        .chain(["-mtriple=aarch64-unknown-linux-musl", "-aarch64-enable-global-merge=false"])
        .chain(["-aarch64-enable-atomic-cfg-tidy=false"])
        .collect();
    run("llc", &x, [&path("b.ll"), &path("x.o")])?;
    run("llc", &a, [&path("b.ll"), &path("a.o")])?;
    Ok(Compiled { x86_64: std::fs::read(path("x.o"))?, aarch64: std::fs::read(path("a.o"))? })
}
