//! The command line, as `cc` has it: what is for the front end is kept in order, what is for the link is taken apart.
mod linker;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// What to do with each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `-E`, `-M`, `-MM`: the front end's preprocessor alone.
    Preprocess,
    /// `-fsyntax-only`.
    CheckSyntax,
    /// `-c`.
    Compile,
    /// Neither of them.
    Link,
}

/// Something that is to be compiled or linked, in the order of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A C source (`-` is standard input), with the language of `-x` if one was in force.
    Source(PathBuf, Option<&'static str>),
    /// An object or archive.
    File(PathBuf),
    /// `-l`.
    Library(OsString),
    /// From here on every archive is taken whole.
    WholeArchive,
    /// From here on archives serve as libraries again.
    NoWholeArchive,
}

/// Something that is only printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// `--version`.
    Version,
    /// `--help`.
    Help,
    /// `-dumpmachine`.
    Machine,
    /// `-dumpversion`.
    ShortVersion,
    /// `-print-search-dirs`.
    SearchDirs,
    /// `-print-sysroot`.
    Sysroot,
    /// `-print-libgcc-file-name`.
    Libgcc,
    /// `-print-multiarch`, `-print-multi-os-directory` and their like: an empty line, or `.`.
    Fixed(&'static str),
    /// `-print-prog-name=`.
    Program(OsString),
    /// `-print-file-name=`.
    File(OsString),
}

/// The command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What to do; `None` if the line does not say, that is, link.
    pub mode: Option<Mode>,
    /// Sources, objects, libraries.
    pub items: Vec<Item>,
    /// `-o`.
    pub output: Option<PathBuf>,
    /// For the front end, in order.
    pub frontend: Vec<OsString>,
    /// The digit or letter of the last `-O`; `-O` is `1`, none is `0`.
    pub optimise: Option<String>,
    /// `-g` in any form but `-g0`.
    pub debug: bool,
    /// `-MD` or `-MMD` was given: a dependency file is a by-product.
    pub dependencies: bool,
    /// `-MF`.
    pub dependency_file: Option<PathBuf>,
    /// `-MT` or `-MQ` was given.
    pub dependency_target: bool,
    /// `-L`, in order.
    pub library_paths: Vec<PathBuf>,
    /// `-nostdlib`, `-nodefaultlibs`, `-nolibc`: no libc.a.
    pub no_libraries: bool,
    /// `-nostdinc`.
    pub no_includes: bool,
    /// `-e`, `-Wl,--entry=`.
    pub entry: Option<String>,
    /// `-u`, `-Wl,--undefined=`.
    pub roots: Vec<String>,
    /// For the linker, as given to it.
    pub linker: Vec<OsString>,
    /// `-Wl,-Map=`.
    pub map: Option<PathBuf>,
    /// `-s`.
    pub strip: bool,
    /// `-v`.
    pub verbose: bool,
    /// `-###`: print the commands instead of running them.
    pub dry_run: bool,
    /// `--isamorph-no-verify`: write a pair that is not verified and cannot be moved.
    pub no_verify: bool,
    /// Something is only to be printed.
    pub query: Option<Query>,
    /// What was ignored, for `-v`.
    pub notes: Vec<String>,
}

/// Why a command line is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// An option that needs an argument is the last one.
    #[error("argument to '{0}' is missing")]
    NoArgument(String),
    /// A `@file` cannot be read.
    #[error("cannot read '@{0}': {1}")]
    Response(String, String),
    /// A `@file` that contains itself, or more than anyone writes.
    #[error("'@{0}': nested too deeply")]
    ResponseDepth(String),
    /// An option that cannot be honoured.
    #[error("unsupported option '{option}': {reason}")]
    Unsupported {
        /// The option.
        option: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// An input that cannot be compiled or linked.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: &'static str,
    },
}

const ASSEMBLY: &str = "assembly is written for one instruction set: write it in C, or give both executables the \
                        same function from C";
const SHARED: &str = "a pair is linked statically, at one address: build an archive (ar rcs) and link that";
const INSTRUMENTED: &str = "its runtime library is not portable";

/// Options that change what machine code would look like; the pair decides that, so they are accepted and ignored.
const IGNORED: &[&str] = &[
    "-static",
    "-pie",
    "-no-pie",
    "-static-pie",
    "-rdynamic",
    "-m64",
    "-mno-red-zone",
    "-mlp64",
    "-pipe",
    "-fpic",
    "-fPIC",
    "-fpie",
    "-fPIE",
    "-fno-pic",
    "-fno-PIC",
    "-fno-pie",
    "-fno-PIE",
    "-fno-plt",
    "-fplt",
    "-flto",
    "-fno-lto",
    "-ffat-lto-objects",
    "-fno-fat-lto-objects",
    "-fwhole-program",
    "-fuse-linker-plugin",
    "-fno-use-linker-plugin",
    "-fomit-frame-pointer",
    "-fno-omit-frame-pointer",
    "-momit-leaf-frame-pointer",
    "-mno-omit-leaf-frame-pointer",
    "-fstack-protector",
    "-fstack-protector-all",
    "-fstack-protector-strong",
    "-fno-stack-protector",
    "-fstack-clash-protection",
    "-fno-stack-clash-protection",
    "-fcf-protection",
    "-fno-common",
    "-fexceptions",
    "-fno-exceptions",
    "-fasynchronous-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-funwind-tables",
    "-fno-unwind-tables",
    "-ffunction-sections",
    "-fno-function-sections",
    "-fdata-sections",
    "-fno-data-sections",
    "-fsemantic-interposition",
    "-fno-semantic-interposition",
    "-fopenmp-simd",
    "-foptimize-sibling-calls",
    "-fno-optimize-sibling-calls",
    "-fno-ident",
    "-fident",
    "-fintegrated-as",
    "-fmerge-constants",
    "-fno-merge-constants",
    "-fjump-tables",
    "-fno-jump-tables",
    "-fmath-errno",
    "-fno-split-stack",
    "-fno-direct-access-external-data",
    "-fdirect-access-external-data",
];
/// The same, by their beginning.
const IGNORED_PREFIXES: &[&str] = &[
    "-march=",
    "-mtune=",
    "-mcpu=",
    "-mcmodel=small",
    "-flto=",
    "-flto-",
    "-fuse-ld=",
    "-ftls-model=",
    "-fcf-protection=",
    "-fexcess-precision=",
    "-falign-",
    "-fno-align-",
    "-mbranch-protection=",
    "-fzero-call-used-regs=",
    "-mstack-alignment=",
    "-fpatchable-function-entry=",
    "-mprefer-vector-width=",
    "-fbasic-block-sections=",
    "--param=",
    "-specs=",
    "-mno-omit-",
    "-mfpmath=",
];
/// Options that cannot be honoured and must not be ignored, by their beginning, and the reason.
const REFUSED_PREFIXES: &[(&str, &str)] = &[
    ("-shared", SHARED),
    ("-S", "assembly exists once per instruction set: compile with -c and disassemble both halves of the object"),
    ("-fcommon", "common symbols have no fixed order: define each variable once (-fno-common)"),
    ("-fsanitize", INSTRUMENTED),
    ("-fprofile", INSTRUMENTED),
    ("-fcoverage-mapping", INSTRUMENTED),
    ("-ftest-coverage", INSTRUMENTED),
    ("--coverage", INSTRUMENTED),
    ("-coverage", INSTRUMENTED),
    ("-pg", INSTRUMENTED),
    ("-finstrument-functions", INSTRUMENTED),
    ("-fxray", INSTRUMENTED),
    ("-fopenmp", "OpenMP's runtime library is not portable"),
    ("-fopenacc", "OpenACC's runtime library is not portable"),
    ("-fsplit-stack", "a thread has one native and one portable stack"),
    ("-fsplit-machine-functions", "functions must be in one piece at one address"),
    ("-m32", "portable programs are LP64"),
    ("-mx32", "portable programs are LP64"),
    ("-mlong-double", "long double is binary128 on both instruction sets"),
    ("-mcmodel=", "a pair has the small code model"),
    ("-Wa,", ASSEMBLY),
    ("-Xassembler", ASSEMBLY),
    ("-masm", ASSEMBLY),
    ("-mllvm", "code generation must be the same for both instruction sets"),
    ("--target", "a pair is compiled for one neutral target"),
    ("-target", "a pair is compiled for one neutral target"),
    ("-arch", "a pair is compiled for one neutral target"),
    ("-emit-llvm", "objects are pairs of relocatables: use clang itself"),
    ("-r", "partial links are not supported: use an archive"),
    ("-T", "the layout of a pair is fixed: no linker scripts"),
    ("-fblocks", "blocks need a runtime library that is not portable"),
];
/// Options whose argument may be the next word, for the front end.
const FRONTEND_WITH_ARGUMENT: &[&str] = &[
    "-I",
    "-D",
    "-U",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-include",
    "-imacros",
    "-iprefix",
    "-iwithprefix",
    "-iwithprefixbefore",
    "-isysroot",
    "--sysroot",
    "-Xclang",
    "-Xpreprocessor",
];

impl Options {
    /// What to do.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Link)
    }

    /// Reads a command line without the program's own name.
    ///
    /// # Errors
    /// See [`OptionError`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionError> {
        let mut words = Vec::new();
        for word in arguments {
            expand(word, &mut words, 0)?;
        }
        let mut options = Self::default();
        let mut language = None;
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            options.word(word, &mut rest, &mut language)?;
        }
        Ok(options)
    }

    fn word(
        &mut self,
        word: OsString,
        rest: &mut std::vec::IntoIter<OsString>,
        language: &mut Option<&'static str>,
    ) -> Result<(), OptionError> {
        if !word.as_bytes().starts_with(b"-") || word == "-" {
            return self.input(PathBuf::from(word), *language);
        }
        let text = word.to_string_lossy().into_owned();
        let mut argument = |name: &str| -> Result<OsString, OptionError> {
            match word.as_bytes().strip_prefix(name.as_bytes()) {
                Some(joined) if !joined.is_empty() => Ok(OsString::from_vec(joined.to_vec())),
                _ => rest.next().ok_or_else(|| OptionError::NoArgument(name.to_owned())),
            }
        };
        match &*text {
            "-c" => self.set_mode(Mode::Compile),
            "-E" => {
                self.set_mode(Mode::Preprocess);
                self.frontend.push(word);
            }
            "-M" | "-MM" => {
                self.set_mode(Mode::Preprocess);
                self.frontend.push(word);
            }
            "-fsyntax-only" => self.set_mode(Mode::CheckSyntax),
            "-MD" | "-MMD" => {
                self.dependencies = true;
                self.frontend.push(word);
            }
            "-MP" | "-MG" | "-MV" => self.frontend.push(word),
            "-pthread" => self.frontend.push(word),
            "-nostdlib" | "-nodefaultlibs" | "-nolibc" => self.no_libraries = true,
            "-nostartfiles" => self.notes.push(format!("{text}: there are no start files but the runtime in libc.a")),
            "-nostdinc" => self.no_includes = true,
            "-s" => self.strip = true,
            "-v" => self.verbose = true,
            "-###" => (self.verbose, self.dry_run) = (true, true),
            "--isamorph-no-verify" => self.no_verify = true,
            "-save-temps" | "--save-temps" => {
                return Err(OptionError::Unsupported { option: text, reason: "temporary files stay in memory" });
            }
            "--version" | "-version" => self.query = Some(Query::Version),
            "--help" => self.query = Some(Query::Help),
            "-dumpmachine" | "--print-target-triple" | "-print-target-triple" => self.query = Some(Query::Machine),
            "-dumpversion" | "-dumpfullversion" => self.query = Some(Query::ShortVersion),
            "-print-search-dirs" | "--print-search-dirs" => self.query = Some(Query::SearchDirs),
            "-print-sysroot" => self.query = Some(Query::Sysroot),
            "-print-libgcc-file-name" | "--print-libgcc-file-name" => self.query = Some(Query::Libgcc),
            "-print-multiarch" | "--print-multiarch" => self.query = Some(Query::Fixed("")),
            "-print-multi-directory" | "-print-multi-lib" | "-print-multi-os-directory" => {
                self.query = Some(Query::Fixed("."));
            }
            _ if text.starts_with("-print-prog-name=") || text.starts_with("--print-prog-name=") => {
                self.query = Some(Query::Program(after_equals(&word)));
            }
            _ if text.starts_with("-print-file-name=") || text.starts_with("--print-file-name=") => {
                self.query = Some(Query::File(after_equals(&word)));
            }
            _ if text.starts_with("-o") && !text.starts_with("-objc") => self.output = Some(argument("-o")?.into()),
            "-x" => *language = parse_language(&argument("-x")?)?,
            _ if text.starts_with("-MF") => self.dependency_file = Some(argument("-MF")?.into()),
            _ if text.starts_with("-MT") || text.starts_with("-MQ") => {
                self.dependency_target = true;
                let name = &text[..3];
                let target = argument(name)?;
                self.frontend.extend([OsString::from(name), target]);
            }
            _ if text.starts_with("-L") => self.library_paths.push(argument("-L")?.into()),
            _ if text.starts_with("-l") => {
                let library = argument("-l")?;
                self.items.push(Item::Library(library));
            }
            "-u" => self.roots.push(argument("-u")?.to_string_lossy().into_owned()),
            "-e" => self.entry = Some(argument("-e")?.to_string_lossy().into_owned()),
            "-z" => {
                let keyword = argument("-z")?;
                self.linker_words(vec![OsString::from("-z"), keyword])?;
            }
            "-Xlinker" => {
                let word = argument("-Xlinker")?;
                self.linker_words(vec![word])?;
            }
            _ if text.starts_with("-Wl,") => {
                let parts = word.as_bytes()[4..].split(|&b| b == b',');
                self.linker_words(parts.map(|p| OsString::from_vec(p.to_vec())).collect())?;
            }
            "-rpath" | "--param" => self.notes.push(format!("{text} {}: ignored", argument(&text)?.to_string_lossy())),
            _ if text.starts_with("-O") => {
                self.optimise = Some(if text == "-O" { "1".to_owned() } else { text[2..].to_owned() });
                self.frontend.push(word);
            }
            _ if text.starts_with("-g") => {
                self.debug = text != "-g0";
                if text.starts_with("-gsplit-dwarf") {
                    self.notes.push(format!("{text}: debug information stays in the executables"));
                    self.frontend.push("-g".into());
                } else {
                    self.frontend.push(word);
                }
            }
            _ if FRONTEND_WITH_ARGUMENT.iter().any(|name| text == *name) => {
                let value = argument(&text)?;
                self.frontend.extend([word, value]);
            }
            _ if IGNORED.contains(&&*text) || IGNORED_PREFIXES.iter().any(|p| text.starts_with(p)) => {
                self.notes.push(format!("{text}: ignored, a pair decides that itself"));
            }
            _ => {
                if let Some((_, reason)) = REFUSED_PREFIXES.iter().find(|(prefix, _)| refused(&text, prefix)) {
                    return Err(OptionError::Unsupported { option: text, reason });
                }
                if text.starts_with("-m") && !text.starts_with("-mno-") {
                    return Err(OptionError::Unsupported {
                        option: text,
                        reason: "it is for one instruction set; vector code is made from generic C or vector types",
                    });
                }
                if text.starts_with("-mno-") {
                    self.notes.push(format!("{text}: ignored"));
                } else {
                    self.frontend.push(word);
                }
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode) {
        // As with cc, the earliest phase to stop at wins.
        let rank = |m| match m {
            Mode::Preprocess => 0,
            Mode::CheckSyntax => 1,
            Mode::Compile => 2,
            Mode::Link => 3,
        };
        if self.mode.is_none_or(|old| rank(mode) < rank(old)) {
            self.mode = Some(mode);
        }
    }

    fn input(&mut self, path: PathBuf, language: Option<&'static str>) -> Result<(), OptionError> {
        let item = match (language, path.extension().and_then(OsStr::to_str)) {
            (Some(language), _) => Item::Source(path, Some(language)),
            (None, Some("c" | "i" | "h")) => Item::Source(path, None),
            (None, Some("S" | "s" | "sx" | "asm")) => return Err(OptionError::Input { path, reason: ASSEMBLY }),
            (None, Some("cc" | "cpp" | "cxx" | "C" | "c++" | "ii" | "m" | "mm")) => {
                return Err(OptionError::Input { path, reason: "isamorph-cc compiles C only" });
            }
            (None, Some("so")) => return Err(OptionError::Input { path, reason: SHARED }),
            (None, _) if path == Path::new("-") => {
                return Err(OptionError::Input {
                    path,
                    reason: "-E or -x is needed when input is from standard input",
                });
            }
            (None, _) => Item::File(path),
        };
        self.items.push(item);
        Ok(())
    }
}

fn refused(text: &str, prefix: &str) -> bool {
    // One-letter options are words of their own here: `-rdynamic` is not `-r`, `-Tscript` is `-T`.
    match prefix {
        "-S" | "-r" => text == prefix,
        _ => text.starts_with(prefix),
    }
}

fn after_equals(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=').map_or(bytes.len(), |at| at + 1);
    OsString::from_vec(bytes[at..].to_vec())
}

fn parse_language(name: &OsStr) -> Result<Option<&'static str>, OptionError> {
    match name.to_str() {
        Some("c") => Ok(Some("c")),
        Some("cpp-output") => Ok(Some("cpp-output")),
        Some("c-header") => Ok(Some("c")),
        Some("none") => Ok(None),
        Some("assembler" | "assembler-with-cpp") => {
            Err(OptionError::Unsupported { option: format!("-x {}", name.to_string_lossy()), reason: ASSEMBLY })
        }
        _ => Err(OptionError::Unsupported {
            option: format!("-x {}", name.to_string_lossy()),
            reason: "isamorph-cc compiles C only",
        }),
    }
}

/// Replaces `@file` by the words in it (GNU's libiberty `expandargv`: quotes and backslashes as in a shell).
fn expand(word: OsString, out: &mut Vec<OsString>, depth: usize) -> Result<(), OptionError> {
    let Some(path) = word.as_bytes().strip_prefix(b"@").filter(|p| !p.is_empty()) else {
        out.push(word);
        return Ok(());
    };
    let path = Path::new(OsStr::from_bytes(path));
    if !path.exists() {
        // As GNU's and LLVM's: a word that names no file is itself.
        out.push(word);
        return Ok(());
    }
    let shown = path.display().to_string();
    if depth > 16 {
        return Err(OptionError::ResponseDepth(shown));
    }
    let text = std::fs::read(path).map_err(|e| OptionError::Response(shown, e.to_string()))?;
    for word in split_words(&text) {
        expand(word, out, depth + 1)?;
    }
    Ok(())
}

fn split_words(text: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut current: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (_, b'\\') if quote != Some(b'\'') => current.get_or_insert_default().extend(bytes.next()),
            (Some(q), b) if q == b => quote = None,
            (Some(_), b) => current.get_or_insert_default().push(b),
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                current.get_or_insert_default();
            }
            (None, b) if b.is_ascii_whitespace() => words.extend(current.take().map(OsString::from_vec)),
            (None, b) => current.get_or_insert_default().push(b),
        }
    }
    words.extend(current.map(OsString::from_vec));
    words
}
