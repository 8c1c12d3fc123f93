//! koncli
