;; A table that grows without end: memory of the host that a limit on memory alone does not see.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (loop $again
      ref.null func
      i32.const 1000
      table.grow $callbacks
      drop
      br $again)
    unreachable)
  (table $callbacks 1 funcref))
