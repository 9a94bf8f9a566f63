//! Whole trees, translated in both directions.
