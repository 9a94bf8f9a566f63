//! Image tree of one instruction set to image tree of another: unwind, frames, registers, kernel facts, emit.
