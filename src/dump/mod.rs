//! Live tree to image tree; one file per kind of resource.
