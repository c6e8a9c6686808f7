//! The whole system, in one process and apart.
