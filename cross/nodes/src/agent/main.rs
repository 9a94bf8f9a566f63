//! The init of a node: brings the machine up, then runs commands for the host until it is switched off.

mod boot;
mod serve;
mod session;

fn main() {
    // SAFETY: getpid has no preconditions.
    if unsafe { libc::getpid() } != 1 {
        eprintln!("isamorph-agent is the init of a node; start one with cross/node");
        std::process::exit(2);
    }
    let result = boot::boot().and_then(serve::serve);
    // The console is the log that cross/node shows when a node dies. The kernel panics when init ends, and QEMU ends with it.
    if let Err(error) = result {
        eprintln!("isamorph-agent: {error}");
    }
}
