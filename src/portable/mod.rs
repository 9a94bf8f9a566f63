//! What a pair of executables declares: manifest, stack maps, polls, TLS, sites; and the verifier.
//!
//! Everything is read through PT_LOAD segments, so it survives `strip`; symbols only lend their
//! names to messages. Input is never trusted: every length and address is checked, no parser panics.
pub mod bbmap;
pub mod bytes;
pub mod error;
pub mod executable;
pub mod manifest;
pub mod pair;
pub mod polls;
pub mod sites;
pub mod stackmaps;
pub mod verify;

pub use error::Error;
pub use executable::{Executable, Segment, Symbol, Tls};
pub use manifest::Manifest;
pub use pair::Pair;
pub use polls::Poll;
pub use sites::{Place, Residue, Saved, Site, SiteEntry, SiteTable, Value};
