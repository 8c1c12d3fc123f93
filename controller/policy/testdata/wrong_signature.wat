;; konductor_decide with 64-bit pointers.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func (export "konductor_decide") (param i64 i64) (result i64)
    i64.const 0))
