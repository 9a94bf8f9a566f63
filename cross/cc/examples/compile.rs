//! Compiles bitcode files without the driver: `compile OUT-FOLDER IN.bc…` writes `OUT-FOLDER/IN.{x86_64,aarch64}.o`.
//! With `ISAMORPH_KEEP_IR=FOLDER` the IR of each stage goes there.
use isamorph_cc::codegen::{CompileOptions, compile_module};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, output, inputs @ ..] = args.as_slice() else { anyhow::bail!("usage: compile OUT-FOLDER IN.bc…") };
    let mut failed = 0;
    for input in inputs {
        let options = CompileOptions {
            source_name: input.clone(),
            keep_ir: std::env::var_os("ISAMORPH_KEEP_IR").map(Into::into),
            ..CompileOptions::default()
        };
        match compile_module(&std::fs::read(input)?, &options) {
            Ok(compiled) => {
                let stem = Path::new(output).join(Path::new(input).file_stem().unwrap_or_default());
                std::fs::write(stem.with_extension("x86_64.o"), &compiled.x86_64)?;
                std::fs::write(stem.with_extension("aarch64.o"), &compiled.aarch64)?;
            }
            Err(error) => {
                failed += 1;
                eprintln!("{input}: {error}");
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} failed", inputs.len());
    Ok(())
}
