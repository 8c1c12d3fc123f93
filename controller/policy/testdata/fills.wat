;; Bulk operations cannot be interrupted, so a few of them could stand for a long loop. They cost
;; fuel per byte.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (loop $again
      i32.const 0
      i32.const 0
      i32.const 131072
      memory.fill
      br $again)
    unreachable))
