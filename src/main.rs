//! The `isamorph` command: parse, dispatch, print the error.
fn main() {}
