;; A counter that survives the call: if an instance were used again, the second answer would not be
;; the first.
(module
  (memory (export "memory") 5)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (global $calls (mut i32) (i32.const 0))
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    global.get $calls
    i32.const 1
    i32.add
    global.set $calls
    ;; {"wakeInMs":N}, where N is the number of calls
    i32.const 1036
    global.get $calls
    i32.const 48
    i32.add
    i32.store8
    i64.const 0x0000_0400_0000_000e)
  (data (i32.const 1024) "{\"wakeInMs\":0}"))
