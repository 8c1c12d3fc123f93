;; A reason that would clear a terminal, forge a second line of a log, and fill a status.
(module
  (memory (export "memory") 5)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    ;; {"reason":"\u001b[2J\nforgxxx…"}, 1028 bytes at 1024
    i32.const 1050
    i32.const 120
    i32.const 1000
    memory.fill
    i32.const 2050
    i32.const 0x7d22
    i32.store16
    i64.const 0x0000_0400_0000_0404)
  (data (i32.const 1024) "{\"reason\":\"\\u001b[2J\\nforg"))
