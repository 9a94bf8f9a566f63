//! Command lines.
use super::*;

fn parse(line: &str) -> Result<Options, OptionError> {
    Options::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn a_compile_line() {
    let options =
        parse("-c -O2 -g -Iinc -I inc2 -DA=1 -D B -std=c11 -Wall -MMD -MF x.d -MT x.o -o x.o src/x.c").unwrap();
    assert_eq!(options.mode(), Mode::Compile);
    assert_eq!(options.items, [Item::Source("src/x.c".into(), None)]);
    assert_eq!(options.output.as_deref(), Some(Path::new("x.o")));
    assert_eq!(options.dependency_file.as_deref(), Some(Path::new("x.d")));
    assert!(options.dependencies && options.dependency_target && options.debug);
    assert_eq!(options.optimise.as_deref(), Some("2"));
    let passed: Vec<_> = options.frontend.iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(
        passed,
        ["-O2", "-g", "-Iinc", "-I", "inc2", "-DA=1", "-D", "B", "-std=c11", "-Wall", "-MMD", "-MT", "x.o"]
    );
}

#[test]
fn a_link_line_keeps_its_order() {
    let options =
        parse("a.o -Wl,--start-group -lm b.a -Wl,--end-group -L lib -Llib2 -Wl,--whole-archive c.a -o app").unwrap();
    assert_eq!(
        options.items,
        [
            Item::File("a.o".into()),
            Item::Library("m".into()),
            Item::File("b.a".into()),
            Item::WholeArchive,
            Item::File("c.a".into())
        ]
    );
    assert_eq!(options.library_paths, [PathBuf::from("lib"), PathBuf::from("lib2")]);
    assert_eq!(options.mode(), Mode::Link);
}

#[test]
fn the_earliest_phase_wins() {
    assert_eq!(parse("-c -E x.c").unwrap().mode(), Mode::Preprocess);
    assert_eq!(parse("-E -c x.c").unwrap().mode(), Mode::Preprocess);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (line, name) in [
        ("-shared x.c", "-shared"),
        ("-S x.c", "-S"),
        ("-fsanitize=address x.c", "-fsanitize=address"),
        ("-fprofile-arcs x.c", "-fprofile-arcs"),
        ("-mavx2 x.c", "-mavx2"),
        ("-m32 x.c", "-m32"),
        ("-Wl,--defsym=a=1 x.o", "-Wl,--defsym=a=1"),
        ("-Wl,-T,script x.o", "-Wl,-T"),
        ("-Wl,-soname,libx.so x.o", "-Wl,-soname"),
        ("-r a.o b.o", "-r"),
        ("-T script x.o", "-T"),
        ("-fcommon x.c", "-fcommon"),
        ("-x c++ x.c", "-x c++"),
    ] {
        match parse(line) {
            Err(OptionError::Unsupported { option, .. }) => assert_eq!(option, name, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    for line in ["x.S", "x.cc", "libx.so", "-"] {
        assert!(matches!(parse(line), Err(OptionError::Input { .. })), "{line}");
    }
}

#[test]
fn what_the_pair_decides_is_noted() {
    let options =
        parse("-fPIC -static -pie -march=native -flto -Wl,--gc-sections -Wl,-z,relro -Wl,-rpath,/x a.o").unwrap();
    assert!(options.frontend.is_empty() && options.linker.is_empty());
    assert_eq!(options.items, [Item::File("a.o".into())]);
    assert_eq!(options.notes.len(), 7);
}

#[test]
fn an_argument_is_missing() {
    assert_eq!(parse("x.c -o"), Err(OptionError::NoArgument("-o".into())));
    assert_eq!(parse("-Wl,-Map x.c"), Err(OptionError::NoArgument("-Wl,-Map".into())));
}

#[test]
fn response_files_are_read_with_quotes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("args");
    std::fs::write(&file, "-c 'a b.c'\n-DX=\"1 2\" -D\\ y").unwrap();
    let mut word = OsString::from("@");
    word.push(&file);
    let options = Options::parse([word]).unwrap();
    assert_eq!(options.items, [Item::Source("a b.c".into(), None)]);
    assert_eq!(options.frontend, ["-DX=1 2", "-D y"]);
}

#[test]
fn a_response_file_may_not_contain_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("args");
    std::fs::write(&file, format!("@{}", file.display())).unwrap();
    let mut word = OsString::from("@");
    word.push(&file);
    assert!(matches!(Options::parse([word]), Err(OptionError::ResponseDepth(_))));
}
