//! Nothing: the package is a list of sources, and cargo wants a target.
