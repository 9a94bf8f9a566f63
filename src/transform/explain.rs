//! What a translation did to a stack, frame by frame, for people.
use super::frames::{Layout, evaluate};
use super::unwind::{Member, NativeStack};
use crate::portable::{Executable, Place, Residue, Value};
use isamorph_arch::{Isa, RemoteAddr};
use std::fmt;

/// One frame on both instruction sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameReport {
    /// The function and the offset of its site on the source.
    pub function: String,
    /// Stack-map ID of the site.
    pub site: u64,
    /// CFA on the source.
    pub source_cfa: RemoteAddr,
    /// Bytes of the source's frame.
    pub source_size: u32,
    /// CFA on the target.
    pub target_cfa: RemoteAddr,
    /// Bytes of the target's frame.
    pub target_size: u32,
    /// Bytes of slots that were copied.
    pub slots: u32,
    /// What was put into live registers and stack cells of the target.
    pub residue: Vec<String>,
    /// Its jump cells, set or not: more than 0 if the function calls `setjmp`.
    pub cells: u32,
}

/// The translated stack of one thread, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadReport {
    /// The thread.
    pub tid: u32,
    /// Instruction sets: from, to.
    pub isas: (Isa, Isa),
    /// Stack pointers: from, to.
    pub sp: (RemoteAddr, RemoteAddr),
    /// Number of the system call that it enters again (asm-generic).
    pub call: u64,
    /// Number of frames.
    pub depth: usize,
    /// The frames; empty unless asked for.
    pub frames: Vec<FrameReport>,
}

/// Describes every frame.
#[must_use]
pub fn frames(
    stack: &NativeStack,
    layout: &Layout<'_>,
    source: &Member<'_>,
    executable: &Executable,
    thread_pointer: RemoteAddr,
) -> Vec<FrameReport> {
    let both = stack.frames.iter().zip(layout.frames());
    both.map(|(from, (to, site))| FrameReport {
        function: executable.name(RemoteAddr(from.ret.0)),
        site: from.site,
        source_cfa: from.cfa,
        source_size: source.sites.by_id(from.site).map_or(0, |site| site.cfa_minus_sp),
        target_cfa: to.cfa,
        target_size: site.cfa_minus_sp,
        slots: site.slots_len,
        residue: site.residue.iter().map(|residue| describe(residue, to.cfa, thread_pointer)).collect(),
        cells: site.cells,
    })
    .collect()
}

fn describe(residue: &Residue, cfa: RemoteAddr, thread_pointer: RemoteAddr) -> String {
    let place = match residue.place {
        Place::Register(reg) => format!("r{}", reg.0),
        Place::Stack(offset) => format!("[cfa{offset:+}]"),
    };
    let what = match residue.value {
        Value::Constant(_) => String::new(),
        Value::Cfa(offset) => format!(" (cfa{offset:+})"),
        Value::ThreadPointer(offset) => format!(" (tp{offset:+})"),
    };
    format!("{place}={:#x}{what}", evaluate(residue, cfa, thread_pointer))
}

impl fmt::Display for ThreadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tid, isas: (from, to), sp, call, depth, frames } = self;
        writeln!(
            f,
            "thread {tid}: {depth} frames, {from} sp {} -> {to} sp {}, re-enters system call {call}",
            sp.0, sp.1
        )?;
        if !frames.is_empty() {
            writeln!(
                f,
                "{:>5}  {:>14} {:>6}  {:>14} {:>6}  {:>6}  function",
                "",
                from.name(),
                "bytes",
                to.name(),
                "bytes",
                "slots"
            )?;
        }
        for (index, frame) in frames.iter().enumerate() {
            writeln!(
                f,
                "{index:>5}  {:>14} {:>6}  {:>14} {:>6}  {:>6}  {} [{:#x}]",
                frame.source_cfa.to_string(),
                frame.source_size,
                frame.target_cfa.to_string(),
                frame.target_size,
                frame.slots,
                frame.function,
                frame.site
            )?;
            for residue in &frame.residue {
                writeln!(f, "{:>60}{residue}", "")?;
            }
            if frame.cells > 0 {
                writeln!(f, "{:>60}calls setjmp, jump cells: {}", "", frame.cells)?;
            }
        }
        Ok(())
    }
}
