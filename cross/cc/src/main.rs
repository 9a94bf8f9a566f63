//! `isamorph-cc`: a drop-in `cc` that makes pairs of portable executables.
fn main() {}
