//! The front end: clang for a neutral target, up to bitcode that no optimisation has touched yet.
//!
//! The neutral target is riscv64 with none of its names visible: its `va_list` is a pointer, its ABI has no byval
//! arguments in registers, it is LP64 with the asm-generic kernel ABI, and it leads programs to their portable C.
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::options::Options;
use crate::tools;

/// The triple that the front end compiles for.
pub const NEUTRAL_TRIPLE: &str = "riscv64-linux-musl";

/// Names by which programs would take the neutral target for a real one (clang 22).
const HIDDEN_MACROS: &[&str] = &[
    "__riscv",
    "__riscv_a",
    "__riscv_arch_test",
    "__riscv_atomic",
    "__riscv_c",
    "__riscv_cmodel_medlow",
    "__riscv_compressed",
    "__riscv_d",
    "__riscv_div",
    "__riscv_f",
    "__riscv_fdiv",
    "__riscv_flen",
    "__riscv_float_abi_double",
    "__riscv_fsqrt",
    "__riscv_i",
    "__riscv_m",
    "__riscv_misaligned_avoid",
    "__riscv_mul",
    "__riscv_muldiv",
    "__riscv_v_intrinsic",
    "__riscv_xlen",
    "__riscv_zaamo",
    "__riscv_zalrsc",
    "__riscv_zca",
    "__riscv_zcd",
    "__riscv_zicsr",
    "__riscv_zmmul",
];
/// What the options of the user may change (ISO C leaves it open, and both ISAs get the same).
const DEFAULTS: &[&str] = &["-fsigned-char"];
/// What they may not: each of these would make the results or the frames depend on the ISA.
const FIXED: &[&str] = &[
    // Contraction to fused multiply-add exists on one ISA only.
    "-ffp-contract=off",
    // Out-of-range conversions are defined (saturating), where the two machines' instructions differ.
    "-fno-strict-float-cast-overflow",
    "-fno-pic",
    "-fno-stack-protector",
    "-ftls-model=local-exec",
    "-fno-common",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    // Every optimisation is done once, in the pipeline that knows both targets.
    "-Xclang",
    "-disable-llvm-passes",
];

/// Why there is no bitcode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// clang could not be started.
    #[error("cannot run {clang}: {source}")]
    Start {
        /// Its path.
        clang: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// clang refused the source; it has said why.
    #[error("clang failed with status {0}")]
    Failed(i32),
}

/// The front end with all that does not depend on the source.
#[derive(Debug)]
pub struct Frontend {
    clang: PathBuf,
    before: Vec<OsString>,
    after: Vec<OsString>,
    verbose: bool,
}

impl Frontend {
    /// `include`: the folder of the C library's headers, if there is one.
    #[must_use]
    pub fn new(clang: PathBuf, options: &Options, include: Option<&Path>) -> Self {
        let mut before: Vec<OsString> = vec![format!("--target={NEUTRAL_TRIPLE}").into(), "-nostdinc".into()];
        before.extend(HIDDEN_MACROS.iter().map(|name| format!("-U{name}").into()));
        before.push("-D__isamorph__=1".into());
        before.extend(DEFAULTS.iter().map(OsString::from));
        let mut after: Vec<OsString> = FIXED.iter().map(OsString::from).collect();
        if !options.no_includes {
            // After the user's -isystem, as the standard folders of any compiler; musl's `stddef.h` before clang's.
            for dir in include.map(Path::to_owned).into_iter().chain(tools::clang_headers(&clang)) {
                after.extend(["-isystem".into(), dir.into_os_string()]);
            }
        }
        if matches!(options.optimise.as_deref(), None | Some("0")) {
            after.extend(["-Xclang", "-disable-O0-optnone"].map(OsString::from));
        }
        if options.verbose {
            after.push("-v".into());
        }
        Self { clang, before, after, verbose: options.verbose }
    }

    /// The command for one source; `last` is appended.
    fn command(&self, options: &Options, source: &Path, language: Option<&str>, last: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.clang);
        command.args(&self.before).args(&options.frontend).args(&self.after).args(last);
        if let Some(language) = language {
            command.args(["-x", language]);
        }
        command.arg(source);
        if self.verbose {
            eprintln!(" {command:?}");
        }
        command
    }

    /// Compiles one source to bitcode. `dependencies` is where `-MD` writes to, and for which target.
    ///
    /// # Errors
    /// If clang cannot be run or fails.
    pub fn compile(
        &self,
        options: &Options,
        source: &Path,
        language: Option<&str>,
        dependencies: Option<(&Path, Option<&Path>)>,
    ) -> Result<Vec<u8>, FrontendError> {
        let mut last: Vec<&OsStr> = ["-emit-llvm", "-c", "-o", "-"].map(OsStr::new).to_vec();
        if let Some((file, target)) = dependencies {
            last.extend([OsStr::new("-MF"), file.as_os_str()]);
            if let Some(target) = target {
                last.extend([OsStr::new("-MT"), target.as_os_str()]);
            }
        }
        let mut command = self.command(options, source, language, &last);
        if options.dry_run {
            return Ok(Vec::new());
        }
        let output = command
            .stdin(Stdio::inherit())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|source| FrontendError::Start { clang: self.clang.clone(), source })?;
        match output.status.code() {
            Some(0) => Ok(output.stdout),
            code => Err(FrontendError::Failed(code.unwrap_or(1))),
        }
    }

    /// Runs what the front end does alone: `-E`, `-M`, `-fsyntax-only`. Standard output is this process's.
    ///
    /// # Errors
    /// If clang cannot be run or fails.
    pub fn alone(&self, options: &Options, source: &Path, language: Option<&str>) -> Result<(), FrontendError> {
        let mut last: Vec<&OsStr> = Vec::new();
        match options.mode() {
            crate::options::Mode::CheckSyntax => last.push(OsStr::new("-fsyntax-only")),
            _ => {
                if let Some(output) = &options.output {
                    last.extend([OsStr::new("-o"), output.as_os_str()]);
                }
                if let Some(file) = &options.dependency_file {
                    last.extend([OsStr::new("-MF"), file.as_os_str()]);
                }
            }
        }
        let mut command = self.command(options, source, language, &last);
        if options.dry_run {
            return Ok(());
        }
        let status = command.status().map_err(|source| FrontendError::Start { clang: self.clang.clone(), source })?;
        match status.code() {
            Some(0) => Ok(()),
            code => Err(FrontendError::Failed(code.unwrap_or(1))),
        }
    }
}
