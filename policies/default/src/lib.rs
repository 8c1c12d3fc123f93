//! konductor-policy-default
