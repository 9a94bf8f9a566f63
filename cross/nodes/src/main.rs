//! `cross/node`: runs commands on QEMU nodes of either instruction set.

use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use isamorph_node::client::PassThrough;
use isamorph_node::machine::{self, Node, Spec};
use isamorph_node::place::{self, Isa};
use isamorph_node::wire::Ending;

const USAGE: &str = "\
usage:
  cross/node run --isa ISA [--dir DIR]... [options] -- CMD [ARG]...
      boots a node, runs CMD on it, ends it
  cross/node start --name NAME --isa ISA [--dir DIR]... [options]
      boots a node that stays
  cross/node exec --name NAME [-i] [--timeout SECONDS] -- CMD [ARG]...
      runs CMD on it; several at a time may run
  cross/node stop --name NAME | --all
  cross/node list
  cross/node prepare
      builds what nodes of both ISAs boot from, once; the other verbs do it when needed

  --isa ISA            x86_64 or aarch64
  --dir DIR            shared with the node, live, at the same absolute path
  --mem MIB            memory (1024)
  --cpus N             processors (1)
  --criu               load the kernel modules that stock CRIU needs
  --timeout SECONDS    kill CMD after that long and exit with status 124
  -i                   pass standard input on (else CMD reads /dev/null)

CMD runs as root, in this working directory if that is in a DIR, else in /root. Output, error output and exit status are
CMD's; 128+N if signal N killed it, 127 if it could not be started, 125 if the node failed.
Environment: ISAMORPH_NODE_ACCEL=kvm makes x86_64 nodes use KVM (default: tcg). Variables named ISAMORPH_* and RUST_*
are passed on.";

#[derive(Default)]
struct Args {
    name: Option<String>,
    isa: Option<Isa>,
    dirs: Vec<PathBuf>,
    memory_mib: Option<u32>,
    cpus: Option<u32>,
    criu: bool,
    timeout: Option<Duration>,
    input: bool,
    all: bool,
    argv: Vec<Vec<u8>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            eprintln!("cross/node: {error}");
            ExitCode::from(124)
        }
        Err(error) => {
            eprintln!("cross/node: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> io::Result<i32> {
    let mut words = std::env::args_os().skip(1);
    let verb = words.next().unwrap_or_default().into_string().unwrap_or_default();
    let args = parse(words)?;
    match verb.as_str() {
        "run" => {
            let name = args.name.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
            let spec = args.spec(name, false)?;
            if args.argv.is_empty() {
                return Err(misuse("no command after --"));
            }
            let node = Node::boot(&spec)?;
            on_node(node.dir(), &args)
        }
        "start" => {
            let name = args.name.clone().ok_or_else(|| misuse("start needs --name"))?;
            Node::boot(&args.spec(name, true)?)?;
            Ok(0)
        }
        "exec" => {
            let name = args.name.as_deref().ok_or_else(|| misuse("exec needs --name"))?;
            if args.argv.is_empty() {
                return Err(misuse("no command after --"));
            }
            on_node(&place::find(name)?, &args)
        }
        "stop" if args.all => {
            for name in running()? {
                machine::stop(&place::find(&name)?)?;
            }
            Ok(0)
        }
        "stop" => {
            let name = args.name.as_deref().ok_or_else(|| misuse("stop needs --name or --all"))?;
            machine::stop(&place::find(name)?)?;
            Ok(0)
        }
        "list" => {
            for name in running()? {
                let dir = place::find(&name)?;
                println!("{name} {}", std::fs::read_to_string(dir.join("ready"))?);
            }
            Ok(0)
        }
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(0)
        }
        other => Err(misuse(&format!("unknown verb {other:?}"))),
    }
}

fn on_node(dir: &std::path::Path, args: &Args) -> io::Result<i32> {
    let cwd = std::env::current_dir().unwrap_or_else(|_| "/root".into());
    let ending = machine::exec(dir, args.argv.clone(), &cwd, args.input, args.timeout, &mut PassThrough)?;
    if let Ending::Failed(reason) = &ending {
        eprintln!("cross/node: {reason}");
    }
    Ok(ending.status())
}

fn running() -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(place::nodes()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("ready").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

impl Args {
    fn spec(&self, name: String, detached: bool) -> io::Result<Spec> {
        Ok(Spec {
            name,
            isa: self.isa.ok_or_else(|| misuse("--isa x86_64 or --isa aarch64 is needed"))?,
            dirs: self.dirs.clone(),
            memory_mib: self.memory_mib.unwrap_or(1024),
            cpus: self.cpus.unwrap_or(1),
            criu: self.criu,
            detached,
        })
    }
}

fn parse(mut words: impl Iterator<Item = std::ffi::OsString>) -> io::Result<Args> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let word = word.to_string_lossy().into_owned();
        let mut value = || words.next().ok_or_else(|| misuse(&format!("{word} needs a value")));
        match word.as_str() {
            "--" => {
                args.argv = words.map(OsStringExt::into_vec).collect();
                break;
            }
            "--isa" => {
                let name = value()?.to_string_lossy().into_owned();
                args.isa =
                    Some(Isa::from_name(&name).ok_or_else(|| misuse(&format!("--isa {name:?}: x86_64 or aarch64")))?);
            }
            "--name" => args.name = Some(value()?.to_string_lossy().into_owned()),
            "--dir" => args.dirs.push(value()?.into()),
            "--mem" => args.memory_mib = Some(number(&word, &value()?.to_string_lossy())?),
            "--cpus" => args.cpus = Some(number(&word, &value()?.to_string_lossy())?),
            "--timeout" => args.timeout = Some(Duration::from_secs(number(&word, &value()?.to_string_lossy())?.into())),
            "--criu" => args.criu = true,
            "--all" => args.all = true,
            "-i" => args.input = true,
            _ => return Err(misuse(&format!("unknown option {word:?}"))),
        }
    }
    Ok(args)
}

fn number(option: &str, text: &str) -> io::Result<u32> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| misuse(&format!("{option} {text:?}: not a positive number")))
}

fn misuse(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{what}\n{USAGE}"))
}
