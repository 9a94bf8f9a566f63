//! Options of each subcommand; no logic.
