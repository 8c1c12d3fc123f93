//! konductor-core
