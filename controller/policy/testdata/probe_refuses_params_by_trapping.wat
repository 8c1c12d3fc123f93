;; Traps instead of saying what is wrong with params.
(module
  (memory (export "memory") 8)
  (data (i32.const 8) "{}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_validate") (param i32 i32) (result i64) unreachable)
  (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x800000002)))
