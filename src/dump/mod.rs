//! Live tree to image tree; one file per kind of resource.
//!
//! ```text
//!   isamorph dump ──fork──▶ worker (own session; the tracer)
//!        │                    survey      refusals, while the process still runs
//!        │                    freeze      seize, stop; a portable process is parked
//!        │◀── either one's    collect     what only the process can say (errand), files, mappings
//!        │    death undoes    write       images, the inventory last
//!        ▼    everything      conclude    kill, leave running, leave stopped
//! ```
//!
//! Nothing the process does depends on our life: see [`guard`].
pub mod error;
pub mod files;
pub mod freeze;
pub mod guard;
pub mod hold;
pub mod log;
pub mod mm;
pub mod pages;
pub mod park;
pub mod place;
pub mod polls;
pub mod self_report;
pub mod special;
pub mod stall;
pub mod survey;
pub mod task;
pub mod thread;
pub mod threads;
pub mod tree;
pub mod tty;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use error::Error;
pub use log::Log;

use crate::image::{ImageDir, proto};
use crate::tracee::Watch;
use guard::Undo;
use stall::stall;

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// What becomes of the process after a successful dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// It is killed.
    #[default]
    Kill,
    /// It goes on.
    Run,
    /// It stays stopped, as by SIGSTOP.
    Stop,
}

/// What to dump, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The process.
    pub pid: i32,
    /// Where the images go; made if it is not there.
    pub images: PathBuf,
    /// What becomes of the process.
    pub after: After,
    /// Bring a portable process to its equivalence points.
    pub park: bool,
    /// The process belongs to a session or a terminal that stays here.
    pub shell_job: bool,
    /// Descriptors whose other end stays here, as `pipe[INODE]`.
    pub external: Vec<String>,
    /// How long stopping the process may take.
    pub timeout: Duration,
}

/// What a dump did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Whether the process was parked at an equivalence point.
    pub parked: bool,
    /// Pages written.
    pub pages: u64,
    /// From the request to the process's stop.
    pub freezing: Duration,
    /// How long it was stopped.
    pub frozen: Duration,
}

/// Dumps a process. To be called in a worker of its own ([`guard::run`]); `translate` is called with
/// the finished images while the process can still go on.
///
/// # Errors
/// What was refused or failed; the process goes on then, and images are for the caller to remove.
pub fn dump(
    options: &Options,
    watch: &mut Watch,
    undo: &Undo,
    log: &Log,
    translate: &mut dyn FnMut() -> Result<()>,
) -> Result<Report> {
    let started = Instant::now();
    let survey = survey::survey(options, log)?;
    let tree = ImageDir::create(&options.images)?;
    stall("surveyed", watch)?;
    let mut frozen = freeze::freeze(&survey, watch, undo, log)?;
    let freezing = started.elapsed();
    let begun = Instant::now();
    let result = (|| {
        let summary = write_tree(options, &survey, &mut frozen, &tree, watch, log)?;
        let times = [freezing, begun.elapsed(), summary.memory_time];
        tree.write_one(None, tree::stats(times, &summary))?;
        stall("written", watch)?;
        translate()?;
        stall("translated", watch)?;
        Ok(summary)
    })();
    match result {
        Ok(summary) => {
            let parked = frozen.parked;
            freeze::commit(undo);
            freeze::conclude(frozen, options.after, undo, log)?;
            log.info(&format!("{} pages; frozen for {:?}", summary.pages.written, begun.elapsed()));
            Ok(Report { parked, pages: summary.pages.written, freezing, frozen: begun.elapsed() })
        }
        Err(error) => {
            freeze::release(frozen, undo, log);
            Err(error)
        }
    }
}

/// What statistics count.
#[derive(Debug)]
pub struct Summary {
    pages: pages::Counts,
    memory_time: Duration,
}

fn write_tree(
    options: &Options,
    survey: &survey::Survey,
    frozen: &mut freeze::Frozen,
    tree: &ImageDir,
    watch: &Watch,
    log: &Log,
) -> Result<Summary> {
    let pid = options.pid;
    stall("frozen", watch)?;
    // At once: until its clocks are asked, the process loses time.
    let own = self_report::ask(frozen, watch)?;
    stall("asked", watch)?;
    let mut files = files::Files::new(options, pid, own.asked)?;
    files.collect_descriptors(log)?;
    let mappings = mm::collect(pid, frozen.parked)?;
    let mm = mm::entry(pid, &mappings, &own, &mut files)?;
    let fs = proto::FsEntry {
        cwd_id: files.special(pid, "cwd")?,
        root_id: files.special(pid, "root")?,
        umask: Some(survey.status.umask),
    };
    let cores = task::cores(survey, frozen, &own)?;
    watch.check()?;

    let begun = Instant::now();
    let counts = pages::write(tree, pid, frozen, &mappings, watch)?;
    let memory_time = begun.elapsed();
    log.info(&format!("{} of {} pages written in {memory_time:?}", counts.written, counts.scanned));
    stall("pages", watch)?;

    let id = pid as u64;
    for (thread, core) in frozen.threads.iter().zip(cores) {
        tree.write_one(thread.tid as u64, core)?;
    }
    tree.write_one(id, mm)?;
    tree.write_one(id, fs)?;
    tree.write_one(id, tree::ids())?;
    files.write(tree)?;
    tree.write_one(None, tree::pstree(survey, frozen))?;
    tree.write_one(0, own.clocks)?;
    stall("images", watch)?;
    tree.write_one(None, tree::inventory())?;
    Ok(Summary { pages: counts, memory_time })
}
