//! The linker's options (`-Wl,`, `-Xlinker`, `-z`): the subset that has a meaning for a pair; the rest is refused by name.
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::{Item, OptionError, Options, SHARED};

/// Without effect on a static executable of fixed layout.
const IGNORED: &[&str] = &[
    "--start-group",
    "--end-group",
    "-(",
    "-)",
    "--as-needed",
    "--no-as-needed",
    "-Bstatic",
    "-static",
    "-dn",
    "--gc-sections",
    "--no-gc-sections",
    "--print-gc-sections",
    "--no-undefined",
    "--build-id",
    "-E",
    "--export-dynamic",
    "--no-export-dynamic",
    "--enable-new-dtags",
    "--disable-new-dtags",
    "-O0",
    "-O1",
    "-O2",
    "--relax",
    "--no-relax",
    "--no-copy-dt-needed-entries",
    "--copy-dt-needed-entries",
    "-no-pie",
    "--no-pie",
    "-pie",
    "--warn-common",
    "-Bsymbolic",
    "-Bsymbolic-functions",
    "--no-allow-shlib-undefined",
    "--allow-shlib-undefined",
    "--no-dynamic-linker",
    "-nostdlib",
    "--fatal-warnings",
    "--no-fatal-warnings",
    "--no-warnings",
    "--sort-common",
    "--eh-frame-hdr",
    "--no-ld-generated-unwind-info",
    "--warn-shared-textrel",
    "--warn-execstack",
    "--no-warn-execstack",
    "--no-warn-rwx-segments",
    "--push-state",
    "--pop-state",
];
const IGNORED_PREFIXES: &[&str] = &[
    "--build-id=",
    "--hash-style=",
    "-rpath=",
    "-rpath-link=",
    "--rpath=",
    "--rpath-link=",
    "--dynamic-linker=",
    "--sort-common=",
    "--sort-section=",
    "--compress-debug-sections=",
    "--version-script=",
    "--dynamic-list=",
    "-plugin-opt=",
    "--threads",
    "--thread-count=",
    "--icf=",
    "--exclude-libs=",
    "--warn-unresolved-symbols",
];
/// The same, with the argument in the next word.
const IGNORED_WITH_ARGUMENT: &[&str] =
    &["-rpath", "--rpath", "-rpath-link", "--rpath-link", "-dynamic-linker", "--dynamic-linker", "--version-script"];
const IGNORED_Z: &[&str] = &[
    "relro",
    "norelro",
    "now",
    "lazy",
    "noexecstack",
    "defs",
    "undefs",
    "text",
    "notext",
    "combreloc",
    "nocombreloc",
    "origin",
    "separate-code",
    "noseparate-code",
    "nodlopen",
    "nodelete",
    "initfirst",
    "common-page-size=4096",
    "nognustack",
    "pack-relative-relocs",
];
/// Passed on to the linker.
const PASSED: &[&str] =
    &["--strip-debug", "-S", "--no-demangle", "--demangle", "--verbose", "--trace", "-t", "--stats"];
const LAYOUT: &str = "the layout of a pair is fixed";

impl Options {
    /// Takes the words that one option of the compiler has for the linker.
    pub(super) fn linker_words(&mut self, words: Vec<OsString>) -> Result<(), OptionError> {
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            self.linker_word(&word, &mut rest)?;
        }
        Ok(())
    }

    fn linker_word(&mut self, word: &OsStr, rest: &mut std::vec::IntoIter<OsString>) -> Result<(), OptionError> {
        let text = word.to_string_lossy().into_owned();
        // `-soname` and `--soname` are one.
        let long = if text.len() > 2 && !text.starts_with("--") { format!("-{text}") } else { text.clone() };
        let known = |list: &[&str]| list.contains(&&*text) || list.contains(&&*long);
        let begins = |list: &[&str]| list.iter().any(|p| text.starts_with(p) || long.starts_with(p));
        let mut argument = || rest.next().ok_or_else(|| OptionError::NoArgument(format!("-Wl,{text}")));
        let value = |name: &str| long.strip_prefix(name).and_then(|v| v.strip_prefix('=')).map(str::to_owned);
        if !text.starts_with('-') {
            self.items.push(Item::File(word.into()));
        } else if text == "-z" || (text.starts_with("-z") && IGNORED_Z.contains(&&text[2..])) {
            let keyword = if text == "-z" { argument()?.to_string_lossy().into_owned() } else { text[2..].to_owned() };
            if !IGNORED_Z.contains(&&*keyword) && !keyword.starts_with("stack-size=") {
                return Err(OptionError::Unsupported { option: format!("-z {keyword}"), reason: LAYOUT });
            }
        } else if known(&["--whole-archive"]) {
            self.items.push(Item::WholeArchive);
        } else if known(&["--no-whole-archive"]) {
            self.items.push(Item::NoWholeArchive);
        } else if known(&["-u", "--undefined"]) {
            self.roots.push(argument()?.to_string_lossy().into_owned());
        } else if let Some(symbol) = value("--undefined") {
            self.roots.push(symbol);
        } else if known(&["-e", "--entry"]) {
            self.entry = Some(argument()?.to_string_lossy().into_owned());
        } else if let Some(symbol) = value("--entry") {
            self.entry = Some(symbol);
        } else if known(&["--Map"]) {
            self.map = Some(argument()?.into());
        } else if let Some(path) = value("--Map") {
            self.map = Some(path.into());
        } else if known(&["-s", "--strip-all"]) {
            self.strip = true;
        } else if known(&["-L", "--library-path"]) {
            self.library_paths.push(argument()?.into());
        } else if known(&["-l", "--library"]) {
            let library = argument()?;
            self.items.push(Item::Library(library));
        } else if let Some(path) = text.strip_prefix("-L") {
            self.library_paths.push(path.into());
        } else if let Some(library) = word.as_bytes().strip_prefix(b"-l") {
            self.items.push(Item::Library(OsStr::from_bytes(library).to_owned()));
        } else if known(PASSED) {
            self.linker.push(word.to_owned());
        } else if known(&["-v", "--version", "-V"]) {
            self.query = Some(super::Query::Version);
        } else if known(IGNORED) || begins(IGNORED_PREFIXES) {
            self.notes.push(format!("-Wl,{text}: without effect on a pair"));
        } else if known(IGNORED_WITH_ARGUMENT) {
            let value = argument()?;
            self.notes.push(format!("-Wl,{text},{}: without effect on a pair", value.to_string_lossy()));
        } else {
            let shared = ["-shared", "--shared", "-soname", "--soname", "-h", "-Bdynamic", "-dy"];
            // Switching the search back to shared libraries is what libtool ends its static parts with.
            if text == "-Bdynamic" || text == "-dy" {
                self.notes.push(format!("-Wl,{text}: there are no shared libraries"));
                return Ok(());
            }
            let reason = if shared.iter().any(|s| text.starts_with(s)) { SHARED } else { LAYOUT };
            return Err(OptionError::Unsupported { option: format!("-Wl,{text}"), reason });
        }
        Ok(())
    }
}
