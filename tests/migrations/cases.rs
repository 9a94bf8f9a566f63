//! What is moved where and when, and what came of it.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Programs with the variants that are tried of each.
const SUBJECTS: &[(&str, &[&str])] = &[
    ("recursion", &["", "limit"]),
    ("pointers", &[""]),
    ("vla", &[""]),
    ("variadic", &[""]),
    ("callbacks", &[""]),
    ("manyargs", &[""]),
    ("floats", &[""]),
    ("tls", &[""]),
    ("structs", &[""]),
    ("int128", &[""]),
    ("stdio", &[""]),
    (
        "blocked",
        &[
            "nanosleep",
            "clock_nanosleep",
            "read",
            "poll",
            "ppoll",
            "select",
            "epoll_wait",
            "sigtimedwait",
            "futex",
            "pause",
            "sigsuspend",
            "interrupted",
        ],
    ),
    ("hotloop", &[""]),
    ("signals", &[""]),
    ("jumps", &[""]),
    ("sigjumps", &["", "slow"]),
    ("malloc", &["", "big"]),
    ("files", &[""]),
    ("threads", &["", "many"]),
];

/// The ways a process can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Not moved, x86_64.
    NativeX,
    /// Not moved, aarch64.
    NativeA,
    /// Dumped and restored on x86_64.
    XX,
    /// Dumped and restored on aarch64.
    AA,
    /// From x86_64 to aarch64.
    XA,
    /// From aarch64 to x86_64.
    AX,
    /// To aarch64 and back.
    XaX,
}

impl Route {
    pub const ALL: [Self; 7] = [Self::NativeX, Self::NativeA, Self::XX, Self::AA, Self::XA, Self::AX, Self::XaX];

    pub fn name(self) -> &'static str {
        match self {
            Self::NativeX => "native-x",
            Self::NativeA => "native-a",
            Self::XX => "x-x",
            Self::AA => "a-a",
            Self::XA => "x-a",
            Self::AX => "a-x",
            Self::XaX => "x-a-x",
        }
    }

    pub fn starts_on_host(self) -> bool {
        matches!(self, Self::NativeX | Self::XX | Self::XA | Self::XaX)
    }

    fn moved(self) -> bool {
        !matches!(self, Self::NativeX | Self::NativeA)
    }
}

/// One process and its way.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub program: &'static str,
    pub variant: &'static str,
    pub route: Route,
    /// The program's seed.
    pub seed: u64,
    /// How long it works before each dump, and before it is told to stop.
    pub delays: [Duration; 3],
}

impl Case {
    /// Whether it sleeps most of the time, so that many can run side by side.
    pub fn waits(&self) -> bool {
        self.program == "blocked"
    }

    /// A third argument of the program: how long `blocked` waits, in ms. A tenth of it is how late a wait may end, and a
    /// wait that ends while its process is on its way ends with the way; a node without hardware support takes a second.
    pub fn argument(&self) -> &'static str {
        if self.waits() { "4000" } else { "" }
    }
}

/// All cases of a run.
#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    pub moments: u64,
    pub cases: Vec<Case>,
}

impl Plan {
    pub fn from_env() -> Result<Self, String> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().map_err(|e| format!("{name}={text}: {e}")),
            Err(_) => Ok(default),
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = number("SEED", u64::from(now.subsec_nanos()))?;
        let moments = number("MOMENTS", 2)?;
        let filter = std::env::var("FILTER").unwrap_or_default();
        let mut state = seed;
        let mut cases = Vec::new();
        for (program, variants) in SUBJECTS {
            for variant in *variants {
                for route in Route::ALL {
                    let heavy = matches!(*variant, "big");
                    let waits = *program == "blocked";
                    let moments = if route.moved() && !heavy && !waits { moments } else { 1 };
                    for moment in 0..moments {
                        let dash = if variant.is_empty() { "" } else { "-" };
                        let name = format!("{program}{dash}{variant}.{}.{moment}", route.name());
                        // Drawn for every case, chosen or not, so that a filter replays the same moments.
                        let case_seed = next(&mut state);
                        let mut delays = [0; 3].map(|_| Duration::from_micros(next(&mut state) % 400_000));
                        if heavy {
                            // Time for what it does after a move.
                            delays[1] += Duration::from_secs(6);
                        }
                        if name.contains(&filter) {
                            cases.push(Case { name, program, variant, route, seed: case_seed, delays });
                        }
                    }
                }
            }
        }
        if cases.is_empty() {
            return Err(format!("FILTER={filter} chooses no case"));
        }
        Ok(Self { seed, moments, cases })
    }

    /// The cases whose waits ended late, to be tried once more, one at a time: a busy machine makes anybody late, a wait that
    /// starts anew after a move is late always. What woke early, or failed otherwise, is not tried again.
    pub fn late(&self, outcomes: &Outcomes) -> Option<Self> {
        let late = |c: &&Case| matches!(outcomes.0.get(&c.name), Some(Err(why)) if why.contains("waited <= "));
        let again = |c: &Case| Case { name: format!("{}-again", c.name), ..c.clone() };
        let cases: Vec<_> = self.cases.iter().filter(late).map(again).collect();
        (!cases.is_empty()).then_some(Self { seed: self.seed, moments: self.moments, cases })
    }

    /// How many of the cases that wait may run side by side.
    pub fn waiting(&self) -> usize {
        if self.cases.iter().all(|c| c.name.ends_with("-again")) { 1 } else { WAITING }
    }

    /// The programs that the cases need.
    pub fn programs(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.cases.iter().map(|c| c.program).collect();
        names.dedup();
        names
    }
}

/// Cases that wait, side by side.
const WAITING: usize = 4;

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How each case ended; a case without an entry is still on its way.
#[derive(Debug, Default)]
pub struct Outcomes(BTreeMap<String, Result<(), String>>);

impl Outcomes {
    pub fn record(&mut self, case: &Case, result: Result<(), String>) {
        if let Err(why) = &result {
            println!("FAILED {}: {}", case.name, why.lines().next().unwrap_or_default());
        }
        self.0.insert(case.name.clone(), result);
    }

    /// The second try counts.
    pub fn replace_by(&mut self, again: &Self) {
        for (name, result) in &again.0 {
            self.0.insert(name.trim_end_matches("-again").to_owned(), result.clone());
        }
    }

    pub fn ended(&self, case: &Case) -> bool {
        self.0.contains_key(&case.name)
    }

    /// Prints the table and the closing line; the number of cases that failed.
    pub fn report(&self, plan: &Plan, work: &Path) -> usize {
        println!();
        let mut failed = 0;
        for route in Route::ALL {
            let of_route: Vec<_> = plan.cases.iter().filter(|c| c.route == route).collect();
            let passed = of_route.iter().filter(|c| matches!(self.0.get(&c.name), Some(Ok(())))).count();
            println!("{:9} {passed}/{}", route.name(), of_route.len());
        }
        for case in &plan.cases {
            let why = match self.0.get(&case.name) {
                Some(Ok(())) => continue,
                Some(Err(why)) => why.clone(),
                None => "never ended".into(),
            };
            failed += 1;
            println!("\n{}: {why}", case.name);
            println!(
                "  replay: SEED={} MOMENTS={} FILTER={}; files: {}",
                plan.seed,
                plan.moments,
                case.name,
                work.join("t").join(&case.name).display()
            );
        }
        println!("\nmigrations: {} passed, {failed} failed", plan.cases.len() - failed);
        failed
    }
}
