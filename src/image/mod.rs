//! Image trees in CRIU's format: framing, typed entries, page stores, JSON views.
