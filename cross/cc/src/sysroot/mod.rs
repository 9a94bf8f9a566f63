//! The sysroot: headers, `libc.a` with the runtime in it, and where they are found.
pub mod build;

use std::path::{Path, PathBuf};

/// Libraries that are part of musl's `libc.a`: naming them is not an error, and adds nothing.
pub const IN_LIBC: &[&str] = &["c", "m", "pthread", "rt", "dl", "util", "xnet", "resolv", "crypt"];

/// A sysroot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysroot(PathBuf);

impl Sysroot {
    /// The one to use: `$ISAMORPH_SYSROOT`; `../share/isamorph/sysroot` beside this program; the one that
    /// `cross/setup` built, `${XDG_CACHE_HOME:-~/.cache}/isamorph/sysroot`. `None` if there is none.
    #[must_use]
    pub fn find() -> Option<Self> {
        if let Some(given) = std::env::var_os("ISAMORPH_SYSROOT") {
            return Some(Self(given.into()));
        }
        let exe = std::env::current_exe().ok();
        let bin = exe.as_deref().and_then(Path::parent);
        let shared = bin.map(|bin| bin.join("../share/isamorph/sysroot"));
        shared.into_iter().chain(cache().map(|c| c.join("sysroot"))).find(|p| p.join("include").is_dir()).map(Self)
    }

    /// The C library's headers.
    #[must_use]
    pub fn include(&self) -> PathBuf {
        self.0.join("include")
    }

    /// Archives.
    #[must_use]
    pub fn lib(&self) -> PathBuf {
        self.0.join("lib")
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/isamorph`.
#[must_use]
pub fn cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("isamorph"))
}
