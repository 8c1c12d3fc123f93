//! konductor-tests
