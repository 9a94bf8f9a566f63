//! The driver as a whole, on a program that brings its own start: compile, archive, link, strip, run.
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use isamorph_arch::Isa;
use isamorph_cc::link::image::Image;
use isamorph_cc::link::member_path;
use isamorph_cc::tools;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the driver in the folder. There is no C library, whatever this machine has.
    fn cc(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph-cc"));
        command.args(line.split_whitespace()).current_dir(self.dir.path());
        command.env("ISAMORPH_SYSROOT", self.dir.path().join("no-sysroot")).output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.cc(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The message of a run that must fail with status 1.
    fn refused(&self, line: &str) -> String {
        let output = self.cc(line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `start.o`: the hand-written halves, paired.
    fn start(&self) {
        for isa in Isa::ALL {
            let source = source(&format!("start-{isa}.S"));
            let object = self.path(&format!("start-{isa}.o"));
            let mut clang = Command::new(tools::clang().unwrap());
            let status = clang.arg(format!("--target={isa}-linux-gnu")).arg("-c").arg(source).arg("-o").arg(object);
            assert!(status.status().unwrap().success());
        }
        self.ok("--isamorph-pair start-x86_64.o start-aarch64.o start.o");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/freestanding").join(name)
}

/// Name and address of every function and object that has the same on both by rights.
fn addresses(bytes: &[u8]) -> Vec<(String, u64)> {
    let file = object::File::parse(bytes).unwrap();
    let native = file.section_by_name(".text.native").map(|s| s.index());
    let mut found: Vec<_> = file
        .symbols()
        .filter(|s| s.section_index().is_some() && s.section_index() != native)
        .filter(|s| matches!(s.kind(), object::SymbolKind::Text | object::SymbolKind::Data))
        .filter(|s| s.size() > 0)
        .map(|s| (s.name().unwrap().to_owned(), s.address()))
        .collect();
    found.sort();
    found
}

#[test]
fn a_program_becomes_a_pair() {
    let bench = Bench::new();
    bench.start();
    bench.ok(&format!("-O2 -c {}", source("part.c").display()));
    // The host's own archiver, as any Makefile would use it.
    let archiver = Command::new("ar").args(["rcs", "libpart.a", "part.o"]).current_dir(bench.dir.path()).status();
    assert!(archiver.unwrap().success());
    let line = format!("-O2 -nostdlib --isamorph-no-verify {} start.o -L. -lpart -o app", source("main.c").display());
    bench.ok(&line);
    assert_eq!(std::fs::read_link(bench.path("app")).unwrap(), Path::new("app_x86-64"));
    let (x, a) = (bench.read("app_x86-64"), bench.read("app_aarch64"));
    assert_eq!(addresses(&x), addresses(&a));
    let names: Vec<_> = addresses(&x).into_iter().map(|(name, _)| name).collect();
    for name in ["main", "part", "parts", "names", "table", "zeros", "registered", "choose", "print"] {
        assert!(names.iter().any(|n| n == name), "{name} of {names:?}");
    }
    let images = [(Isa::X86_64, &x), (Isa::Aarch64, &a)].map(|(isa, b)| Image { isa, bytes: b.clone() });
    assert_eq!(images[0].loads().unwrap(), images[1].loads().unwrap());
    assert_eq!(images[0].loads().unwrap().len(), 6);
    // 64-bit soft floating point of each ISA's compiler library is there, outside the paired text.
    assert!(object::File::parse(&*a).unwrap().section_by_name(".text.native").unwrap().size() > 1000);
    let run = Command::new(bench.path(if cfg!(target_arch = "aarch64") { "app_aarch64" } else { "app_x86-64" }));
    let output = { run }.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "abc\nzero\ndef\none\nghi\ntwo\n");
    assert_eq!(output.status.code(), Some(252));
}

#[test]
fn the_sites_segment_grows_and_survives_strip() {
    let bench = Bench::new();
    bench.start();
    bench.write("main.c", "int main(void) { return 9; }");
    bench.ok("-g -O1 -nostdlib --isamorph-no-verify main.c start.o -o app");
    let table: Vec<u8> = (0..1000u32).map(|i| i as u8 | 1).collect();
    for isa in Isa::ALL {
        let path = member_path(&bench.path("app"), isa);
        let before = std::fs::read(&path).unwrap();
        let mut image = Image { isa, bytes: before.clone() };
        let identity = image.identity().unwrap();
        image.put_sites(&table, 1024).unwrap();
        image.put_identities(&identity, &identity).unwrap();
        std::fs::write(&path, &image.bytes).unwrap();
        // What has no address has moved, but is all there.
        let (old, new) = (object::File::parse(&*before).unwrap(), object::File::parse(&*image.bytes).unwrap());
        assert_eq!(old.symbols().count(), new.symbols().count());
        let debug = |file: &object::File<'_>| file.section_by_name(".debug_info").unwrap().data().unwrap().to_vec();
        assert_eq!(debug(&old), debug(&new));
        let stripped = path.with_extension("stripped");
        let strip = tools::strip().unwrap();
        assert!(Command::new(strip).arg("-o").arg(&stripped).arg(&path).status().unwrap().success());
        for file in [path, stripped] {
            let bytes = std::fs::read(file).unwrap();
            let parsed = object::File::parse(&*bytes).unwrap();
            let sites = parsed.section_by_name(".isamorph.sites").unwrap();
            let segment = parsed.segments().find(|s| s.address() == sites.address()).unwrap();
            assert_eq!(segment.data().unwrap()[..1000], table);
            assert_eq!(segment.size(), 1024);
            let manifest = parsed.section_by_name(".isamorph.manifest").unwrap().data().unwrap().to_vec();
            assert_eq!(manifest[240..248], sites.address().to_le_bytes());
            assert_eq!(manifest[248..256], (sites.address() + 1000).to_le_bytes());
            assert_eq!(manifest[256..288], identity);
        }
        let again = Image { isa, bytes: std::fs::read(member_path(&bench.path("app"), isa)).unwrap() };
        assert_ne!(again.identity().unwrap(), identity, "the manifest names the sites now");
    }
}

#[test]
fn it_behaves_like_a_compiler() {
    let bench = Bench::new();
    bench.write("conftest.h", "#define ANSWER 42\n");
    bench.write("conftest.c", "#include \"conftest.h\"\nint answer(void) { return ANSWER; }\n");
    bench.ok("-c conftest.c");
    assert!(bench.path("conftest.o").exists());
    assert!(bench.ok("-E conftest.c").contains("return 42"));
    bench.ok("-c -MD conftest.c -o out.o");
    assert_eq!(String::from_utf8(bench.read("out.d")).unwrap(), "out.o: conftest.c conftest.h\n");
    bench.ok("-c -MMD -MP -MF deps -MT target conftest.c -o out.o");
    let dependencies = String::from_utf8(bench.read("deps")).unwrap();
    assert!(dependencies.starts_with("target: conftest.c conftest.h\n"), "{dependencies}");
    assert!(bench.ok("-M conftest.c").starts_with("conftest.o: conftest.c"));
    bench.ok("-fsyntax-only conftest.c");
    assert_eq!(bench.ok("-dumpmachine"), "isamorph-unknown-linux-musl\n");
    assert!(bench.ok("--version").contains("isamorph-cc"));
    // The target is none that a program has assembly for.
    bench.write("m.c", "#if defined __riscv || defined __x86_64__ || defined __aarch64__\n#error\n#endif\n");
    bench.ok("-c m.c");
    // clang explains, the status is its.
    bench.write("bad.c", "int f(void) { return missing; }\n");
    let message = bench.refused("-c bad.c");
    assert!(message.contains("bad.c:1:22: error: use of undeclared identifier 'missing'"), "{message}");
    assert!(!bench.path("bad.o").exists());
    assert!(bench.refused("-nostdlib conftest.o").contains("undefined symbol: __isam_start"));
    assert!(!bench.path("a.out").exists());
    assert!(bench.refused("-c conftest.c m.c -o x.o").contains("cannot specify -o"));
    assert!(bench.refused("").contains("no input files"));
}

#[test]
fn a_variadic_function_called_without_prototype_is_refused() {
    let bench = Bench::new();
    bench.start();
    bench.write("f.c", "int f(const char *format, ...) { return *format; }\n");
    bench.write("main.c", "int f(); int main(void) { return f(\"x\", 1); }\n");
    let message = bench.refused("-std=c11 -w -nostdlib --isamorph-no-verify main.c f.c start.o -o app");
    assert!(message.contains("main.c: f is called with a fixed argument list"), "{message}");
    assert!(!bench.path("app").exists());
}

#[test]
fn objects_of_other_compilers_are_refused_by_name() {
    let bench = Bench::new();
    bench.write("f.c", "int f(void) { return 1; }\n");
    let clang = Command::new(tools::clang().unwrap()).args(["-c", "f.c"]).current_dir(bench.dir.path()).status();
    assert!(clang.unwrap().success());
    assert!(bench.refused("-nostdlib f.o -o app").contains("f.o: made by another compiler"));
}
