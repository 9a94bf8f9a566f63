//! Image tree to live tree: plan, fork, blob; the same file names as `dump`.
