//! konductor-policy-abi
