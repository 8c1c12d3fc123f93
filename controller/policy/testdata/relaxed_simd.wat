;; A feature that is switched off: instructions whose result may differ between processors.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    v128.const i64x2 0 0
    v128.const i64x2 0 0
    v128.const i64x2 0 0
    f32x4.relaxed_madd
    drop
    i64.const 0))
