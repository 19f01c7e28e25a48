//! The log source against a disk of its own.
