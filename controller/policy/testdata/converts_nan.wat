;; An average that is not a number, taken for an index.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    f64.const nan
    i64.trunc_f64_s))
