//! The archive read back and proved.
