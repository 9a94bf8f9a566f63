//! `isamorph decode`, `encode`, `show`, `info`, `x`: images for people and scripts, as `crit` shows them.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::image::{ImageDir, explore, json};

/// Where an image or its JSON comes from and goes to.
#[derive(Args, Debug)]
pub struct InOut {
    /// File to read; standard input without it
    #[arg(value_name = "FILE", conflicts_with = "input")]
    file: Option<PathBuf>,
    /// The same
    #[arg(short = 'i', long = "in", value_name = "FILE", id = "input")]
    input: Option<PathBuf>,
    /// File to write; standard output without it
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
}

impl InOut {
    fn input(&self) -> Option<&Path> {
        self.file.as_deref().or(self.input.as_deref())
    }

    /// Writes all, or says what could not be written. A reader that has seen enough (`| head`) is no failure.
    fn write(&self, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<ExitCode> {
        let named = || self.out.as_ref().map_or("standard output".into(), |path| path.display().to_string());
        let to: Box<dyn Write> = match &self.out {
            Some(path) => Box::new(File::create(path).with_context(named)?),
            None => Box::new(io::stdout().lock()),
        };
        let mut to = BufWriter::new(to);
        match contents(&mut to).and_then(|()| to.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            result => result.with_context(named).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Options of `isamorph decode`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    files: InOut,
    /// Indented, addresses in hexadecimal, flags by name
    #[arg(long)]
    pretty: bool,
    /// Leave out what follows entries in the image (contents of pipes)
    #[arg(long)]
    nopl: bool,
}

/// Options of `isamorph show`.
#[derive(Args, Debug)]
pub struct Show {
    /// Image; standard input without it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Leave out what follows entries in the image (contents of pipes)
    #[arg(long)]
    nopl: bool,
}

/// Options of `isamorph encode`.
#[derive(Args, Debug)]
pub struct Encode {
    #[command(flatten)]
    files: InOut,
}

/// Options of `isamorph info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Image; standard input without it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Options of `isamorph x`.
#[derive(Args, Debug)]
pub struct Explore {
    /// Directory of the images
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// What to show
    #[arg(value_enum)]
    what: What,
}

/// What `isamorph x` shows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Processes
    Ps,
    /// Descriptors, working directory
    Fds,
    /// Mappings
    Mems,
    /// Stored pages by mapping
    Rss,
}

/// Runs `isamorph decode`.
///
/// # Errors
/// What was being done, to what, and what to do about it.
pub fn run(options: Options) -> Result<ExitCode> {
    let path = options.files.input();
    let bytes = json::read(path)?;
    let path = path.unwrap_or(Path::new("standard input"));
    let decoded = json::decode(path, &bytes, json::Options { pretty: options.pretty, no_payload: options.nopl })?;
    let note = |what: &str| complain!("isamorph: {}: {what}", path.display());
    if decoded.no_schema {
        note(&format!("there is no schema for {} images here; fields are shown by number", decoded.kind.name()));
    }
    if !decoded.unknown.is_empty() {
        note(&format!("fields that isamorph does not know, in `unknown_fields`: {}", decoded.unknown.join(", ")));
    }
    if !options.nopl && !decoded.is_exact(&bytes) {
        note("encoded in an unusual way: `isamorph encode` of this JSON gives another file of the same meaning");
    }
    options.files.write(|to| {
        if options.pretty {
            let indented = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut json = serde_json::Serializer::with_formatter(&mut *to, indented);
            serde::Serialize::serialize(&decoded.json, &mut json)?;
        } else {
            serde_json::to_writer(&mut *to, &decoded.json)?;
        }
        writeln!(to)
    })
}

/// Runs `isamorph show`: `decode --pretty`.
///
/// # Errors
/// As [`run`].
pub fn show(options: Show) -> Result<ExitCode> {
    let files = InOut { file: options.file, input: None, out: None };
    run(Options { files, pretty: true, nopl: options.nopl })
}

/// Runs `isamorph encode`.
///
/// # Errors
/// The input is not the JSON of an image, or the output cannot be written.
pub fn encode(options: Encode) -> Result<ExitCode> {
    let named = || options.files.input().map_or("standard input".into(), |path| path.display().to_string());
    let text = match options.files.input() {
        Some(path) => std::fs::read(path),
        None => {
            let mut text = Vec::new();
            io::Read::read_to_end(&mut io::stdin().lock(), &mut text).map(|_| text)
        }
    };
    let json = serde_json::from_slice(&text.with_context(named)?).with_context(named)?;
    let bytes = json::encode(&json).with_context(named)?;
    options.files.write(|to| to.write_all(&bytes))
}

/// Runs `isamorph info`.
///
/// # Errors
/// The input is not a valid image.
pub fn info(options: Info) -> Result<ExitCode> {
    let bytes = json::read(options.file.as_deref())?;
    let info = json::info(options.file.as_deref().unwrap_or(Path::new("standard input")), &bytes)?;
    say!("magic: {}", info.kind.name());
    say!("entries: {}", info.entries);
    say!("payload: {} bytes", info.payload);
    Ok(ExitCode::SUCCESS)
}

/// Runs `isamorph x`.
///
/// # Errors
/// An image that is needed for it is missing or not valid.
pub fn explore(options: Explore) -> Result<ExitCode> {
    let what = match options.what {
        What::Ps => explore::What::Processes,
        What::Fds => explore::What::Descriptors,
        What::Mems => explore::What::Mappings,
        What::Rss => explore::What::Pages,
    };
    let text = explore::explore(&ImageDir::open(&options.dir)?, what)?;
    InOut { file: None, input: None, out: None }.write(|to| to.write_all(text.as_bytes()))
}
