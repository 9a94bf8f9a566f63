//! What a command line asks for, done: each source through front end, code generation and pairing, then the link.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use isamorph_arch::Isa;

use crate::archive::Archive;
use crate::codegen::CompileOptions;
use crate::frontend::{Frontend, FrontendError};
use crate::link::{self, Plan, member_path};
use crate::options::{Item, Mode, Options};
use crate::pair::fat::{self, MODULE_VERSION, ModuleInfo};
use crate::pair::{self, Origin};
use crate::resolve::{self, Input};
use crate::sysroot::{self, IN_LIBC, Sysroot};
use crate::{codegen, query, tools};

/// The entry point of portable programs; the runtime defines it.
pub const ENTRY: &str = "__isam_start";
/// The runtime's manifest; every link takes it.
const MANIFEST: &str = "__isam_manifest";

/// Runs the driver; the exit status that a compiler would have.
#[must_use]
pub fn run(arguments: Vec<std::ffi::OsString>) -> u8 {
    let result = match arguments.split_first() {
        Some((first, rest)) if first == "--isamorph-pair" => pair_objects(rest),
        Some((first, rest)) if first == "--build-sysroot" => sysroot::build::run(rest),
        _ => Options::parse(arguments).map_err(anyhow::Error::from).and_then(|options| perform(&options)),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            // What clang has refused it has also explained.
            if let Some(FrontendError::Failed(status)) = error.downcast_ref() {
                return u8::try_from(*status).unwrap_or(1).max(1);
            }
            eprintln!("isamorph-cc: error: {error:#}");
            1
        }
    }
}

fn perform(options: &Options) -> anyhow::Result<()> {
    let sysroot = Sysroot::find();
    if options.verbose {
        for note in &options.notes {
            eprintln!("isamorph-cc: note: {note}");
        }
    }
    if let Some(query) = &options.query {
        return query::answer(query, options, sysroot.as_ref());
    }
    if options.items.is_empty() {
        // As any cc: `cc -v` tells its version and succeeds.
        if options.verbose {
            return query::answer(&crate::options::Query::Version, options, sysroot.as_ref());
        }
        bail!("no input files");
    }
    let include = sysroot.as_ref().map(Sysroot::include);
    let frontend = Frontend::new(tools::clang()?, options, include.as_deref());
    let driver = Driver { options, sysroot, frontend };
    match options.mode() {
        Mode::Preprocess | Mode::CheckSyntax => driver.frontend_alone(),
        Mode::Compile => driver.compile_all(),
        Mode::Link => driver.link(),
    }
}

struct Driver<'a> {
    options: &'a Options,
    sysroot: Option<Sysroot>,
    frontend: Frontend,
}

impl Driver<'_> {
    fn sources(&self) -> Vec<(&Path, Option<&'static str>)> {
        let sources = self.options.items.iter().filter_map(|item| match item {
            Item::Source(path, language) => Some((path.as_path(), *language)),
            _ => None,
        });
        sources.collect()
    }

    fn frontend_alone(&self) -> anyhow::Result<()> {
        let sources = self.sources();
        if self.options.output.is_some() && sources.len() > 1 {
            bail!("cannot specify -o when generating multiple output files");
        }
        for (source, language) in sources {
            self.frontend.alone(self.options, source, language).map_err(|e| self.hint(e))?;
        }
        Ok(())
    }

    fn compile_all(&self) -> anyhow::Result<()> {
        let sources = self.sources();
        if self.options.output.is_some() && sources.len() > 1 {
            bail!("cannot specify -o when generating multiple output files");
        }
        for (source, language) in sources {
            let output = self
                .options
                .output
                .clone()
                .unwrap_or_else(|| Path::new(source.file_name().unwrap_or(OsStr::new("a"))).with_extension("o"));
            let object = self.compile(source, language, &output)?;
            if !self.options.dry_run {
                std::fs::write(&output, object).with_context(|| format!("writing {}", output.display()))?;
            }
        }
        Ok(())
    }

    /// Compiles one source to a fat object; `output` names the dependency file.
    fn compile(&self, source: &Path, language: Option<&str>, output: &Path) -> anyhow::Result<Vec<u8>> {
        let file = self.options.dependency_file.clone().unwrap_or_else(|| output.with_extension("d"));
        let target = (!self.options.dependency_target).then_some(output);
        let dependencies = self.options.dependencies.then_some((file.as_path(), target));
        let bitcode = self.frontend.compile(self.options, source, language, dependencies).map_err(|e| self.hint(e))?;
        if self.options.dry_run {
            return Ok(Vec::new());
        }
        generate(&bitcode, source, self.options)
    }

    fn hint(&self, error: FrontendError) -> FrontendError {
        if self.sysroot.is_none() && !self.options.no_includes {
            eprintln!("isamorph-cc: note: there is no C library: run cross/setup, or set ISAMORPH_SYSROOT");
        }
        error
    }

    fn link(&self) -> anyhow::Result<()> {
        let output = self.options.output.clone().unwrap_or_else(|| PathBuf::from("a.out"));
        let mut inputs = Vec::new();
        let mut whole = false;
        let place = |archive, whole| if whole { Input::Whole(archive) } else { Input::Archive(archive) };
        for item in &self.options.items {
            match item {
                Item::Source(path, language) => {
                    let name = Path::new(path.file_name().unwrap_or(OsStr::new("a"))).with_extension("o");
                    let by_product = match &self.options.output {
                        Some(output) => output.with_extension("o"),
                        None => name,
                    };
                    let object = self.compile(path, *language, &by_product)?;
                    inputs.push(Input::Object(path.display().to_string(), object));
                }
                Item::File(path) => inputs.push(read_input(path, |archive| place(archive, whole))?),
                Item::Library(name) => {
                    if let Some(path) = self.find_library(name)? {
                        inputs.push(place(Archive::open(&path)?, whole));
                    }
                }
                Item::WholeArchive => whole = true,
                Item::NoWholeArchive => whole = false,
            }
        }
        if self.options.dry_run {
            return Ok(());
        }
        let mut roots = self.options.roots.clone();
        roots.push(self.options.entry.clone().unwrap_or_else(|| ENTRY.to_owned()));
        if !self.options.no_libraries {
            let Some(sysroot) = &self.sysroot else {
                bail!("there is no C library: run cross/setup, or set ISAMORPH_SYSROOT (or say -nostdlib)");
            };
            let libc = sysroot.lib().join("libc.a");
            inputs.push(Input::Archive(Archive::open(&libc)?));
            roots.push(MANIFEST.to_owned());
        }
        let root = self.sysroot.as_ref().map(Sysroot::root);
        let mut runtime = [None, None];
        for (isa, slot) in Isa::ALL.into_iter().zip(&mut runtime) {
            *slot = tools::libgcc(isa, root).map(|path| Archive::open(&path)).transpose()?;
        }
        let resolution = resolve::resolve(inputs, &roots, runtime)?;
        let lld = tools::lld()?;
        let plan = Plan {
            lld: &lld,
            output: &output,
            entry: self.options.entry.as_deref().unwrap_or(ENTRY),
            options: &self.options.linker,
            map: self.options.map.as_deref(),
            no_verify: self.options.no_verify,
            verbose: self.options.verbose,
        };
        link::link(&resolution, &plan)?;
        if self.options.strip {
            let strip = tools::strip()?;
            for isa in Isa::ALL {
                let path = member_path(&output, isa);
                let status = std::process::Command::new(&strip).arg(&path).status();
                if !status.with_context(|| format!("running {}", strip.display()))?.success() {
                    bail!("{} failed on {}", strip.display(), path.display());
                }
            }
        }
        Ok(())
    }

    /// The archive of `-lNAME` or `-l:FILE`; `None` if it is part of libc.a anyway.
    fn find_library(&self, name: &OsStr) -> anyhow::Result<Option<PathBuf>> {
        let shown = name.to_string_lossy();
        if IN_LIBC.contains(&&*shown) && !self.options.no_libraries {
            return Ok(None);
        }
        let file = match shown.strip_prefix(':') {
            Some(file) => file.to_owned(),
            None => format!("lib{shown}.a"),
        };
        let own = self.sysroot.as_ref().map(Sysroot::lib);
        let dirs: Vec<_> = self.options.library_paths.iter().cloned().chain(own).collect();
        if let Some(path) = dirs.iter().map(|dir| dir.join(&file)).find(|path| path.is_file()) {
            return Ok(Some(path));
        }
        let shared = dirs.iter().map(|dir| dir.join(format!("lib{shown}.so"))).find(|path| path.exists());
        match shared {
            Some(path) => bail!(
                "unable to find library -l{shown}: {} is a shared library; a pair needs {file}, built with isamorph-cc",
                path.display()
            ),
            None => bail!("unable to find library -l{shown}"),
        }
    }
}

/// Generates code for both ISAs from bitcode of the neutral target, and makes a fat object of it.
///
/// # Errors
/// If the module is not portable, or the two relocatables do not correspond.
pub fn generate(bitcode: &[u8], source: &Path, options: &Options) -> anyhow::Result<Vec<u8>> {
    let name = source.display().to_string();
    let compile = CompileOptions {
        source_name: name.clone(),
        opt_level: match options.optimise.as_deref() {
            None | Some("0") => 0,
            Some("1" | "g") => 1,
            Some("3" | "fast" | "4") => 3,
            Some(_) => 2,
        },
        debug: options.debug,
        keep_ir: std::env::var_os("ISAMORPH_KEEP_IR").map(PathBuf::from),
        ..CompileOptions::default()
    };
    let compiled = codegen::compile_module(bitcode, &compile)?;
    let info = ModuleInfo {
        version: MODULE_VERSION,
        source: name,
        variadic_defined: compiled.variadics.defined,
        variadic_called: compiled.variadics.called,
        fixed_called: compiled.variadics.called_plain,
    };
    let paired = pair::pair(&compiled.x86_64, &compiled.aarch64, Origin::Module)
        .with_context(|| format!("{}: pairing the objects of both instruction sets", source.display()))?;
    Ok(fat::write(paired, &info)?)
}

/// `--isamorph-pair X86_64.o AARCH64.o OUTPUT.o [native]`: makes a fat object of two hand-written ones.
fn pair_objects(arguments: &[std::ffi::OsString]) -> anyhow::Result<()> {
    let (x, a, output, origin) = match arguments {
        [x, a, output] => (x, a, output, Origin::Assembly),
        [x, a, output, kind] if kind == "native" => (x, a, output, Origin::Native),
        _ => bail!("usage: isamorph-cc --isamorph-pair X86_64.o AARCH64.o OUTPUT.o [native]"),
    };
    let read = |path| std::fs::read(path).with_context(|| format!("cannot open {}", Path::new(path).display()));
    let paired = pair::pair(&read(x)?, &read(a)?, origin).context("pairing")?;
    let info =
        ModuleInfo { version: MODULE_VERSION, source: x.to_string_lossy().into_owned(), ..ModuleInfo::default() };
    std::fs::write(output, fat::write(paired, &info)?).with_context(|| format!("writing {}", output.display()))
}

fn read_input(path: &Path, archive: impl FnOnce(Archive) -> Input) -> anyhow::Result<Input> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot open {}", path.display()))?;
    match &*bytes {
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] | [b'!', b'<', b't', b'h', b'i', b'n', b'>', ..] => {
            Ok(archive(Archive::parse(path, bytes)?))
        }
        [0x7f, b'E', b'L', b'F', ..] => Ok(Input::Object(path.display().to_string(), bytes)),
        [b'B', b'C', 0xc0, 0xde, ..] => bail!("{}: bitcode; compile the source with isamorph-cc", path.display()),
        _ => bail!("{}: neither an object nor an archive", path.display()),
    }
}
