//! Building a sysroot, on a C library of two functions and a runtime of one.
use std::path::Path;
use std::process::{Command, Output};

const APPLY: &str = r#"#!/bin/sh
set -eu
mkdir -p "$2/isam.include" "$2/src"
cp "$1"/*.c "$2/src"
echo 'int one(void);' >"$2/isam.include/tiny.h"
(cd "$2" && ls src/*.c) >"$2/isam.sources"
printf '%s\n' -std=c99 -nostdinc -Iisam.include -O2 >"$2/isam.flags"
"#;
const STUB: &str = r#"
	.section .text.isam.stub.noop,"ax",@progbits
	.globl noop
	.type noop,@function
noop:	ret
"#;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("musl/one.c", "#include <tiny.h>\nint one(void) { return 1; }\n");
        tree.write("musl/two.c", "#include <tiny.h>\nint two(void) { return one() + 1; }\n");
        tree.write("overrides/apply", APPLY);
        tree.write("runtime/native.c", "long forty(void) { return 40; }\n");
        tree.write("runtime/x86_64/noop.S", STUB);
        tree.write("runtime/aarch64/noop.S", STUB);
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn build(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isamorph-cc"));
        command.args("--build-sysroot --musl-source musl --overrides overrides --runtime runtime -j2".split(' '));
        command.current_dir(self.path()).env("XDG_CACHE_HOME", self.path().join("cache")).output().unwrap()
    }

    fn message(&self) -> String {
        String::from_utf8(self.build().stderr).unwrap()
    }
}

#[test]
fn only_what_has_changed_is_compiled_again() {
    let tree = Tree::new();
    let first = tree.build();
    let message = String::from_utf8(first.stderr).unwrap();
    assert!(first.status.success() && message.contains("4 objects made, 0 from the cache"), "{message}");
    let sysroot = tree.path().join("cache/isamorph/sysroot");
    assert_eq!(String::from_utf8(first.stdout).unwrap().trim(), sysroot.canonicalize().unwrap().to_str().unwrap());
    let libc = isamorph_cc::archive::Archive::open(&sysroot.join("lib/libc.a")).unwrap();
    let names: Vec<_> = libc.members.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["one.o", "two.o", "noop.o", "native.o"]);
    assert!(["one", "two", "noop", "forty"].iter().all(|symbol| libc.defines.contains_key(*symbol)));
    assert!(sysroot.join("include/tiny.h").is_file() && sysroot.join("lib/libm.a").is_file());

    assert!(tree.message().contains("is up to date"));
    tree.write("musl/two.c", "#include <tiny.h>\nint two(void) { return 2; }\n");
    let message = tree.message();
    assert!(message.contains("1 objects made, 3 from the cache"), "{message}");
}

#[test]
fn every_failure_is_reported_and_nothing_is_left() {
    let tree = Tree::new();
    tree.write("musl/one.c", "int one(void) { return nothing; }\n");
    tree.write("musl/two.c", "int two(void) { __asm__(\"cpuid\"); return 2; }\n");
    let output = tree.build();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("error: src/one.c") && message.contains("error: src/two.c"), "{message}");
    assert!(message.contains("2 of 4 files of the C library could not be compiled"), "{message}");
    assert!(!tree.path().join("cache/isamorph/sysroot").exists());
}

#[test]
fn a_stub_for_one_instruction_set_only_is_refused() {
    let tree = Tree::new();
    std::fs::remove_file(tree.path().join("runtime/aarch64/noop.S")).unwrap();
    let message = tree.message();
    assert!(message.contains("noop.S is there for one instruction set only"), "{message}");
}
