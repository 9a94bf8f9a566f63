//! Building the sysroot: musl by this very driver, the runtime's native files by clang per ISA, one `libc.a` of both.
//!
//! `OVERRIDES/apply SOURCE DEST` makes the tree to compile (`DEST/isam.sources`, `isam.flags`, `isam.include`);
//! the runtime's folder holds `<isa>/NAME.S`, paired by name, and `NAME.c`, compiled once per ISA. An object is kept
//! in the cache by a hash of all that it depends on, the code generation of this program included.
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use isamorph_arch::Isa;

use super::{IN_LIBC, cache};
use crate::frontend::Frontend;
use crate::options::Options;
use crate::pair::fat::{self, MODULE_VERSION, ModuleInfo};
use crate::pair::{self, Origin};
use crate::{archive, driver, tools};

/// The runtime's C files that are portable: `apply` has made them part of libc.
const PORTABLE: &[&str] = &["state.c"];
/// How clang compiles the runtime's native files (`cross/runtime/README.md`).
const NATIVE_FLAGS: &[&str] = &[
    "-O2",
    "-std=c11",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-pic",
    "-ftls-model=local-exec",
    "-fno-jump-tables",
    "-fomit-frame-pointer",
    "-ffunction-sections",
    "-fno-exceptions",
    "-Wall",
    "-Werror=implicit-function-declaration",
];

/// The options of `--build-sysroot`.
#[derive(Debug)]
struct Request {
    musl: PathBuf,
    overrides: PathBuf,
    runtime: PathBuf,
    output: Option<PathBuf>,
    jobs: usize,
    verbose: bool,
}

/// Builds a sysroot: `--musl-source DIR --overrides DIR --runtime DIR [-o DIR] [-j N] [-v]`; prints its path.
///
/// Without `-o` it goes to `${XDG_CACHE_HOME:-~/.cache}/isamorph/sysroot-HASH`, unless that is there already, and
/// `sysroot` beside it becomes a link to it, which is where the driver looks.
///
/// # Errors
/// If a file cannot be compiled or paired; every failure is reported before that.
pub fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let request = parse(arguments)?;
    let inputs = Inputs::read(&request)?;
    let cache = cache().context("no place for the cache: neither XDG_CACHE_HOME nor HOME is set")?;
    let link = request.output.is_none().then(|| cache.join("sysroot"));
    let output = request.output.clone().unwrap_or_else(|| cache.join(format!("sysroot-{}", &inputs.hash[..16])));
    let done = output.join("hash");
    // One build at a time: a second one finds the first one's result, or at least its objects.
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let lock_path = cache.join("sysroot.lock");
    let lock = std::fs::File::create(&lock_path).with_context(|| format!("creating {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
    if std::fs::read_to_string(&done).is_ok_and(|hash| hash == inputs.hash) {
        eprintln!("isamorph-cc: {} is up to date", output.display());
    } else {
        build(&request, &inputs, &cache.join("objects"), &output)?;
        std::fs::write(&done, &inputs.hash).with_context(|| format!("writing {}", done.display()))?;
    }
    if let Some(link) = link {
        let temporary = cache.join(format!("sysroot.{}", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        std::os::unix::fs::symlink(output.file_name().unwrap_or_default(), &temporary)
            .and_then(|()| std::fs::rename(&temporary, &link))
            .with_context(|| format!("linking {} to {}", link.display(), output.display()))?;
    }
    println!("{}", output.display());
    Ok(())
}

fn parse(arguments: &[OsString]) -> anyhow::Result<Request> {
    let mut dirs: [Option<PathBuf>; 4] = [None, None, None, None];
    let names = ["--musl-source", "--overrides", "--runtime", "-o"];
    let (mut jobs, mut verbose) = (std::thread::available_parallelism().map_or(1, usize::from), false);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("argument to '{}' is missing", word.display()));
        match names.iter().position(|name| word == name) {
            Some(slot) => dirs[slot] = Some(std::path::absolute(value()?)?),
            None if word == "-j" => jobs = value()?.to_str().and_then(|j| j.parse().ok()).context("-j N")?,
            None if word == "-v" => verbose = true,
            None if word.to_str().is_some_and(|w| w.starts_with("-j")) => {
                jobs = word.to_str().and_then(|w| w[2..].parse().ok()).context("-j N")?;
            }
            None => bail!("--build-sysroot does not know '{}'", word.display()),
        }
    }
    let [Some(musl), Some(overrides), Some(runtime), output] = dirs else {
        bail!("--build-sysroot needs --musl-source DIR, --overrides DIR and --runtime DIR");
    };
    Ok(Request { musl, overrides, runtime, output, jobs: jobs.max(1), verbose })
}

/// All that the result depends on, as hashes.
struct Inputs {
    hash: String,
    driver: blake3::Hash,
}

impl Inputs {
    fn read(request: &Request) -> anyhow::Result<Self> {
        let clang = tools::clang()?;
        let version = Command::new(&clang).arg("--version").output().context("running clang --version")?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(env!("ISAMORPH_CODE_GENERATION").as_bytes()).update(&version.stdout);
        let driver = hasher.finalize();
        let mut hasher = blake3::Hasher::new();
        hasher.update(driver.as_bytes());
        for dir in [&request.musl, &request.overrides, &request.runtime] {
            hasher.update(hash_tree(dir, |_| true)?.as_bytes());
        }
        Ok(Self { hash: hasher.finalize().to_hex().to_string(), driver })
    }
}

/// A hash of the names and contents of the files below `dir` that `wanted` says yes to.
fn hash_tree(dir: &Path, wanted: impl Fn(&Path) -> bool) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
            let mut entries = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
            entries.sort();
            pending.extend(entries.into_iter().rev());
        } else if wanted(&path) {
            let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.strip_prefix(dir).unwrap_or(&path).as_os_str();
            hasher.update(name.as_encoded_bytes()).update(&[0]).update(blake3::hash(&content).as_bytes());
        }
    }
    Ok(hasher.finalize())
}

/// One object to make.
enum Job {
    /// A source of the tree that `apply` made.
    Portable(PathBuf),
    /// `<isa>/NAME.S` of the runtime.
    Assembly(String),
    /// `NAME.c` of the runtime.
    Native(String),
}

impl Job {
    fn name(&self) -> String {
        match self {
            Self::Portable(path) => path.display().to_string(),
            Self::Assembly(name) => format!("<isa>/{name}.S"),
            Self::Native(name) => format!("{name}.c"),
        }
    }
}

fn build(request: &Request, inputs: &Inputs, objects: &Path, output: &Path) -> anyhow::Result<()> {
    let parent = output.parent().unwrap_or(Path::new("."));
    for dir in [objects, parent] {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let work = tempfile::Builder::new().prefix(".sysroot-").tempdir_in(parent)?;
    let tree = work.path().join("musl");
    let status = Command::new("sh").arg(request.overrides.join("apply")).arg(&request.musl).arg(&tree).status();
    if !status.context("running apply")?.success() {
        bail!("{} failed", request.overrides.join("apply").display());
    }
    let lines = |name: &str| -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(tree.join(name)).with_context(|| format!("apply left no {name}"))?;
        Ok(text.lines().map(str::to_owned).filter(|l| !l.is_empty()).collect())
    };
    let flags = lines("isam.flags")?;
    let options = Options::parse(flags.iter().map(OsString::from).chain(["-c".into()]))?;
    let mut jobs: Vec<Job> = lines("isam.sources")?.into_iter().map(|p| Job::Portable(p.into())).collect();
    jobs.extend(runtime_jobs(&request.runtime)?);

    let mut common = blake3::Hasher::new();
    common.update(inputs.driver.as_bytes()).update(flags.join("\n").as_bytes());
    common.update(hash_tree(&tree, |p| p.extension().is_none_or(|e| e != "c"))?.as_bytes());
    common.update(hash_tree(&request.runtime, |_| true)?.as_bytes());
    let common = common.finalize();

    // Sources are named relative to the tree, in messages and in debug information alike.
    std::env::set_current_dir(&tree).context("entering the tree")?;
    let builder = Builder {
        clang: tools::clang()?,
        frontend: Frontend::new(tools::clang()?, &options, None),
        options,
        runtime: &request.runtime,
        scratch: work.path(),
        objects,
        common,
    };
    let members = builder.all(&jobs, request)?;

    let whole = work.path().join("sysroot");
    let lib = whole.join("lib");
    copy_tree(&tree.join("isam.include"), &whole.join("include"))?;
    std::fs::create_dir_all(&lib)?;
    std::fs::write(lib.join("libc.a"), archive::write(&members)).context("writing libc.a")?;
    for name in IN_LIBC.iter().filter(|name| **name != "c") {
        std::fs::write(lib.join(format!("lib{name}.a")), archive::write(&[]))?;
    }
    for isa in Isa::ALL {
        match tools::libgcc(isa, None) {
            Some(libgcc) => {
                let dir = lib.join(isa.name());
                std::fs::create_dir_all(&dir)?;
                std::fs::copy(&libgcc, dir.join("libgcc.a")).with_context(|| libgcc.display().to_string())?;
            }
            None => eprintln!("isamorph-cc: warning: no libgcc.a for {isa}: long double and __int128 will not link"),
        }
    }
    std::env::set_current_dir("/").context("leaving the tree")?;
    // In one step, so that no link ever meets half of it.
    match std::fs::remove_dir_all(output) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replacing {}", output.display()));
        }
        _ => {}
    }
    std::fs::rename(&whole, output).with_context(|| format!("moving the result to {}", output.display()))
}

fn runtime_jobs(runtime: &Path) -> anyhow::Result<Vec<Job>> {
    let stems = |dir: &Path, extension: &str| -> anyhow::Result<BTreeSet<String>> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
        let paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
        let wanted = paths.iter().filter(|p| p.extension().is_some_and(|e| e == extension));
        Ok(wanted.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())).collect())
    };
    let [x, a] = Isa::ALL.map(|isa| stems(&runtime.join(isa.name()), "S"));
    let (x, a) = (x?, a?);
    if let Some(name) = x.symmetric_difference(&a).next() {
        bail!("{}: {name}.S is there for one instruction set only", runtime.display());
    }
    let native = stems(runtime, "c")?.into_iter().filter(|name| !PORTABLE.contains(&&*format!("{name}.c")));
    Ok(x.into_iter().map(Job::Assembly).chain(native.map(Job::Native)).collect())
}

struct Builder<'a> {
    clang: PathBuf,
    frontend: Frontend,
    options: Options,
    runtime: &'a Path,
    scratch: &'a Path,
    objects: &'a Path,
    common: blake3::Hash,
}

impl Builder<'_> {
    fn all(&self, jobs: &[Job], request: &Request) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Vec<u8>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
        let failures = Mutex::new(Vec::new());
        let (made, start) = (AtomicUsize::new(0), std::time::Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..request.jobs {
                // LLVM recurses deeply on large functions.
                let worker = std::thread::Builder::new().stack_size(64 << 20);
                let spawned = worker.spawn_scoped(scope, || {
                    while let Some((index, job)) = next_job(&next, jobs) {
                        if request.verbose {
                            eprintln!("  {}", job.name());
                        }
                        match self.object(job, &made) {
                            Ok(object) => *lock(&results[index]) = Some(object),
                            Err(error) => {
                                eprintln!("isamorph-cc: error: {}: {error:#}", job.name());
                                lock(&failures).push(job.name());
                            }
                        }
                    }
                });
                if let Err(error) = spawned {
                    lock(&failures).push(format!("starting a thread: {error}"));
                }
            }
        });
        let failed = lock(&failures).len();
        if failed > 0 {
            bail!("{failed} of {} files of the C library could not be compiled", jobs.len());
        }
        let made = made.into_inner();
        eprintln!("isamorph-cc: {made} objects made, {} from the cache, {:.0?}", jobs.len() - made, start.elapsed());
        let mut used = BTreeSet::new();
        let mut members = Vec::new();
        for (job, result) in jobs.iter().zip(results) {
            let data = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            members.push((member_name(job, &mut used), data.unwrap_or_default()));
        }
        Ok(members)
    }

    fn object(&self, job: &Job, made: &AtomicUsize) -> anyhow::Result<Vec<u8>> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.common.as_bytes()).update(job.name().as_bytes());
        if let Job::Portable(path) = job {
            hasher.update(&std::fs::read(path).with_context(|| path.display().to_string())?);
        }
        let cached = self.objects.join(format!("{}.o", hasher.finalize().to_hex()));
        if let Ok(object) = std::fs::read(&cached) {
            return Ok(object);
        }
        let object = match job {
            Job::Portable(path) => {
                let bitcode = self.frontend.compile(&self.options, path, None, None)?;
                driver::generate(&bitcode, path, &self.options)?
            }
            Job::Assembly(name) => self.native(name, "S", Origin::Assembly)?,
            Job::Native(name) => self.native(name, "c", Origin::Native)?,
        };
        made.fetch_add(1, Ordering::Relaxed);
        // Another build may write the same object: complete files only.
        let temporary = tempfile::NamedTempFile::new_in(self.objects)?;
        std::fs::write(temporary.path(), &object)?;
        temporary.persist(&cached).with_context(|| cached.display().to_string())?;
        Ok(object)
    }

    fn native(&self, name: &str, extension: &str, origin: Origin) -> anyhow::Result<Vec<u8>> {
        let mut halves = Vec::new();
        for isa in Isa::ALL {
            let folder = self.runtime.join(isa.name());
            let source = match extension {
                "S" => folder.join(format!("{name}.S")),
                _ => self.runtime.join(format!("{name}.c")),
            };
            let object = self.scratch.join(format!("{name}.{extension}.{isa}.o"));
            let mut command = Command::new(&self.clang);
            command.arg(format!("--target={isa}-linux-gnu")).args(NATIVE_FLAGS).arg("-I").arg(&folder);
            match (isa, extension) {
                // Vector registers are for hand-written leaves only: the stub's C must keep those of its caller.
                (_, "S") => {}
                (Isa::Aarch64, _) => {
                    command.args(["-mgeneral-regs-only", "-mno-outline-atomics", "-mbranch-protection=none"]);
                }
                (Isa::X86_64, _) => {
                    command.args(["-mgeneral-regs-only", "-mno-red-zone"]);
                }
            }
            command.args([OsStr::new("-Wno-unused-command-line-argument"), OsStr::new("-c"), OsStr::new("-o")]);
            if !command.arg(&object).arg(&source).status().context("running clang")?.success() {
                bail!("clang failed for {isa}");
            }
            halves.push(std::fs::read(&object)?);
        }
        let paired = pair::pair(&halves[0], &halves[1], origin).context("pairing")?;
        let source = format!("{name}.{extension}");
        Ok(fat::write(paired, &ModuleInfo { version: MODULE_VERSION, source, ..ModuleInfo::default() })?)
    }
}

fn next_job<'j>(next: &AtomicUsize, jobs: &'j [Job]) -> Option<(usize, &'j Job)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, jobs.get(index)?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A name of its own in the archive: `printf.o`, or with its folder where musl has two of a name.
fn member_name(job: &Job, used: &mut BTreeSet<String>) -> String {
    let (folder, stem) = match job {
        Job::Portable(path) => {
            let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
            (folder.to_string_lossy().into_owned(), path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
        }
        Job::Assembly(name) => ("isam-asm".to_owned(), name.clone()),
        Job::Native(name) => ("isam-native".to_owned(), name.clone()),
    };
    let short = format!("{stem}.o");
    let name = if used.contains(&short) { format!("{folder}-{stem}.o") } else { short };
    used.insert(name.clone());
    name
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let (source, target) = entry.map(|e| (e.path(), to.join(e.file_name())))?;
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
}
