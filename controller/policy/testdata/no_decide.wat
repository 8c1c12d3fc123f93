;; No konductor_decide: a library, not a policy.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096))
