;; Wants to keep a state of more than 4 KiB.
(module
  (memory (export "memory") 8)
  (data (i32.const 1024) "{\"state\":\"")
  (data (i32.const 7034) "\"}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_decide") (param i32 i32) (result i64)
    (memory.fill (i32.const 1034) (i32.const 120) (i32.const 6000))
    (i64.const 0x4000000177c)))
