;; A function pointer that was cast to another type.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    i32.const 0
    call_indirect (result i64))
  (table 1 funcref)
  (func $other)
  (elem (i32.const 0) $other))
