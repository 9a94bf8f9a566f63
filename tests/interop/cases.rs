//! The cases: a program, who dumps it where, who restores it where; and what CRIU itself does not carry.

/// Programs and variants, as pairs.
pub const PORTABLE: &[(&str, &str)] = &[
    ("callbacks", ""),
    ("files", ""),
    ("hotloop", ""),
    ("signals", ""),
    ("stdio", ""),
    ("tls", ""),
    ("shared", ""),
    ("blocked", "nanosleep"),
    ("blocked", "read"),
    ("blocked", "epoll_wait"),
];

/// Programs and variants that an ordinary compiler makes: dumped wherever they are.
pub const ORDINARY: &[(&str, &str)] =
    &[("callbacks", ""), ("files", ""), ("signals", ""), ("shared", ""), ("shared", "memfd"), ("blocked", "read")];

/// Who dumps, and who restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// isamorph dumps, CRIU restores.
    OursCriu,
    /// CRIU dumps, isamorph restores.
    CriuOurs,
    /// CRIU alone.
    CriuCriu,
    /// isamorph alone.
    OursOurs,
    /// Nobody: the process is parked and let go.
    Park,
}

/// Something that CRIU 3.17.1 does not carry.
#[derive(Debug)]
pub struct Limit {
    /// What it is.
    pub what: &'static str,
    program: (&'static str, &'static str),
    /// Only there; elsewhere it does not show in these cases.
    isa: Option<&'static str>,
    /// Lost by its dump; otherwise by its restore.
    dump: bool,
    /// What the case says then.
    pub says: &'static str,
}

/// All of them that these programs meet.
const LIMITS: &[Limit] = &[
    Limit {
        what: "O_DIRECTORY of an open directory is lost by CRIU's restore",
        program: ("files", ""),
        isa: None,
        dump: false,
        says: "(O_DIRECTORY | O_NOFOLLOW)",
    },
    Limit {
        what: "an interval timer without an interval does not run after CRIU's restore",
        program: ("blocked", "read"),
        isa: None,
        dump: false,
        says: "no PASS",
    },
    Limit {
        // On aarch64 it sleeps its whole time again: late by the second before the dump, which is no failure here.
        what: "nanosleep is interrupted by CRIU's dump and returns EINTR",
        program: ("blocked", "nanosleep"),
        isa: Some("x86_64"),
        dump: true,
        says: "errno 4",
    },
    Limit {
        what: "epoll_wait is interrupted by CRIU's dump and returns EINTR",
        program: ("blocked", "epoll_wait"),
        isa: None,
        dump: true,
        says: "errno 4",
    },
];

/// One process and what is done to it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    program: &'static str,
    variant: &'static str,
    portable: bool,
    tools: Tools,
    /// The node it starts on.
    pub from: &'static str,
    /// The node it ends on.
    pub to: &'static str,
}

/// All cases.
pub fn all() -> Vec<Case> {
    use Tools::{CriuCriu, CriuOurs, OursCriu, OursOurs, Park};
    let mut all = Vec::new();
    for (from, other) in [("x86_64", "aarch64"), ("aarch64", "x86_64")] {
        for &(program, variant) in PORTABLE {
            let case = |tools, to| Case { program, variant, portable: true, tools, from, to };
            all.extend([OursCriu, CriuOurs, Park].map(|tools| case(tools, from)));
            if LIMITS.iter().any(|l| l.program == (program, variant)) {
                all.push(case(CriuCriu, from));
            }
            all.extend([OursCriu, CriuOurs, CriuCriu].map(|tools| case(tools, other)));
        }
        for &(program, variant) in ORDINARY {
            let case = |tools| Case { program, variant, portable: false, tools, from, to: from };
            // isamorph does not dump memfds yet.
            if variant != "memfd" {
                all.extend([OursCriu, OursOurs].map(case));
            }
            all.push(case(CriuOurs));
            if LIMITS.iter().any(|l| l.program == (program, variant)) {
                all.push(case(CriuCriu));
            }
        }
    }
    all
}

impl Case {
    /// `x86_64-portable-files-ours-criu`, `x86_64-to-aarch64-files-ours-criu`.
    pub fn name(&self) -> String {
        let way = match (self.from == self.to, self.portable) {
            (false, _) => format!("{}-to-{}", self.from, self.to),
            (true, true) => format!("{}-portable", self.from),
            (true, false) => format!("{}-ordinary", self.from),
        };
        let tools = match self.tools {
            Tools::OursCriu => "ours-criu",
            Tools::CriuOurs => "criu-ours",
            Tools::CriuCriu => "criu-criu",
            Tools::OursOurs => "ours-ours",
            Tools::Park => "park-unpark",
        };
        [&way, self.program, self.variant, tools].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// Whether it measures time, so that others should not work meanwhile; it waits itself for most of it.
    pub fn is_timed(&self) -> bool {
        self.program == "blocked"
    }

    /// What of CRIU keeps this case from passing.
    pub fn limit(&self) -> Option<&'static Limit> {
        let restored = matches!(self.tools, Tools::OursCriu | Tools::CriuCriu);
        // A parked process is at a place where a dump interrupts nothing.
        let interrupted = matches!(self.tools, Tools::CriuOurs | Tools::CriuCriu) && self.from == self.to;
        LIMITS
            .iter()
            .filter(|l| l.program == (self.program, self.variant) && l.isa.is_none_or(|isa| isa == self.from))
            .find(|l| if l.dump { interrupted } else { restored })
    }

    /// The name of the case in which CRIU does alone what it does here.
    pub fn control(&self) -> String {
        // Its restore matters on the node that it restores on.
        Self { tools: Tools::CriuCriu, from: self.to, ..*self }.name()
    }

    /// The line of shell that starts it, and dumps it; and restores it if that is on the same node.
    pub fn first(&self) -> String {
        let Self { program, variant, from, to, .. } = self;
        let name = self.name();
        let suffix = if *from == "x86_64" { "x86-64" } else { "aarch64" };
        let executable =
            if self.portable { format!("{program}_{suffix}") } else { format!("{program}-ordinary-{from}") };
        let start = match self.is_timed() {
            // Longer than a dump and a restore take on a busy machine. The clock runs on while a parked process waits for
            // other programs, so how late it is tells of the machine; `migrations` measures what isamorph alone does.
            true => format!("start {name} {executable} 11 '{variant}' 1 8000,8000"),
            false => format!("start {name} {executable} 11 '{variant}' 0.3"),
        };
        let finish = format!("finish {name} 0.2");
        let travels = from != to;
        let steps = match self.tools {
            Tools::Park => format!("park {name} $PID && sleep 0.1 && unpark {name} $PID && {finish}"),
            Tools::OursCriu if travels => format!("dump {name} $PID img --arch {to}"),
            Tools::CriuOurs | Tools::CriuCriu if travels => {
                format!("park {name} $PID && criu_dump {name} $PID img && transform {name} img {to}")
            }
            Tools::OursCriu => format!("dump {name} $PID img && criu_restore {name} img && {finish}"),
            Tools::CriuOurs => format!("criu_dump {name} $PID img && restore {name} img && {finish}"),
            Tools::CriuCriu => format!("criu_dump {name} $PID img && criu_restore {name} img && {finish}"),
            Tools::OursOurs => format!("dump {name} $PID img && restore {name} img && {finish}"),
        };
        format!("{start} && {steps}\n")
    }

    /// The line of shell that restores it on the other node.
    pub fn second(&self) -> String {
        let (name, to) = (self.name(), self.to);
        let restore = if matches!(self.tools, Tools::OursCriu | Tools::CriuCriu) { "criu_restore" } else { "restore" };
        format!("{restore} {name} img/{to} && finish {name} 0.2\n")
    }
}
