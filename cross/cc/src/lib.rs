//! `isamorph-cc`: a drop-in `cc` for C on stock LLVM that makes pairs of portable executables.
//!
//! ```text
//!   options ─▶ frontend (clang) ─▶ bitcode ─▶ codegen ─▶ pair ─▶ fat object ─▶ resolve ─▶ link ×2 ─▶ verify ─▶ pair
//! ```
pub mod archive;
pub mod codegen;
pub mod driver;
pub mod frontend;
pub mod leaves;
pub mod link;
mod llvm;
pub mod options;
pub mod pair;
mod passes;
pub mod query;
pub mod resolve;
pub mod sysroot;
pub mod tools;
