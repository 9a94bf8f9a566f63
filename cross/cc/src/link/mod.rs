//! Linking: one explicit list of objects, one script, `ld.lld` once per ISA, then the checks that make it a pair.
pub mod image;
pub mod script;
mod variadics;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use isamorph::portable::verify::verify_pair;
use isamorph_arch::Isa;

use crate::resolve::{Resolution, ResolveError};
use image::{Image, Load, compare_loads};
use script::Measures;

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// What to link could not be decided.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A file could not be written, read or moved into place.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The linker refused, or wrote something else than was asked for.
    #[error("linking for {isa}: {message}")]
    Linker {
        /// For which ISA.
        isa: Isa,
        /// What it said.
        message: String,
    },
    /// The two executables have different segments.
    #[error("segment {ordinal} differs or is not aligned: x86_64 {x86_64:x?}, aarch64 {aarch64:x?}")]
    Segments {
        /// Which PT_LOAD.
        ordinal: usize,
        /// There.
        x86_64: Option<Load>,
        /// There.
        aarch64: Option<Load>,
    },
    /// A function is called as if it had other parameters than it has.
    #[error("{}", .0.join("\n"))]
    Variadic(Vec<String>),
    /// The manifest was made for another version.
    #[error(".isamorph.manifest has {size} bytes instead of {expected}: the sysroot is of another version")]
    Manifest {
        /// Its size in bytes.
        size: usize,
        /// What it should be.
        expected: usize,
    },
    /// The runtime is not linked in.
    #[error("the program has no .isamorph.manifest: link the runtime (libc.a), or say --isamorph-no-verify")]
    NoManifest,
    /// The machine code of the pair is not portable.
    #[error("not a portable pair, {count} violations:\n{list}")]
    Violations {
        /// How many.
        count: usize,
        /// One per line.
        list: String,
    },
}

/// What a link consists of besides its inputs.
#[derive(Debug)]
pub struct Plan<'a> {
    /// `ld.lld`.
    pub lld: &'a Path,
    /// The executables are called this, with a suffix per ISA.
    pub output: &'a Path,
    /// Entry point.
    pub entry: &'a str,
    /// Further options for the linker.
    pub options: &'a [OsString],
    /// Where to write a link map (`-Wl,-Map=`); `.aarch64` is appended for that one.
    pub map: Option<&'a Path>,
    /// Skip verification: the result cannot be moved.
    pub no_verify: bool,
    /// Print commands.
    pub verbose: bool,
}

/// `app_x86-64`, `app_aarch64` for `app`.
#[must_use]
pub fn member_path(output: &Path, isa: Isa) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push("_");
    name.push(isa.pair_suffix());
    output.with_file_name(name)
}

/// Links a pair and puts it in place: both executables, and `output` as a symbolic link to this host's.
///
/// # Errors
/// See [`LinkError`]; nothing is put in place then.
pub fn link(resolution: &Resolution, plan: &Plan<'_>) -> Result<(), LinkError> {
    variadics::check(&resolution.objects)?;
    let dir = tempfile::tempdir().map_err(|source| io(&std::env::temp_dir(), source))?;
    let measures = Measures::of(resolution);
    let run = |isa| run_lld(resolution, plan, isa, dir.path(), &measures);
    let (x, a) = std::thread::scope(|scope| {
        let a = scope.spawn(|| run(Isa::Aarch64));
        (run(Isa::X86_64), a.join())
    });
    let (mut x, mut a) = (x?, a.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    compare_loads(&x, &a)?;
    let manifests = [x.has_manifest()?, a.has_manifest()?];
    if plan.no_verify {
        eprintln!("isamorph-cc: warning: {}: not verified, cannot be moved", plan.output.display());
    } else if manifests == [true, true] {
        let [sites_x, sites_a] = prove(&x, &a, plan)?;
        let size = sites_x.len().max(sites_a.len()).max(64).next_multiple_of(64);
        x.put_sites(&sites_x, size)?;
        a.put_sites(&sites_a, size)?;
        compare_loads(&x, &a)?;
    } else {
        return Err(LinkError::NoManifest);
    }
    if manifests == [true, true] {
        let (id_x, id_a) = (x.identity()?, a.identity()?);
        x.put_identities(&id_x, &id_a)?;
        a.put_identities(&id_a, &id_x)?;
    }
    install(&x, &a, plan.output)
}

/// How many violations are shown; one defect often shows in many places.
const SHOWN_VIOLATIONS: usize = 20;

/// Proves the invariants on the machine code of both executables: the tables of their sites.
fn prove(x: &Image, a: &Image, plan: &Plan<'_>) -> Result<[Vec<u8>; 2], LinkError> {
    let proof = verify_pair(&x.bytes, &a.bytes).map_err(|violations| {
        let mut lines: Vec<_> = violations.iter().take(SHOWN_VIOLATIONS).map(ToString::to_string).collect();
        if violations.len() > lines.len() {
            lines.push(format!("and {} more", violations.len() - lines.len()));
        }
        LinkError::Violations { count: violations.len(), list: lines.join("\n") }
    })?;
    if plan.verbose {
        eprintln!(
            "isamorph-cc: {}: {} sites verified in {:.1?}",
            plan.output.display(),
            proof.stats.sites,
            proof.stats.time
        );
    }
    Ok([proof.x86_64.to_bytes(), proof.aarch64.to_bytes()])
}

fn run_lld(
    resolution: &Resolution,
    plan: &Plan<'_>,
    isa: Isa,
    dir: &Path,
    measures: &Measures,
) -> Result<Image, LinkError> {
    let (emulation, slot) = match isa {
        Isa::X86_64 => ("elf_x86_64", 0),
        Isa::Aarch64 => ("aarch64linux", 1),
    };
    let dir = dir.join(isa.name());
    std::fs::create_dir(&dir).map_err(|source| io(&dir, source))?;
    let output = dir.join("out");
    let script = dir.join("pair.ld");
    write(&script, script::script(plan.entry, measures, isa).as_bytes())?;
    let mut list = String::new();
    let mut add = |ordinal: usize, name: &str, bytes: &[u8]| {
        // The name shows in the linker's messages and in its map.
        let readable: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let start = readable.len().saturating_sub(60);
        let path = dir.join(format!("{ordinal:05}-{}.o", &readable[start..]));
        list.push_str(&format!("\"{}\"\n", path.display()));
        write(&path, bytes)
    };
    for (ordinal, linked) in resolution.objects.iter().enumerate() {
        let bytes = match isa {
            Isa::X86_64 => &linked.bytes,
            Isa::Aarch64 => &linked.fat.aarch64_bytes,
        };
        add(ordinal, &linked.name, bytes)?;
    }
    for (ordinal, native) in resolution.native[slot].iter().enumerate() {
        add(resolution.objects.len() + ordinal, &native.name, &native.bytes)?;
    }
    let response = dir.join("list");
    write(&response, list.as_bytes())?;
    let mut command = Command::new(plan.lld);
    command.args(["-m", emulation, "-static", "--build-id=sha1", "--no-gc-sections", "--no-relax", "--icf=none"]);
    command.args(["-z", "norelro", "-z", "max-page-size=65536", "-z", "common-page-size=65536", "-z", "noexecstack"]);
    command.arg("--orphan-handling=place").arg("-T").arg(script).arg("-o").arg(&output).args(plan.options);
    if let Some(map) = plan.map {
        let mut path = map.as_os_str().to_owned();
        if isa == Isa::Aarch64 {
            path.push(".aarch64");
        }
        let mut option = OsString::from("-Map=");
        option.push(path);
        command.arg(option);
    }
    let mut at = OsString::from("@");
    at.push(&response);
    command.arg(at);
    if plan.verbose {
        eprintln!(" {command:?}");
    }
    let result = command.output().map_err(|source| io(plan.lld, source))?;
    let message = String::from_utf8_lossy(&result.stderr).into_owned();
    if !result.status.success() {
        return Err(LinkError::Linker { isa, message });
    }
    if !message.trim().is_empty() {
        eprint!("{message}");
    }
    let bytes = std::fs::read(&output).map_err(|source| io(&output, source))?;
    Ok(Image { isa, bytes })
}

/// Writes both files beside their places, then moves them there, so that a running program keeps its file.
fn install(x: &Image, a: &Image, output: &Path) -> Result<(), LinkError> {
    for image in [x, a] {
        let path = member_path(output, image.isa);
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        write(&temporary, &image.bytes)?;
        // As a linker does: executable for those who may read it.
        let mode = std::fs::metadata(&temporary).map_err(|source| io(&temporary, source))?.permissions().mode();
        let mode = mode | (mode & 0o444) >> 2;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| io(&path, source))?;
    }
    let host = member_path(output, Isa::host().unwrap_or(Isa::X86_64));
    let target = host.file_name().map(PathBuf::from).unwrap_or_default();
    match std::fs::remove_file(output) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(io(output, source)),
        _ => {}
    }
    std::os::unix::fs::symlink(&target, output).map_err(|source| io(output, source))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LinkError> {
    std::fs::write(path, bytes).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> LinkError {
    LinkError::Io { path: path.to_owned(), source }
}
