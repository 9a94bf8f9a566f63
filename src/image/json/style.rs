//! How numbers are shown to people: addresses and masks in hexadecimal, flags by name.

/// How a number is shown in pretty JSON.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// As JSON has it.
    Plain,
    /// `"0x7f…"`.
    Hex,
    /// `"NAME | NAME | 0x…"`: names of bits, then what is left.
    Flags(&'static [(u64, &'static str)]),
    /// The name of exactly this value.
    Names(&'static [(u64, &'static str)]),
}

const PROT: &[(u64, &str)] = &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];

// Linux's include/uapi/asm-generic/mman-common.h and mman.h: the same on both instruction sets.
const MAP: &[(u64, &str)] = &[
    (0x1, "MAP_SHARED"),
    (0x2, "MAP_PRIVATE"),
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANON"),
    (0x100, "MAP_GROWSDOWN"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x20000, "MAP_STACK"),
    (0x40000, "MAP_HUGETLB"),
];

// The bits of super::super::vma.
const STATUS: &[(u64, &str)] = &[
    (1 << 0, "VMA_AREA_REGULAR"),
    (1 << 1, "VMA_AREA_STACK"),
    (1 << 2, "VMA_AREA_VSYSCALL"),
    (1 << 3, "VMA_AREA_VDSO"),
    (1 << 5, "VMA_AREA_HEAP"),
    (1 << 6, "VMA_FILE_PRIVATE"),
    (1 << 7, "VMA_FILE_SHARED"),
    (1 << 8, "VMA_ANON_SHARED"),
    (1 << 9, "VMA_ANON_PRIVATE"),
    (1 << 10, "VMA_AREA_SYSVIPC"),
    (1 << 11, "VMA_AREA_SOCKET"),
    (1 << 12, "VMA_AREA_VVAR"),
    (1 << 13, "VMA_AREA_AIORING"),
    (1 << 14, "VMA_AREA_MEMFD"),
    (1 << 15, "VMA_AREA_SHSTK"),
    (1 << 16, "VMA_AREA_GUARD"),
    (1 << 17, "VMA_AREA_UPROBES"),
    (1 << 27, "VMA_EXT_PLUGIN"),
];

const PAGES: &[(u64, &str)] = &[(1, "PE_PARENT"), (2, "PE_LAZY"), (4, "PE_PRESENT")];

// Only those with the same number on every instruction set: an image does not say which one it is of.
// O_DIRECT, O_DIRECTORY, O_NOFOLLOW and O_LARGEFILE stay numbers.
const OPEN: &[(u64, &str)] = &[
    (1, "O_WRONLY"),
    (2, "O_RDWR"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o10000, "O_DSYNC"),
    (0o20000, "FASYNC"),
    (0o1_000_000, "O_NOATIME"),
    (0o4_000_000, "__O_SYNC"),
    (0o10_000_000, "O_PATH"),
    (0o20_000_000, "__O_TMPFILE"),
];

const STATES: &[(u64, &str)] = &[(1, "Alive"), (2, "Dead"), (3, "Stopped"), (6, "Zombie")];

/// The style of a field.
#[must_use]
pub fn of(message: &str, field: &str) -> Style {
    match (message, field) {
        ("VmaEntry", "prot") => Style::Flags(PROT),
        ("VmaEntry", "flags") => Style::Flags(MAP),
        ("VmaEntry", "status") => Style::Flags(STATUS),
        ("VmaEntry", "fdflags") => Style::Flags(OPEN),
        ("PagemapEntry", "flags") => Style::Flags(PAGES),
        ("TaskCoreEntry", "task_state") => Style::Names(STATES),
        ("FdinfoEntry" | "TaskCoreEntry" | "SeccompFilter", "flags") => Style::Plain,
        (
            "RegFileEntry" | "PipeEntry" | "EventfdFileEntry" | "EventpollFileEntry" | "SignalfdEntry" | "TimerfdEntry"
            | "TtyFileEntry" | "MemfdFileEntry" | "NsFileEntry",
            "flags",
        ) => Style::Flags(OPEN),
        ("UserX86RegsEntry" | "UserAarch64RegsEntry" | "SaEntry" | "PacAddressKeys" | "PacGenericKeys", _)
        | ("VmaEntry", "start" | "end" | "pgoff" | "madv")
        | ("PagemapEntry", "vaddr")
        | (
            "MmEntry",
            "mm_start_code" | "mm_end_code" | "mm_start_data" | "mm_end_data" | "mm_start_stack" | "mm_start_brk"
            | "mm_brk" | "mm_arg_start" | "mm_arg_end" | "mm_env_start" | "mm_env_end",
        )
        | ("ThreadInfoX86" | "ThreadInfoAarch64", "clear_tid_addr" | "tls")
        | ("UserX86XsaveEntry", "xstate_bv")
        | ("ThreadCoreEntry", "futex_rla" | "blk_sigset")
        | ("TaskCoreEntry", "blk_sigset" | "personality")
        | ("ThreadSasEntry", "ss_sp" | "ss_flags")
        | ("RseqEntry", "rseq_abi_pointer" | "signature" | "rseq_cs_pointer")
        | ("CredsEntry", "cap_inh" | "cap_prm" | "cap_eff" | "cap_bnd" | "cap_amb" | "secbits")
        | ("SignalfdEntry", "sigmask")
        | ("EventpollTfdEntry", "events" | "data")
        | ("TermiosEntry", "c_iflag" | "c_oflag" | "c_cflag" | "c_lflag")
        | ("TtyInfoEntry", "rdev" | "dev")
        | ("PosixTimerEntry", "sival_ptr")
        | ("MemfdInodeEntry", "seals") => Style::Hex,
        _ => Style::Plain,
    }
}

impl Style {
    /// The number as text, `None` where JSON's own way is best.
    #[must_use]
    pub fn show(self, number: u64) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Hex => Some(format!("{number:#x}")),
            Self::Names(names) => names.iter().find(|(n, _)| *n == number).map(|(_, name)| (*name).to_owned()),
            Self::Flags(names) => {
                let mut rest = number;
                let mut words = Vec::new();
                for (bits, name) in names.iter().filter(|(bits, _)| number & bits == *bits) {
                    rest &= !bits;
                    words.push((*name).to_owned());
                }
                if rest != 0 || words.is_empty() {
                    words.push(format!("{rest:#x}"));
                }
                Some(words.join(" | "))
            }
        }
    }

    /// The number that a text stands for: the inverse of [`show`](Self::show); a number in any style.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<u64> {
        let names = match self {
            Self::Flags(names) | Self::Names(names) => names,
            Self::Plain | Self::Hex => &[],
        };
        let word = |word: &str| match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok().or_else(|| names.iter().find(|(_, n)| *n == word).map(|(bits, _)| *bits)),
        };
        match self {
            Self::Flags(_) => text.split('|').try_fold(0, |all, part| Some(all | word(part.trim())?)),
            _ => word(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_and_what_has_no_name_is_kept() {
        let prot = of("VmaEntry", "prot");
        assert_eq!(prot.show(0x103).unwrap(), "PROT_READ | PROT_WRITE | 0x100");
        assert_eq!(prot.show(0).unwrap(), "0x0");
        for number in [0, 1, 7, 0x103, u64::MAX] {
            assert_eq!(prot.parse(&prot.show(number).unwrap()), Some(number));
        }
        assert_eq!(prot.parse("PROT_READ | nonsense"), None);
        let state = of("TaskCoreEntry", "task_state");
        assert_eq!((state.show(1).unwrap().as_str(), state.show(9)), ("Alive", None));
        assert_eq!((state.parse("Stopped"), state.parse("9"), state.parse("")), (Some(3), Some(9), None));
    }
}
