//! The contract of the port.
