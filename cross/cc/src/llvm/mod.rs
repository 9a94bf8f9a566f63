//! A thin layer over LLVM's C API: handles that print, compare and hash, and calls that take Rust types.
//!
//! Handles ([`Value`], [`Block`], [`Type`]) are plain copies of LLVM's pointers. The contract, kept by `passes` and
//! `codegen`, is LLVM's own: a handle is not used after its module was dropped or the value was erased, and an
//! accessor is only called on the kind of value that it names (a release build of LLVM does not check).
pub mod builder;
pub mod machine;
pub mod module;
mod shim;
pub mod types;
pub mod value;

pub use builder::Builder;
pub use machine::{Machine, Target};
pub use module::{Context, Module};
pub use types::Type;
pub use value::{Block, Value};

/// A call into LLVM.
macro_rules! ffi {
    ($call:expr) => {{
        // SAFETY: the handles come from a live context and are of the kind that the function wants (the contract in the
        // documentation of `crate::llvm`); buffers outlive the call.
        unsafe { $call }
    }};
}
pub(crate) use ffi;

/// The name as C wants it; an inner NUL ends it.
pub(crate) fn c_string(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// A copy of `length` bytes of text that LLVM owns.
pub(crate) fn text(pointer: *const libc_char, length: usize) -> String {
    if pointer.is_null() || length == 0 {
        return String::new();
    }
    // SAFETY: LLVM returned pointer and length together; the text lives as long as its owner, and is copied here.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

#[allow(non_camel_case_types)]
pub(crate) type libc_char = std::ffi::c_char;
