;; Two functions that call each other through a table, without end.
(module
  (memory (export "memory") 8)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (call_indirect (param i32 i32) (result i64) (local.get $ptr) (local.get $len) (i32.const 1)))
  (func $other (param $ptr i32) (param $len i32) (result i64)
    (call_indirect (param i32 i32) (result i64) (local.get $ptr) (local.get $len) (i32.const 0)))
  (table funcref (elem $decide $other)))
