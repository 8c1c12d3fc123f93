;; All of its memory copied, again and again: one instruction that takes as long as a million others.
(module
  (memory (export "memory") 256)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (loop $again
      (memory.copy (i32.const 8388608) (i32.const 0) (i32.const 8388608))
      br $again)
    unreachable))
