//! What a pair of executables declares: manifest, stack maps, polls, TLS, sites; and the verifier.
