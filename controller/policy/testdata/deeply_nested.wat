;; Thirty thousand brackets: a recursive parser on the host would overflow its own stack.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    i32.const 1024
    i32.const 91
    i32.const 30000
    memory.fill
    i64.const 0x40000007530))
