;; Works until the queue is long: it copies its input to where there is room for little.
(module
  (memory (export "memory") 6)
  (data (i32.const 8) "{}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.copy (i32.const 340000) (local.get $ptr) (local.get $len))
    (i64.const 0x800000002)))
