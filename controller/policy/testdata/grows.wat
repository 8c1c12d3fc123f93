;; A leak: memory grows until there is no more.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (loop $again
      i32.const 16
      memory.grow
      drop
      br $again)
    unreachable))
