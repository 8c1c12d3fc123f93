;; Counts in its state, and traps on the state that it has itself written.
(module
  (memory (export "memory") 8)
  (data (i32.const 1024) "{\"state\":\"mine-7f3a\"}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $end i32)
    (local.set $end (i32.sub (i32.add (local.get $ptr) (local.get $len)) (i32.const 4)))
    (loop $next
      ;; "mine" in the input, which is where the state is.
      (if (i32.eq (i32.load (local.get $ptr)) (i32.const 0x656e696d)) (then unreachable))
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $ptr) (local.get $end))))
    (i64.const 0x40000000015)))
