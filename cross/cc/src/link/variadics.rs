//! That variadic functions are called as such: the caller's type alone decides how arguments are passed.
//!
//! `int f(); … f("%d", 1)` compiles to a call with fixed arguments, which `int f(const char *, ...)` would read as
//! a pointer to its argument slots. Natively that happens to work; here it would crash, so it is refused.
use std::collections::HashMap;

use super::LinkError;
use crate::resolve::Linked;

/// Checks every call across objects that the compiler recorded.
pub fn check(objects: &[Linked]) -> Result<(), LinkError> {
    let mut definitions: HashMap<&str, (&Linked, bool)> = HashMap::new();
    for linked in objects {
        let variadic = &linked.fat.info.variadic_defined;
        let defined = linked.fat.x86_64.symbols.iter().filter(|s| {
            s.is_external() && s.kind == object::elf::STT_FUNC.0 && s.place != crate::pair::elf::Place::Undefined
        });
        for symbol in defined {
            let is_variadic = variadic.contains(&symbol.name);
            // A weak definition loses against a strong one.
            if !symbol.is_weak() || !definitions.contains_key(symbol.name.as_str()) {
                definitions.insert(&symbol.name, (linked, is_variadic));
            }
        }
    }
    let mut wrong = Vec::new();
    for linked in objects {
        let info = &linked.fat.info;
        let calls = info.variadic_called.iter().map(|f| (f, true)).chain(info.fixed_called.iter().map(|f| (f, false)));
        for (function, called_variadic) in calls {
            let Some((definition, is_variadic)) = definitions.get(function.as_str()) else { continue };
            if *is_variadic == called_variadic {
                continue;
            }
            let (is, called) = if *is_variadic { ("a variadic", "a fixed") } else { ("a fixed", "a variadic") };
            wrong.push(format!(
                "{name}: {function} is called with {called} argument list, but {definition} defines it with {is} one; \
                 declare its prototype in {source}",
                name = linked.name,
                definition = definition.name,
                source = info.source,
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(LinkError::Variadic(wrong)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::fat::{FatObject, ModuleInfo};
    use crate::pair::tests::fat_object;

    fn linked(name: &str, functions: &[&str], info: ModuleInfo) -> Linked {
        let bytes = fat_object(functions, &[], &[], info);
        Linked { name: name.into(), fat: FatObject::parse(&bytes).unwrap(), bytes }
    }

    #[test]
    fn a_call_must_match_the_definition() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let definition =
            linked("f.o", &["f", "g"], ModuleInfo { variadic_defined: list(&["f"]), ..Default::default() });
        let right = ModuleInfo { variadic_called: list(&["f"]), fixed_called: list(&["g"]), ..Default::default() };
        let wrong = ModuleInfo { source: "w.c".into(), fixed_called: list(&["f"]), ..Default::default() };
        let objects = [definition, linked("r.o", &["r"], right)];
        assert!(check(&objects).is_ok());
        let [definition, _] = objects;
        let error = check(&[definition, linked("w.o", &["w"], wrong)]).unwrap_err().to_string();
        assert!(error.starts_with("w.o: f is called with a fixed argument list, but f.o defines it"), "{error}");
        assert!(error.ends_with("declare its prototype in w.c"), "{error}");
    }
}
