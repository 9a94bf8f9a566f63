//! Image tree of one instruction set to image tree of another: unwind, frames, registers, kernel facts, emit.
pub mod frames;
#[cfg(test)]
mod machine;
pub mod unwind;
pub mod wire;
