//! konductor-policy
