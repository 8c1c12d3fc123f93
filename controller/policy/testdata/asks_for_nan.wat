;; The bits of a NaN differ from machine to machine, unless they are made canonical: a policy could
;; decide by them.
(module
  (memory (export "memory") 5)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    ;; {"wakeInMs":N}, where N is 1 if the sign and payload of 0/0 are the canonical ones
    i32.const 1036
    f64.const 0
    f64.const 0
    f64.div
    i64.reinterpret_f64
    i64.const 0x7ff8_0000_0000_0000
    i64.eq
    i32.const 48
    i32.add
    i32.store8
    i64.const 0x0000_0400_0000_000e)
  (data (i32.const 1024) "{\"wakeInMs\":0}"))
