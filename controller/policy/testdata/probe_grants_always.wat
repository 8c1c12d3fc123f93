;; Grants the first request whatever it is asked, also when there is none or somebody holds.
(module
  (memory (export "memory") 8)
  (data (i32.const 1024) "{\"grant\":{\"request\":0,\"ttlMs\":1000}}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x40000000024)))
