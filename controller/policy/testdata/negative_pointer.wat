;; A pointer with the high bit set, and a length that carries it over 4 GiB: sign extension is a
;; host's mistake.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    i64.const -1))
