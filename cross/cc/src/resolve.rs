//! Which archive members a link needs: decided once, over the symbols of both ISAs, so that both link one list.
//!
//! A linker left to itself extracts in an order, and at times a set, that depends on the ISA (x86_64 without
//! SSE4.1 calls `ceil` where aarch64 has an instruction), and then no address agrees.
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use isamorph_arch::Isa;

use crate::archive::Archive;
use crate::leaves;
use crate::pair::elf::{ElfError, Place, Relocatable};
use crate::pair::fat::{FatError, FatObject};

/// Something on the command line that takes part in the link.
#[derive(Debug)]
pub enum Input {
    /// An object: its name for messages, its bytes.
    Object(String, Vec<u8>),
    /// An archive whose members are taken as they are needed.
    Archive(Archive),
    /// An archive of which every member is taken (`--whole-archive`).
    Whole(Archive),
}

/// An object that takes part in the link.
#[derive(Debug)]
pub struct Linked {
    /// `main.o` or `libx.a(y.o)`.
    pub name: String,
    /// The file, for x86_64's linker.
    pub bytes: Vec<u8>,
    /// The file, parsed.
    pub fat: FatObject,
}

/// An object of one ISA only: part of its compiler's runtime library.
#[derive(Debug)]
pub struct Native {
    /// `libgcc.a(addtf3.o)`.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// The file, parsed.
    pub object: Relocatable,
}

/// What is linked, in this order on both ISAs.
#[derive(Debug)]
pub struct Resolution {
    /// The fat objects.
    pub objects: Vec<Linked>,
    /// For each ISA (in the order of [`Isa::ALL`]), what it takes from its compiler's runtime library.
    pub native: [Vec<Native>; 2],
}

/// Why there is no list to link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// An object cannot be used.
    #[error("{name}: {source}")]
    Object {
        /// The object.
        name: String,
        /// Why not.
        source: FatError,
    },
    /// A member of a runtime library cannot be used.
    #[error("{name}: {source}")]
    Native {
        /// The object.
        name: String,
        /// Why not.
        source: ElfError,
    },
    /// A member of a runtime library has state.
    #[error("{name}: section {section} of the compiler's runtime library has writable state, which cannot move")]
    NativeState {
        /// The object.
        name: String,
        /// The section.
        section: String,
    },
    /// Two strong definitions.
    #[error("duplicate symbol: {symbol}, defined in {first} and in {second}")]
    Duplicate {
        /// The symbol.
        symbol: String,
        /// An object that defines it.
        first: String,
        /// The other.
        second: String,
    },
    /// Symbols that nothing defines.
    #[error("{}", undefined_message(.0))]
    Undefined(Vec<Undefined>),
}

/// A symbol that nothing defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undefined {
    /// Its name.
    pub symbol: String,
    /// The first object that needs it.
    pub by: String,
}

/// Decides what is linked: `inputs` in the order of the command line, `roots` needed in any case, `runtime`
/// the compiler runtime library of each ISA (in the order of [`Isa::ALL`]) where there is one.
///
/// An archive serves what stands before it and after it, as with `ld.lld`; the first that defines a symbol wins.
///
/// # Errors
/// See [`ResolveError`].
pub fn resolve(
    inputs: Vec<Input>,
    roots: &[String],
    runtime: [Option<Archive>; 2],
) -> Result<Resolution, ResolveError> {
    let mut state = State::default();
    for root in roots {
        state.need(root, "the command line");
    }
    for input in inputs {
        match input {
            Input::Object(name, bytes) => state.add(name, bytes)?,
            Input::Whole(archive) => {
                for member in 0..archive.members.len() {
                    state.add(archive.label(member), archive.data(member).to_vec())?;
                }
            }
            Input::Archive(archive) => {
                for (symbol, &member) in &archive.defines {
                    let place = (state.archives.len(), member);
                    state.lazy.entry(symbol.clone()).or_insert(place);
                }
                state.archives.push(archive);
            }
        }
    }
    let mut native = [Vec::new(), Vec::new()];
    loop {
        state.extract()?;
        let mut needed = Vec::new();
        for ((isa, archive), out) in Isa::ALL.into_iter().zip(&runtime).zip(&mut native) {
            *out = match archive {
                Some(archive) => helpers(&state, isa, archive, &mut needed)?,
                None => Vec::new(),
            };
        }
        needed.retain(|(symbol, _)| !state.defined.contains_key(symbol) && !state.unmet.contains_key(symbol));
        if needed.is_empty() {
            break;
        }
        for (symbol, by) in needed {
            state.need(&symbol, &by);
        }
    }
    let provided: BTreeSet<&String> = runtime.iter().flatten().flat_map(|a| a.defines.keys()).collect();
    let missing: Vec<_> = state
        .unmet
        .iter()
        .filter(|(symbol, _)| !(leaves::is_helper(symbol) && provided.contains(symbol)))
        .filter(|(symbol, _)| !is_linker_symbol(symbol))
        .map(|(symbol, by)| Undefined { symbol: symbol.clone(), by: by.clone() })
        .collect();
    if !missing.is_empty() {
        return Err(ResolveError::Undefined(missing));
    }
    Ok(Resolution { objects: state.objects, native })
}

/// What the linker script defines.
fn is_linker_symbol(symbol: &str) -> bool {
    crate::link::script::SYMBOLS.contains(&symbol)
        || symbol.strip_prefix("__start_").or_else(|| symbol.strip_prefix("__stop_")).is_some()
}

#[derive(Default)]
struct State {
    archives: Vec<Archive>,
    lazy: HashMap<String, (usize, usize)>,
    taken: BTreeSet<(usize, usize)>,
    objects: Vec<Linked>,
    /// Symbol to (object's name, strong).
    defined: HashMap<String, (String, bool)>,
    /// Strong references not yet met, to the object that first made them.
    unmet: BTreeMap<String, String>,
    queue: VecDeque<String>,
}

impl State {
    fn need(&mut self, symbol: &str, by: &str) {
        if !self.defined.contains_key(symbol) && !self.unmet.contains_key(symbol) {
            self.unmet.insert(symbol.to_owned(), by.to_owned());
            self.queue.push_back(symbol.to_owned());
        }
    }

    fn add(&mut self, name: String, bytes: Vec<u8>) -> Result<(), ResolveError> {
        let fat = FatObject::parse(&bytes).map_err(|source| ResolveError::Object { name: name.clone(), source })?;
        for symbol in fat.x86_64.symbols.iter().filter(|s| s.is_external() && s.place != Place::Undefined) {
            self.unmet.remove(&symbol.name);
            match self.defined.get(&symbol.name) {
                Some((first, true)) if !symbol.is_weak() => {
                    let (symbol, first) = (symbol.name.clone(), first.clone());
                    return Err(ResolveError::Duplicate { symbol, first, second: name });
                }
                Some(_) if symbol.is_weak() => {}
                _ => {
                    self.defined.insert(symbol.name.clone(), (name.clone(), !symbol.is_weak()));
                }
            }
        }
        for symbol in fat.x86_64.symbols.iter().chain(&fat.aarch64.symbols) {
            if symbol.place == Place::Undefined && symbol.is_external() && !symbol.is_weak() {
                self.need(&symbol.name, &name);
            }
        }
        self.objects.push(Linked { name, bytes, fat });
        Ok(())
    }

    fn extract(&mut self) -> Result<(), ResolveError> {
        while let Some(symbol) = self.queue.pop_front() {
            if self.defined.contains_key(&symbol) {
                continue;
            }
            let Some(&(archive, member)) = self.lazy.get(&symbol) else { continue };
            if self.taken.insert((archive, member)) {
                let (name, bytes) = {
                    let archive = &self.archives[archive];
                    (archive.label(member), archive.data(member).to_vec())
                };
                self.add(name, bytes)?;
            }
        }
        Ok(())
    }
}

/// The members of one ISA's runtime library for the helpers that nothing else defines.
fn helpers(
    state: &State,
    isa: Isa,
    archive: &Archive,
    needed: &mut Vec<(String, String)>,
) -> Result<Vec<Native>, ResolveError> {
    let mut queue: VecDeque<String> = VecDeque::new();
    for linked in &state.objects {
        let half = match isa {
            Isa::X86_64 => &linked.fat.x86_64,
            Isa::Aarch64 => &linked.fat.aarch64,
        };
        let external = half.symbols.iter().filter(|s| s.place == Place::Undefined && s.is_external());
        queue.extend(external.filter(|s| leaves::is_helper(&s.name)).map(|s| s.name.clone()));
    }
    let mut taken = BTreeSet::new();
    let mut natives: Vec<Native> = Vec::new();
    while let Some(symbol) = queue.pop_front() {
        if state.defined.contains_key(&symbol) {
            continue;
        }
        let Some(&member) = archive.defines.get(&symbol) else {
            let by = natives.last().map_or_else(|| archive.path.display().to_string(), |n| n.name.clone());
            needed.push((symbol, by));
            continue;
        };
        if !taken.insert(member) {
            continue;
        }
        let (name, bytes) = (archive.label(member), archive.data(member).to_vec());
        let object =
            Relocatable::parse(&bytes).map_err(|source| ResolveError::Native { name: name.clone(), source })?;
        if let Some(section) = object.sections.iter().find(|s| s.is_alloc() && s.is_writable() && s.size > 0) {
            return Err(ResolveError::NativeState { name, section: section.name.clone() });
        }
        let undefined = object.symbols.iter().filter(|s| s.place == Place::Undefined && s.is_external());
        queue.extend(undefined.filter(|s| !s.is_weak() && s.name != "_GLOBAL_OFFSET_TABLE_").map(|s| s.name.clone()));
        natives.push(Native { name, bytes, object });
    }
    Ok(natives)
}

/// What is known to be missing on purpose, and what to do instead.
const REFUSED: [(&[&str], &str); 3] = [
    (
        &["setjmp", "_setjmp", "sigsetjmp", "__sigsetjmp", "longjmp", "_longjmp", "siglongjmp"],
        "non-local jumps are not supported yet: a jmp_buf would hold registers of one instruction set",
    ),
    (
        &["dlopen", "dlsym", "dlclose", "dlerror", "dladdr"],
        "there are no shared libraries: link the library's archive instead",
    ),
    (
        &["getcontext", "setcontext", "makecontext", "swapcontext"],
        "user-level contexts hold registers of one instruction set",
    ),
];

fn undefined_message(missing: &[Undefined]) -> String {
    let lines = missing.iter().take(20).map(|Undefined { symbol, by }| {
        match REFUSED.iter().find(|(names, _)| names.contains(&symbol.as_str())) {
            Some((_, reason)) => format!("{symbol} is not supported: {reason}\n>>> referenced by {by}"),
            None => format!("undefined symbol: {symbol}\n>>> referenced by {by}"),
        }
    });
    let mut message = lines.collect::<Vec<_>>().join("\n");
    if missing.len() > 20 {
        message += &format!("\nand {} more undefined symbols", missing.len() - 20);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::archive;
    use crate::pair::fat::ModuleInfo;
    use crate::pair::tests::{Part, fat_object, object};

    fn simple(functions: &[&str], undefined: &[&str]) -> Vec<u8> {
        fat_object(functions, undefined, &[], ModuleInfo::default())
    }

    fn library(name: &str, members: &[(&str, Vec<u8>)]) -> Archive {
        let members: Vec<_> = members.iter().map(|(n, d)| ((*n).to_owned(), d.clone())).collect();
        Archive::parse(Path::new(name), archive::write(&members)).unwrap()
    }

    fn names(resolution: &Resolution) -> Vec<&str> {
        resolution.objects.iter().map(|o| o.name.as_str()).collect()
    }

    #[test]
    fn only_what_is_needed_is_taken_in_any_order_of_archives() {
        let second = library("b.a", &[("g.o", simple(&["g"], &["f2"])), ("unused.o", simple(&["u"], &["nowhere"]))]);
        let first = library("a.a", &[("f.o", simple(&["f"], &["g"])), ("f2.o", simple(&["f2"], &[]))]);
        let inputs = vec![
            Input::Object("main.o".into(), simple(&["main"], &["f"])),
            Input::Archive(first),
            Input::Archive(second),
        ];
        let resolution = resolve(inputs, &["main".into()], [None, None]).unwrap();
        assert_eq!(names(&resolution), ["main.o", "a.a(f.o)", "b.a(g.o)", "a.a(f2.o)"]);
    }

    #[test]
    fn what_one_isa_needs_both_get() {
        let main = fat_object(&["main"], &[], &["ceil"], ModuleInfo::default());
        let libm = library("m.a", &[("ceil.o", simple(&["ceil"], &[]))]);
        let resolution =
            resolve(vec![Input::Object("main.o".into(), main), Input::Archive(libm)], &[], [None, None]).unwrap();
        assert_eq!(names(&resolution), ["main.o", "m.a(ceil.o)"]);
    }

    #[test]
    fn whole_archives_and_the_first_definition() {
        let whole = library("w.a", &[("x.o", simple(&["x"], &[])), ("y.o", simple(&["y"], &["z"]))]);
        let one = library("1.a", &[("z.o", simple(&["z"], &[]))]);
        let two = library("2.a", &[("z.o", simple(&["z"], &[]))]);
        let inputs = vec![Input::Whole(whole), Input::Archive(one), Input::Archive(two)];
        assert_eq!(names(&resolve(inputs, &[], [None, None]).unwrap()), ["w.a(x.o)", "w.a(y.o)", "1.a(z.o)"]);
    }

    #[test]
    fn undefined_symbols_are_named_with_who_needs_them() {
        let main = Input::Object("main.o".into(), simple(&["main"], &["nowhere", "setjmp"]));
        let error = resolve(vec![main], &[], [None, None]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("undefined symbol: nowhere\n>>> referenced by main.o"), "{text}");
        assert!(text.contains("setjmp is not supported: non-local jumps"), "{text}");
    }

    #[test]
    fn two_definitions_are_refused() {
        let inputs =
            ["a.o", "b.o"].map(|n| Input::Object(n.into(), simple(&["f"], &[]))).into_iter().collect::<Vec<_>>();
        match resolve(inputs, &[], [None, None]) {
            Err(ResolveError::Duplicate { symbol, first, second }) => {
                assert_eq!((&*symbol, &*first, &*second), ("f", "a.o", "b.o"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn helpers_come_from_each_isas_own_library() {
        let code: Part<'_> = (".text", 1, 6, &[0xc3]);
        let state: Part<'_> = (".data", 1, 3, &[1]);
        let own = |isa, parts: &[Part<'_>]| object(isa, parts, &[("__addtf3", 0)], &["abort"]);
        let lib = |isa, parts: &[Part<'_>]| Some(library("libgcc.a", &[("addtf3.o", own(isa, parts))]));
        let inputs = || {
            vec![
                Input::Object("main.o".into(), simple(&["main"], &["__addtf3"])),
                Input::Archive(library("c.a", &[("abort.o", simple(&["abort"], &[]))])),
            ]
        };
        let runtime = [lib(Isa::X86_64, &[code]), lib(Isa::Aarch64, &[code])];
        let resolution = resolve(inputs(), &[], runtime).unwrap();
        assert_eq!(names(&resolution), ["main.o", "c.a(abort.o)"]);
        assert_eq!(resolution.native.map(|n| n.len()), [1, 1]);
        let runtime = [lib(Isa::X86_64, &[code, state]), lib(Isa::Aarch64, &[code])];
        assert!(matches!(resolve(inputs(), &[], runtime), Err(ResolveError::NativeState { .. })));
        assert!(matches!(resolve(inputs(), &[], [None, None]), Err(ResolveError::Undefined(_))));
    }
}
