;; Finds every params valid, and traps where they are not empty.
(module
  (memory (export "memory") 8)
  (data (i32.const 8) "{}")
  (data (i32.const 64) "{\"errors\":[]}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_validate") (param i32 i32) (result i64) (i64.const 0x400000000d))
  (func (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $end i32)
    (local.set $end (i32.sub (i32.add (local.get $ptr) (local.get $len)) (i32.const 4)))
    (loop $next
      ;; "bad!" in the input.
      (if (i32.eq (i32.load (local.get $ptr)) (i32.const 0x21646162)) (then unreachable))
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $ptr) (local.get $end))))
    (i64.const 0x800000002)))
