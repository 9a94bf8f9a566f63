//! What the processes of a tree were, for people: the process list, descriptors, mappings, stored pages.
//!
//! Works on trees of any instruction set, on any machine, without the processes.
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::dir::ImageDir;
use super::entry::Entry;
use super::error::ImageError;
use super::kind::ImageKind;
use super::pages::{PAGE_SIZE, Place, read_runs};
use super::proto::{
    CoreEntry, FdType, FdinfoEntry, FileEntry, FsEntry, InventoryEntry, MemfdInodeEntry, MmEntry, PstreeEntry,
    TaskKobjIdsEntry, VmaEntry,
};
use super::vma;

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Processes: IDs, state, instruction set, name.
    Processes,
    /// Descriptors, working and root directory of each.
    Descriptors,
    /// Mappings of each.
    Mappings,
    /// Pages that are stored, by mapping.
    Pages,
}

/// Text about all processes of a tree.
///
/// # Errors
/// An image that is needed for it is missing or not valid.
pub fn explore(tree: &ImageDir, what: What) -> Result<String, ImageError> {
    let tree = Tree::read(tree)?;
    let mut text = String::new();
    if what == What::Processes {
        line(&mut text, format_args!("    PID   PPID   PGID    SID THREADS STATE   ISA     NAME"));
    }
    for (depth, process) in tree.in_order() {
        match what {
            What::Processes => tree.process(&mut text, process, depth)?,
            What::Descriptors => tree.descriptors(&mut text, process)?,
            What::Mappings => tree.mappings(&mut text, process)?,
            What::Pages => tree.pages(&mut text, process)?,
        }
    }
    Ok(text)
}

/// Writing into a string cannot fail.
fn line(text: &mut String, what: fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
    text.push('\n');
}

struct Tree<'a> {
    dir: &'a ImageDir,
    processes: Vec<Entry<PstreeEntry>>,
    files: BTreeMap<u32, Entry<FileEntry>>,
    memfds: BTreeMap<u32, String>,
    fdinfo_per_id: bool,
}

impl<'a> Tree<'a> {
    fn read(dir: &'a ImageDir) -> Result<Self, ImageError> {
        let memfds = dir.read_or_empty::<MemfdInodeEntry>(None)?;
        Ok(Self {
            fdinfo_per_id: dir.read_one::<InventoryEntry>(None)?.fdinfo_per_id(),
            processes: dir.read(None)?,
            files: dir.read_or_empty::<FileEntry>(None)?.into_iter().map(|f| (f.id, f)).collect(),
            // Files refer to it by 32 bits.
            memfds: memfds.iter().map(|m| (m.inode_id as u32, m.name.clone())).collect(),
            dir,
        })
    }

    /// Children behind their parent, with their depth; each process once, whatever the images say.
    fn in_order(&self) -> Vec<(usize, &PstreeEntry)> {
        let mut order: Vec<(usize, &PstreeEntry)> = Vec::new();
        let mut rest: Vec<&PstreeEntry> = self.processes.iter().map(|p| &**p).collect();
        while !rest.is_empty() {
            let known = |pid: u32| rest.iter().any(|p| p.pid == pid);
            // One whose parent is not among them; in a circle, any.
            let root = rest.iter().position(|p| !known(p.ppid)).unwrap_or(0);
            let mut stack = vec![(0, rest.remove(root))];
            while let Some((depth, process)) = stack.pop() {
                order.push((depth, process));
                let (children, others) = rest.into_iter().partition(|p| p.ppid == process.pid);
                rest = others;
                stack.extend(Vec::<&PstreeEntry>::into_iter(children).rev().map(|c| (depth + 1, c)));
            }
        }
        order
    }

    fn process(&self, text: &mut String, p: &PstreeEntry, depth: usize) -> Result<(), ImageError> {
        let core = self.dir.read_one::<CoreEntry>(u64::from(p.pid))?;
        let task = core.tc.as_ref();
        let state = match task.map_or(0, |t| t.task_state) {
            1 => "alive",
            2 => "dead",
            3 => "stopped",
            6 => "zombie",
            _ => "?",
        };
        let isa = core.isa().map_or_else(|| "?".to_owned(), |isa| isa.to_string());
        let name = core.thread_core.as_ref().and_then(|t| t.comm.as_deref());
        let name = name.or(task.map(|t| t.comm.as_str())).unwrap_or("?");
        line(
            text,
            format_args!(
                "{:7}{:7}{:7}{:7} {:7} {state:7} {isa:7} {:indent$}{}",
                p.pid,
                p.ppid,
                p.pgid,
                p.sid,
                p.threads.len(),
                "",
                Printable(name),
                indent = 2 * depth
            ),
        );
        Ok(())
    }

    fn descriptors(&self, text: &mut String, p: &PstreeEntry) -> Result<(), ImageError> {
        line(text, format_args!("{}", p.pid));
        let pid = u64::from(p.pid);
        let id = match self.fdinfo_per_id {
            true => self.ids(pid)?.files_id.into(),
            false => pid,
        };
        let mut fds = self.dir.read::<FdinfoEntry>(id)?;
        fds.sort_by_key(|f| f.fd);
        for f in fds {
            let cloexec = if f.flags & 1 != 0 { " (close on exec)" } else { "" };
            line(text, format_args!("{:7}: {}{cloexec}", f.fd, Printable(&self.name(f.id))));
        }
        let fs = self.dir.read_one::<FsEntry>(pid)?;
        line(text, format_args!("    cwd: {}", Printable(&self.name(fs.cwd_id))));
        line(text, format_args!("   root: {}", Printable(&self.name(fs.root_id))));
        Ok(())
    }

    fn mappings(&self, text: &mut String, p: &PstreeEntry) -> Result<(), ImageError> {
        line(text, format_args!("{}", p.pid));
        let mm = self.dir.read_one::<MmEntry>(u64::from(p.pid))?;
        line(text, format_args!("    {:39} {}", "exe", Printable(&self.name(mm.exe_file_id))));
        for v in &mm.vmas {
            let range = format!("{:x}-{:x}", v.start, v.end);
            line(text, format_args!("    {range:35} {} {}", protection(v), Printable(&self.mapped(v))));
        }
        Ok(())
    }

    fn pages(&self, text: &mut String, p: &PstreeEntry) -> Result<(), ImageError> {
        line(text, format_args!("{:35}    stored in parent of pages", p.pid));
        let mm = self.dir.read_one::<MmEntry>(u64::from(p.pid))?;
        let (_, runs) = read_runs(self.dir, ImageKind::Pagemap, p.pid.into())?;
        let (mut here_all, mut parent_all) = (0, 0);
        for run in &runs {
            *(if run.place == Place::Parent { &mut parent_all } else { &mut here_all }) += run.pages;
        }
        let mut next = 0;
        for v in &mm.vmas {
            let (mut here, mut parent) = (0, 0);
            next += runs[next..].partition_point(|r| r.end() <= v.start);
            for run in runs[next..].iter().take_while(|r| r.addr < v.end) {
                let pages = run.end().min(v.end).saturating_sub(run.addr.max(v.start)) / PAGE_SIZE;
                *(if run.place == Place::Parent { &mut parent } else { &mut here }) += pages;
            }
            if here + parent != 0 {
                let range = format!("{:x}-{:x}", v.start, v.end);
                let of = v.end.saturating_sub(v.start) / PAGE_SIZE;
                line(text, format_args!("    {range:35} {here:5} {parent:9} {of:8} {}", Printable(&self.mapped(v))));
            }
        }
        line(text, format_args!("    {:35} {here_all:5} {parent_all:9}", "all"));
        Ok(())
    }

    fn ids(&self, pid: u64) -> Result<TaskKobjIdsEntry, ImageError> {
        match self.dir.read_one::<CoreEntry>(pid)?.ids {
            Some(ids) => Ok(ids),
            None => Ok(self.dir.read_one::<TaskKobjIdsEntry>(pid)?.into_inner()),
        }
    }

    /// A name for an open file: its path if it has one.
    fn name(&self, id: u32) -> String {
        let Some(file) = self.files.get(&id) else { return format!("(file {id:#x} is not in files.img)") };
        let path = |id: Option<u32>| self.files.get(&id?)?.reg.as_ref().map(|r| r.name.clone());
        let kind = FdType::try_from(file.r#type).map_or("?", |k| k.as_str_name());
        let by_number = || format!("{}[{id:#x}]", kind.trim_start_matches("FD_TYPE_").to_lowercase());
        if let Some(reg) = &file.reg {
            return reg.name.clone();
        }
        if let Some(pipe) = &file.pipe {
            return format!("pipe[{}]", pipe.pipe_id);
        }
        if let Some(memfd) = &file.memfd {
            let name = self.memfds.get(&memfd.inode_id);
            return name.map_or_else(by_number, |name| format!("memfd:{name}"));
        }
        let named = file.tty.as_ref().map(|t| t.regf_id).or(file.fifo.as_ref().map(|f| f.regf_id));
        named.and_then(path).unwrap_or_else(by_number)
    }

    fn mapped(&self, v: &VmaEntry) -> String {
        let marks = [
            (vma::VSYSCALL, "[vsyscall]"),
            (vma::VDSO, "[vdso]"),
            (vma::VVAR, "[vvar]"),
            (vma::STACK, "[stack]"),
            (vma::HEAP, "[heap]"),
            (vma::SYSVIPC, "[SysV shared memory]"),
            (vma::AIORING, "[aio]"),
        ];
        if let Some((_, name)) = marks.iter().find(|(bit, _)| v.status & bit != 0) {
            return (*name).to_owned();
        }
        let growing = if v.flags & 0x100 != 0 { "[grows down]" } else { "" };
        if v.status & vma::ANON_SHARED != 0 {
            return format!("[shared memory {}] + {:#x}", v.shmid, v.pgoff);
        }
        if v.status & (vma::FILE_PRIVATE | vma::FILE_SHARED) == 0 {
            return growing.to_owned();
        }
        let name = u32::try_from(v.shmid).map_or_else(|_| format!("(file {:#x})", v.shmid), |id| self.name(id));
        let offset = if v.pgoff == 0 { String::new() } else { format!(" + {:#x}", v.pgoff) };
        let shared = if v.status & vma::FILE_SHARED != 0 { " (shared)" } else { "" };
        format!("{name}{offset}{shared}")
    }
}

fn protection(v: &VmaEntry) -> String {
    [(1, 'r'), (2, 'w'), (4, 'x')].map(|(bit, letter)| if v.prot & bit != 0 { letter } else { '-' }).iter().collect()
}

/// Names come from images: control characters must not reach a terminal.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}
