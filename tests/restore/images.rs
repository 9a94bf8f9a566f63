//! A dump seen with the commands that show images: `decode`, `encode`, `show`, `info`, `x`.
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::Dumped;

fn isamorph(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isamorph")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_image_of_a_dump_is_shown_and_comes_back_to_the_byte() {
    let dumped = Dumped::new("root");
    let mut kinds = 0;
    for entry in fs::read_dir(dumped.images()).unwrap() {
        let path = entry.unwrap().path();
        let (name, image) = (path.file_name().unwrap().to_str().unwrap(), path.to_str().unwrap());
        if name.starts_with("pages-") {
            let refused = isamorph(&["decode", image]);
            assert!(String::from_utf8_lossy(&refused.stderr).contains("the pagemaps say which pages are where"));
            continue;
        }
        let (json, again) = (dumped.dir.path().join("json"), dumped.dir.path().join("again"));
        for pretty in [&[][..], &["--pretty"]] {
            let decoded = isamorph(&[&["decode", "-i", image, "-o", json.to_str().unwrap()], pretty].concat());
            assert_eq!((text(&decoded).as_str(), decoded.stderr.as_slice()), ("", &[][..]), "{name}");
            text(&isamorph(&["encode", json.to_str().unwrap(), "-o", again.to_str().unwrap()]));
            assert_eq!(fs::read(&again).unwrap(), fs::read(&path).unwrap(), "{name}");
        }
        assert!(text(&isamorph(&["show", image])).starts_with("{\n    \"magic\": "), "{name}");
        assert!(text(&isamorph(&["info", image])).contains("entries: "), "{name}");
        kinds += 1;
    }
    assert!(kinds > 10, "{kinds} images");
}

#[test]
fn a_dumped_process_is_looked_into_without_it() {
    let dumped = Dumped::new("root");
    let images = dumped.images();
    let x = |what: &str| text(&isamorph(&["x", images.to_str().unwrap(), what]));
    let ps = x("ps");
    let line = ps.lines().nth(1).unwrap_or_else(|| panic!("{ps}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[0], words[5], words[7]), (dumped.pid.to_string().as_str(), "alive", "renamed"), "{ps}");
    let file = dumped.dir.path().join("file");
    let file = file.to_str().unwrap();
    let fds = x("fds");
    for wanted in ["      0: /dev/null\n", &format!("    200: {file} (close on exec)\n"), "   root: /\n", ": pipe["] {
        assert!(fds.contains(wanted), "{wanted:?}: {fds}");
    }
    let mems = x("mems");
    for wanted in ["[heap]", "[vdso]", "[shared memory", &format!("rw- {file} + 0x1000 (shared)\n")] {
        assert!(mems.contains(wanted), "{wanted:?}: {mems}");
    }
    let rss = x("rss");
    let all: Vec<&str> = rss.lines().last().unwrap().split_whitespace().collect();
    // `state` touches 3 MiB of heap.
    assert!(all[0] == "all" && all[1].parse::<u32>().unwrap() > 768 && all[2] == "0", "{rss}");
}

#[test]
fn what_isamorph_does_not_know_is_said() {
    let dumped = Dumped::new("root");
    let path = dumped.images().join(format!("fs-{}.img", dumped.pid));
    let mut bytes = fs::read(&path).unwrap();
    // Field 111 of the only entry, whose length precedes it.
    bytes[8] += 3;
    bytes.extend([0xf8, 0x06, 1]);
    fs::write(&path, &bytes).unwrap();
    let shown = isamorph(&["show", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(said.contains("`unknown_fields`: FsEntry field 111"), "{said}");
    let mut encode = Command::new(env!("CARGO_BIN_EXE_isamorph"));
    let mut encode = encode.arg("encode").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    encode.stdin.take().unwrap().write_all(text(&shown).as_bytes()).unwrap();
    assert_eq!(encode.wait_with_output().unwrap().stdout, bytes);
    dumped.refused("FsEntry carries field 111");
}
