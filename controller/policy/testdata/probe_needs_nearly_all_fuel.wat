;; Legal and slow: with the longest input it needs nearly all of its fuel, with others next to none.
(module
  (memory (export "memory") 8)
  (data (i32.const 8) "{}")
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $n i32)
    (if (i32.gt_u (local.get $len) (i32.const 200000))
      (then
        ;; 9 units a turn: a jump is 4.
        (local.set $n (i32.const 5200000))
        (loop $again
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $again (local.get $n)))))
    (i64.const 0x800000002)))
