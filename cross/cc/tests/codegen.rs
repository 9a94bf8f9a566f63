//! What code generation promises, on C that stresses it: the same sites on both ISAs, the results of a native build
//! (with every poll idle and with every poll taken), and refusals by name.
use isamorph_cc::codegen::{CompileError, CompileOptions, Compiled, compile_module};
use isamorph_cc::frontend::Frontend;
use isamorph_cc::{options::Options, tools};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

fn bitcode(path: &Path, flags: &[&str]) -> Vec<u8> {
    let words = ["-c", "-w", "-O2"].iter().chain(flags).map(OsString::from);
    let options = Options::parse(words).expect("options");
    let frontend = Frontend::new(tools::clang().expect("clang"), &options, None);
    frontend.compile(&options, path, None, None).expect("the front end")
}

fn compile(path: &Path, flags: &[&str], opt_level: u8) -> Result<Compiled, CompileError> {
    let options = CompileOptions { source_name: path.display().to_string(), opt_level, ..Default::default() };
    compile_module(&bitcode(path, flags), &options)
}

fn compile_text(text: &str, flags: &[&str]) -> Result<Compiled, CompileError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test.c");
    std::fs::write(&path, text).expect("writing");
    compile(&path, flags, 2)
}

fn section(elf: &[u8], name: &str) -> Vec<u8> {
    let file = object::File::parse(elf).expect("an object");
    file.section_by_name(name).map(|s| s.data().expect("data").to_vec()).unwrap_or_default()
}

/// Length of the slots at each site.
fn sites(elf: &[u8]) -> BTreeMap<u64, u32> {
    let maps = isamorph::portable::stackmaps::parse(&section(elf, ".llvm_stackmaps")).expect("stack maps");
    let mut out = BTreeMap::new();
    for record in maps.records {
        let length = record.slots.map_or(0, |slots| slots.len);
        assert!(out.insert(record.id, length).is_none(), "two records of site {:#x}", record.id);
    }
    out
}

#[test]
fn both_isas_have_the_same_sites() {
    for (flags, level) in [(&[][..], 2), (&["-g"], 2), (&["-O0"], 0), (&["-O1"], 1), (&["-O3"], 3)] {
        let compiled = compile(&source("torture.c"), flags, level).expect("compiles");
        let (x86_64, aarch64) = (sites(&compiled.x86_64), sites(&compiled.aarch64));
        assert!(x86_64.len() > 100, "{flags:?}: {} sites", x86_64.len());
        assert_eq!(x86_64, aarch64, "{flags:?}");
        let polls = |elf| section(elf, ".isamorph.polls").len();
        assert!(polls(&compiled.x86_64) > 16 * 10);
        assert_eq!(polls(&compiled.x86_64), polls(&compiled.aarch64), "{flags:?}");
    }
}

#[test]
fn debug_information_changes_no_code() {
    let plain = compile(&source("torture.c"), &[], 2).expect("compiles");
    let debug = compile(&source("torture.c"), &["-g"], 2).expect("compiles");
    for (a, b) in [(&plain.x86_64, &debug.x86_64), (&plain.aarch64, &debug.aarch64)] {
        let (a, b) = (object::File::parse(&**a).expect("ELF"), object::File::parse(&**b).expect("ELF"));
        for s in a.sections().filter(|s| s.name().is_ok_and(|name| name.starts_with(".text."))) {
            let name = s.name().expect("a name");
            let other = b.section_by_name(name).expect("the same section");
            assert_eq!(s.data().expect("data"), other.data().expect("data"), "{name}");
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> (String, String) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert!(output.status.success(), "{program} {arguments:?}: {}: {}", output.status, text(output.stderr));
    (text(output.stdout), text(output.stderr))
}

/// Turns every poll's nop into a jump to its cold block.
fn take_polls(path: &Path) {
    let mut bytes = std::fs::read(path).expect("reading");
    let copy = bytes.clone();
    let file = object::File::parse(&*copy).expect("an executable");
    let polls = section(&copy, ".isamorph.polls");
    assert!(!polls.is_empty());
    for poll in polls.chunks_exact(16) {
        let word = |at| u64::from_le_bytes(poll[at..at + 8].try_into().expect("eight bytes"));
        let (site, target) = (word(0), word(8));
        let text = file.sections().find(|s| (s.address()..s.address() + s.size()).contains(&site)).expect("text");
        let at = (text.file_range().expect("in the file").0 + site - text.address()) as usize;
        let distance = target.wrapping_sub(site) as i64;
        if file.architecture() == object::Architecture::X86_64 {
            assert_eq!(bytes[at..at + 5], [0x0f, 0x1f, 0x44, 0, 0]);
            bytes[at] = 0xe9;
            bytes[at + 1..at + 5].copy_from_slice(&((distance - 5) as i32).to_le_bytes());
        } else {
            assert_eq!(bytes[at..at + 4], 0xd503_201f_u32.to_le_bytes());
            let jump = 0x1400_0000 | ((distance >> 2) as u32 & 0x03ff_ffff);
            bytes[at..at + 4].copy_from_slice(&jump.to_le_bytes());
        }
    }
    std::fs::write(path, bytes).expect("writing");
}

#[test]
fn results_are_those_of_a_native_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (torture, host) = (source("torture.c"), source("host.c"));
    let clang = tools::clang().expect("clang");
    let status = Command::new(clang)
        .args(["--target=x86_64-linux-gnu", "-O1", "-w", "-ffp-contract=off", "-mlong-double-128", "-static"])
        .args([&torture, &host])
        .args(["-lm", "-o"])
        .arg(at("native"))
        .status();
    assert!(status.expect("clang").success());
    let (want, _) = run(at("native").to_str().expect("a name"), &[]);
    assert!(want.lines().count() > 1000);
    let compiled = compile(&torture, &[], 2).expect("compiles");
    for (isa, cc, object) in
        [("x86_64", "gcc", &compiled.x86_64), ("aarch64", "aarch64-linux-gnu-gcc", &compiled.aarch64)]
    {
        let (o, exe) = (at(&format!("{isa}.o")), at(isa));
        std::fs::write(&o, object).expect("writing");
        let status = Command::new(cc)
            .args(["-static", "-no-pie", "-O1"])
            .args([&host, &o])
            .args(["-lm", "-o"])
            .arg(&exe)
            .status();
        assert!(status.unwrap_or_else(|e| panic!("{cc}: {e}")).success());
        for taken in [false, true] {
            if taken {
                take_polls(&exe);
            }
            let (got, safepoints) = match isa {
                "x86_64" => run(exe.to_str().expect("a name"), &[]),
                _ => run("qemu-aarch64-static", &[&exe]),
            };
            let safepoints: u64 = safepoints.trim().parse().expect("a number");
            assert_eq!(safepoints > 1000, taken, "{isa}: {safepoints} safepoints");
            assert!(got == want, "{isa}, polls taken: {taken}: the output differs");
        }
    }
}

#[test]
fn what_is_not_portable_is_refused_by_name() {
    for (text, line, words) in [
        ("int f(int x) {\n  __asm__(\"bswap %0\" : \"+r\"(x));\n  return x; }", 2, "inline assembly (`bswap $0`)"),
        ("__asm__(\".globl x\");", 0, "assembly outside a function"),
        ("int g(int);\nint f(int x) {\n  __attribute__((musttail)) return g(x); }", 3, "`musttail`"),
        (
            "int s(long*) __attribute__((returns_twice));\nint f(long*b) {\n return s(b); }",
            3,
            "`s`, which returns twice",
        ),
        ("int setjmp(long*);\nint (*f(void))(long*) {\n return setjmp; }", 0, "the address of `setjmp`"),
        ("long sigsetjmp(long*);\nlong f(long*b) {\n return sigsetjmp(b); }", 3, "does not fit its prototype"),
        ("int swapcontext(long*, long*);\nint f(long*b) {\n return swapcontext(b, b); }", 3, "`swapcontext`"),
        ("void *f(void) {\n return __builtin_return_address(0); }", 2, "`__builtin_return_address`"),
        ("__int128 f(__int128 *p) {\n return __atomic_fetch_add(p, 1, 5); }", 2, "more than 8 bytes"),
        ("int f(int);\n int g(int x) { asm goto(\"\" : : : : out);\n return 1; out: return 2; }", 2, "`asm goto`"),
        ("int f(const char*, ...) { return 1; }\nint g(void) {\n return ((int(*)(const char*))f)(\"\"); }", 3, "`f`"),
    ] {
        match compile_text(text, &["-g"]) {
            Err(error @ CompileError::NotPortable(_)) => {
                let message = error.to_string();
                assert!(message.contains(words), "{message}");
                assert!(line == 0 || message.contains(&format!("test.c:{line}: ")), "{message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

/// Number of jump cells at each site of an object.
fn cells(elf: &[u8]) -> Vec<(u64, u32)> {
    let maps = isamorph::portable::stackmaps::parse(&section(elf, ".llvm_stackmaps")).expect("stack maps");
    let mut out: Vec<_> = maps.records.iter().map(|record| (record.id, record.cells)).collect();
    out.sort_unstable();
    out
}

#[test]
fn every_site_of_a_function_that_calls_setjmp_has_its_cells() {
    let text = "typedef long jmp_buf[25]; int _setjmp(jmp_buf); int sigsetjmp(jmp_buf, int); void g(int);\n\
                int f(jmp_buf a, jmp_buf b, int n) {\n\
                for (int i = 0; i < n; i++) g(i);\n\
                if (_setjmp(a)) return 1; g(1); if (sigsetjmp(b, n)) return 2; g(2); return 3; }\n\
                int h(void) { g(1); return 4; }";
    for level in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test.c");
        std::fs::write(&path, text).expect("writing");
        let compiled = compile(&path, &[], level).expect("compiles");
        let (x86_64, aarch64) = (cells(&compiled.x86_64), cells(&compiled.aarch64));
        assert_eq!(x86_64, aarch64);
        // Three calls of g, two of the stub, two for the mask, and the polls.
        assert!(x86_64.iter().filter(|site| site.1 == 2).count() >= 7, "{x86_64:x?}");
        assert!(x86_64.iter().all(|site| matches!(site.1, 0 | 2)) && x86_64.iter().any(|site| site.1 == 0));
    }
}

#[test]
fn variadic_functions_are_listed() {
    let text = "int a(int x, ...) { return x; }\nint b(const char *, ...); int c(); void d(int);\n\
                static int e(int x, ...) { return x; }\n\
                char configures(); int f(void) { configures(); d(1); return b(\"\", 1) + c(2) + e(1, 2); }";
    let uses = compile_text(text, &["-std=gnu11"]).expect("compiles").variadics;
    assert_eq!(uses.defined, ["a"]);
    assert_eq!(uses.called, ["b", "e"]);
    assert_eq!(uses.called_plain, ["c", "d"]);
}

#[test]
fn short_loops_have_no_poll() {
    let polls = |text| section(&compile_text(text, &[]).expect("compiles").x86_64, ".isamorph.polls").len() / 16;
    assert_eq!(polls("int f(int *p) { int s = 0; for (int i = 0; i < 100; i++) s = s * 31 ^ p[i]; return s; }"), 0);
    assert!(polls("int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s = s * 31 ^ p[i]; return s; }") > 0);
    assert_eq!(polls("int g(int); int f(int x) { return g(x) + 1; }"), 1, "a cycle through another module");
    assert_eq!(polls("static int g(int x) { return x; } int f(int x) { return g(x) + 1; }"), 0);
    let nest = "#define R(x) for (int x = 0; x < 40; x++)\n\
                void f(int *p, int *q) { R(i) R(k) { R(j) p[k] = p[k] * 31 ^ q[j]; R(j) q[k] = q[k] * 31 ^ p[j]; } }";
    assert_eq!(polls(nest), 1, "as far out as it may be");
    let calls = "int h(int); __attribute__((noinline)) int g(int x) { return h(x) + 1; }\n\
                 int f(int n) { int s = 0; for (int i = 0; i < n; i++) s ^= g(i); return s; }";
    assert_eq!(polls(calls), 2, "each round of the loop polls in g");
    let sometimes = calls.replace("s ^= g(i)", "if (i & s) s ^= g(i); else s += i");
    assert_eq!(polls(&sometimes), 3, "some rounds do not call");
}

#[test]
fn what_flows_together_shares_a_slot() {
    let length = |text| sites(&compile_text(text, &[]).expect("compiles").x86_64).into_values().max();
    let sum = "int h(long); long f(int n) {\n\
               long a = 0; for (int i = 0; i < n; i++) { if (h(i)) a += i; h(a); } return a; }";
    // n, i and a, of eight bytes each; not one for each version of i and a.
    assert_eq!(length(sum), Some(32));
    let swap = "int h(long); long f(int n) {\n\
                long a = 0, b = 1; while (h(a)) { long t = a; a = b; b = t; h(b); } return a; }";
    assert_eq!(length(swap), Some(16), "what changes places has two slots");
}
