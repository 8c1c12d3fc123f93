//! konductor-controller
