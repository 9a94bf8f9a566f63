//! Compiles one bitcode file: `compile IN.bc OUT` writes `OUT.x86_64.o` and `OUT.aarch64.o`.
//! With a third argument the IR of each stage goes to that folder.
use isamorph_cc::codegen::{CompileOptions, compile_module};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, input, output, rest @ ..] = args.as_slice() else { anyhow::bail!("usage: compile IN.bc OUT [IR-FOLDER]") };
    let options = CompileOptions {
        source_name: input.clone(),
        keep_ir: rest.first().map(Into::into),
        ..CompileOptions::default()
    };
    let compiled = compile_module(&std::fs::read(input)?, &options)?;
    std::fs::write(format!("{output}.x86_64.o"), &compiled.x86_64)?;
    std::fs::write(format!("{output}.aarch64.o"), &compiled.aarch64)?;
    Ok(())
}
